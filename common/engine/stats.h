/* stats: what a volume counts. Relaxed atomics: each number is right, but numbers read while
 * requests run needn't belong to one moment. */
#ifndef NDIO_STATS_H
#define NDIO_STATS_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/align.h"

struct stat_counters {
	_Atomic uint64_t reads, writes, others; /* requests completed, with errors or without */
	_Atomic uint64_t bytes_read, bytes_written;
	_Atomic uint64_t bounced;      /* subrequests that went through bounce memory */
	_Atomic uint64_t zero_copy;    /* and those straight from or to the caller's memory */
	_Atomic uint64_t partial;      /* blocks read, changed and written back */
	_Atomic uint64_t helped;       /* bytes that helpers encrypted or decrypted */
	_Atomic uint64_t pins, unpins; /* requests that pinned their memory, and undid it */
	_Atomic uint64_t in_flight;    /* requests made and not yet freed */
	_Atomic uint64_t errors;       /* requests that failed */
};

#define STAT_SLOTS 8

/* A core counts in a slot of its own, or shares it with few: a number is the sum over all. */
struct stats {
	struct stat_slot {
		struct stat_counters counters;
		uint8_t apart[CACHE_LINE];
	} slot[STAT_SLOTS];
};

static inline struct stat_counters *stats_here(struct stats *stats)
{
	return &stats->slot[(unsigned)sched_getcpu() % STAT_SLOTS].counters;
}

/* name is a member of stat_counters. */
#define stat_add(stats, name, n)                                                                   \
	atomic_fetch_add_explicit(&stats_here(stats)->name, (n), memory_order_relaxed)
#define stat_sub(stats, name, n) stat_add(stats, name, -(uint64_t)(n))
#define stat_get(stats, name)    stats_sum((stats), offsetof(struct stat_counters, name))

/* Of a counter, by its place in stat_counters. */
uint64_t stats_sum(const struct stats *stats, size_t offset);

/* One "name=number" a line, each after prefix. */
void stats_print(const struct stats *stats, const char *prefix, FILE *out);

#endif
