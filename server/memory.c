/* memory: how much bounce memory there is, and what fits under the locked-memory limit.
 *
 * There are a few sizes, and the best that can be locked is chosen: once before the fork, so that
 * what doesn't fit is seen on the terminal, and again after it, when nbdkit may have become another
 * user (--user), whose limit counts. nbdkit's main thread alone. */
#include "memory.h"

#include <stdio.h>

#include "engine/bounce.h"
#include "memory/pin.h"
#include "parameters.h"
#include "report.h"

/* nbdkit runs 16 threads a connection by default: of one connection each finds a channel. In the
 * wide ones a request of 1 MiB is in flight as a whole; a small one takes a narrow one, which
 * costs so little that there are enough of them for the threads of many connections. */
#define SIZES(narrow_ones, ...)                                                                    \
	{                                                                                          \
		.wide_channels = 16, .wide = { __VA_ARGS__ }, .narrow_channels = narrow_ones,      \
		.narrow = { .pieces = 1, .piece_len = 16 * 1024 },                                 \
	}
#define LARGE .pieces = 4, .piece_len = 256 * 1024

/* From best to least: the locked-memory limit (8 MiB for most users) has to have room for it. */
static const struct lender_options all_sizes[] = {
	SIZES(256, LARGE, .huge_pages = true),
	SIZES(256, LARGE),
	SIZES(64, LARGE),
	SIZES(64, .pieces = 3, .piece_len = 128 * 1024),
};
#define LEAST (&all_sizes[sizeof(all_sizes) / sizeof(all_sizes[0]) - 1])

const struct lender_options *memory_of_file = all_sizes;

/* A connection carries many requests at once; nbdkit's threads share the few there are. */
const struct channel_options memory_of_connection = { .pieces = 16, .piece_len = 256 * 1024 };

static size_t bounce_memory(const struct lender_options *of)
{
	return of->wide_channels * channel_bounce_len(&of->wide) +
	       of->narrow_channels * channel_bounce_len(&of->narrow);
}

void memory_dump(void)
{
	printf("ndio_bounce_memory=%zu\n", bounce_memory(all_sizes));
	printf("ndio_bounce_memory_min=%zu\n", bounce_memory(LEAST));
}

/* Memory and what rings are charged for count each for itself. On huge pages each wide channel's
 * ring is charged for one of 2 MiB, twice its share. */
static size_t locked_memory(const struct lender_options *of)
{
	size_t memory = bounce_memory(of);
	size_t rings = 2 * of->wide_channels * channel_bounce_len(&of->wide);

	return (of->wide.huge_pages && rings > memory ? rings : memory) + BOUNCE_LEAVES;
}

/* A request as large as nbdkit takes must fit beside the bounce memory. */
static int try_pin(void)
{
	size_t bounce = bounce_memory(memory_of_file);

	if (config.open.uri)
		bounce = config.open.connections * channel_bounce_len(&memory_of_connection);
	if (pin_has_room(MAX_REQUEST + bounce + BOUNCE_LEAVES))
		return 0;
	return FAIL("pin=on: can't lock a request of %d MiB: the locked-memory limit (ulimit -l) "
		    "is too low",
		    MAX_REQUEST >> 20);
}

int memory_choose(void)
{
	memory_of_file = all_sizes;
	while (memory_of_file < LEAST && !pin_has_room(locked_memory(memory_of_file)))
		memory_of_file++;
	return config.pin ? try_pin() : 0;
}
