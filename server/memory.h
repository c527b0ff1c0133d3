/* memory: how much bounce memory there is, and what fits under the locked-memory limit. */
#ifndef NDIO_SERVER_MEMORY_H
#define NDIO_SERVER_MEMORY_H

#include "engine/lender.h"

#define MAX_REQUEST (64 * 1024 * 1024) /* nbdkit's own limit */

/* What was chosen for a file; and what a connection to a server has. */
extern const struct lender_options *memory_of_file;
extern const struct channel_options memory_of_connection;

/* Chooses the best that fits; with pin=on a request has to fit as well. Again after a fork: the
 * limit may be another user's. 0, or -1 with an error told. */
int memory_choose(void);

/* What --dump-plugin tells of it. */
void memory_dump(void);

#endif
