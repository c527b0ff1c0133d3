/* rangelock: which byte ranges of a volume are being written, so that a block that is read,
 * changed and written back loses nobody's bytes.
 *
 * Granted in the order of arrival: a range waits for every earlier one that it conflicts with,
 * held or waiting, so nobody starves. A holder must not wait for another range. */
#ifndef NDIO_RANGELOCK_H
#define NDIO_RANGELOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum range_mode {
	RANGE_READ,    /* conflicts with RANGE_PARTIAL */
	RANGE_WRITE,   /* whole blocks replaced: conflicts with all but RANGE_READ */
	RANGE_PARTIAL, /* a block is read, changed, written: conflicts with all */
};

struct range {
	uint64_t start, end; /* bytes, rounded out to whole blocks; end is exclusive */
	enum range_mode mode;
	/* Called once, by the thread that released the last conflicting range, when
	 * range_acquire() had to return false. May not release or acquire ranges. */
	void (*granted)(struct range *range);

	/* Private. */
	unsigned blockers;
	struct range *prev, *next;
};

#define RANGE_REGIONS 1024

struct range_lock {
	pthread_mutex_t lock;
	struct range *first, *last;
	/* How many there are in each region of the volume, by its number modulo RANGE_REGIONS, and
	 * how many that don't lie in one: they tell small ranges of which none can meet, so that
	 * these need not look at each other. */
	unsigned in_region[RANGE_REGIONS], across;
};

void range_lock_init(struct range_lock *ranges);
void range_lock_destroy(struct range_lock *ranges); /* nothing held */

/* True: held at once. False: range->granted() tells when. The struct is the caller's, and
 * stays in place until it is released. Any thread. */
bool range_acquire(struct range_lock *ranges, struct range *range);
void range_release(struct range_lock *ranges, struct range *range);

#endif
