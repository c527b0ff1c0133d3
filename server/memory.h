/* memory: how much bounce memory there is, and what fits under the locked-memory limit. */
#ifndef NDIO_SERVER_MEMORY_H
#define NDIO_SERVER_MEMORY_H

#include <stddef.h>

#include "engine/channel.h"

/* nbdkit runs 16 threads a connection by default: of one connection each finds a channel. In the
 * wide ones a request of 1 MiB is in flight as a whole; a small one takes a narrow one, which costs
 * so little that there are enough of them for the threads of many connections. */
#define WIDE_CHANNELS 16

struct channel_sizes {
	struct channel_options wide;
	unsigned narrow_channels;
};

#define MAX_REQUEST (64 * 1024 * 1024) /* nbdkit's own limit */

/* A connection carries many requests at once; nbdkit's threads share the few there are. */
#define NBD_PIECES    16
#define NBD_PIECE_LEN (256 * 1024)

/* What was chosen. */
extern const struct channel_sizes *memory_sizes;
extern const struct channel_options memory_narrow;

/* Chooses the best that fits; with pin=on a request has to fit as well. Again after a fork: the limit
 * may be another user's. 0, or -1 with an error told. */
int memory_choose(void);

/* What --dump-plugin tells of it. */
void memory_dump(void);

#endif
