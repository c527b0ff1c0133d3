/* below: what a target on a target asks of the one below it, in bytes of a segment of that. */
#ifndef NDIO_BELOW_H
#define NDIO_BELOW_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/subrequest.h"
#include "engine/target.h"

#define IDLE_MS 1000 /* from then on what wasn't flushed is written all the same */

struct below {
	struct target *target;
	struct target_queue *queue;
	uint64_t start; /* bytes: where the segment begins */
};

/* len bytes at this place of the segment. */
struct ndio_subrequest below_sub(const struct below *below, enum op op, uint64_t at, uint64_t len,
				 void *base);

/* A flush, by a queue that goes on meanwhile. */
struct ndio_subrequest below_flush(const struct below *below);

/* What one read or write takes there, in bytes: whole sectors, so that none is written by halves. */
uint64_t below_max_len(const struct below *below);

/* What is longer than that goes in parts, one after the other. */
void below_ask(const struct below *below, struct ndio_subrequest *sub);

/* It has landed. Done, with all parts: 1; an error: negative; 0: the rest of it is on its way. */
int below_land(const struct below *below, struct ndio_subrequest *sub);

/* Can anything be asked? */
bool below_is_up(const struct below *below);

/* Nothing is in flight, and nothing is asked for: sleeps until fd can be read, or that has been so for
 * IDLE_MS. Connections that are lost come back all together, and so also that of who sleeps here. False:
 * nothing came. */
bool below_rest(const struct below *below, int fd);

#endif
