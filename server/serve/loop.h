/* loop: a thread with a channel to one volume, and the connections whose clients it serves. */
#ifndef NDIO_LOOP_H
#define NDIO_LOOP_H

#include "base/error.h"
#include "connection.h"
#include "engine/volume.h"

struct loops; /* of one volume */

/* count threads at the most: no more than the volume's target has queues. counts: what clients ask for is
 * counted, see loops_meters(). 0, or a negative errno with a message. Not across a fork. */
int loops_open(struct volume *volume, unsigned count, bool counts, struct loops **loops,
	       struct error *err);

/* So that several can come to their end beside each other: what loops_close() does first. NULL is fine. */
void loops_end(struct loops *loops);

/* Their connections take on no more requests, and what runs comes to its end; those whose clients
 * don't take their replies are ended after some seconds. NULL is fine. */
void loops_close(struct loops *loops);

/* False where the bounce memory could not be pinned. */
bool loops_are_pinned(const struct loops *loops);

/* To the one that has the fewest. Takes it over. Any thread. */
void loops_add(struct loops *loops, struct connection *connection);

/* What was counted; NULL if nothing is. */
const struct meters *loops_meters(const struct loops *loops);

/* Connections that aren't closed yet. Any thread. */
unsigned loops_connections(const struct loops *loops);

#endif
