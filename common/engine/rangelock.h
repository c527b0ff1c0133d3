/* rangelock: which byte ranges of a volume are being written, so that a block that is read,
 * changed and written back loses nobody's bytes. */
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

#define RANGE_MODES 3

struct range {
	uint64_t start, end; /* bytes, rounded out to whole blocks; end is exclusive */
	enum range_mode mode;
	/* Called once, by the thread that released the last conflicting range, when
	 * range_acquire() had to return false. May not release or acquire ranges. */
	void (*granted)(struct range *range);

	/* Private. */
	uint64_t rank[2];      /* by enum range_rank */
	struct range *blocker; /* the one that it waits for now, or NULL: it is held */
	struct range *next;    /* of those that wait for the same one */
	struct range *first_waiting, **end_waiting;

	/* In the tree, a treap: by start and arrival, and no child's priority above its parent's. */
	struct range *child[2];
	uint64_t priority;
	uint64_t max_end, max_rank[2]; /* of it and all below it */
};

/* Who arrived latest has the highest: a number that counts up from 1. Or who arrived earliest: its
 * complement. */
enum range_rank { RANGE_LATEST, RANGE_EARLIEST };

#define RANGE_REGIONS 1024

struct range_lock {
	pthread_mutex_t lock;
	uint64_t arrived, released;
	uint64_t steps; /* ranges that were looked at, ever: what it costs */
	/* Trees for each region of the volume, by its number modulo RANGE_REGIONS, and behind them
	 * those of the ranges that don't lie in one. */
	struct range *trees[RANGE_REGIONS + 1][RANGE_MODES];
};

void range_lock_init(struct range_lock *ranges);
void range_lock_destroy(struct range_lock *ranges); /* idle */
bool range_lock_is_idle(struct range_lock *ranges); /* nothing held, nobody waits */

/* True: held at once. False: range->granted() tells when. The struct is the caller's, and
 * stays in place until it is released. Any thread. */
bool range_acquire(struct range_lock *ranges, struct range *range);
void range_release(struct range_lock *ranges, struct range *range);

#endif
