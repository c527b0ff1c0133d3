/* stats: what a volume counts. Relaxed atomics: each number is right, but numbers read while
 * requests run needn't belong to one moment. */
#ifndef NDIO_STATS_H
#define NDIO_STATS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

struct stats {
	_Atomic uint64_t reads, writes, others; /* requests completed, with errors or without */
	_Atomic uint64_t bytes_read, bytes_written;
	_Atomic uint64_t bounced;   /* subrequests that went through bounce memory */
	_Atomic uint64_t zero_copy; /* and those straight from or to the caller's memory */
	_Atomic uint64_t partial;   /* blocks read, changed and written back */
	_Atomic uint64_t helped;    /* bytes that helpers encrypted or decrypted */
	_Atomic uint64_t pins, unpins; /* requests that pinned their memory, and undid it */
	_Atomic uint64_t bvecs_made, bvecs_freed; /* bvec lists */
	_Atomic uint64_t in_flight; /* requests made and not yet freed */
	_Atomic uint64_t errors;    /* requests that failed */
};

static inline void stat_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void stat_sub(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_sub_explicit(counter, n, memory_order_relaxed);
}

static inline uint64_t stat_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* One "name=number" a line, each after prefix. */
void stats_print(const struct stats *stats, const char *prefix, FILE *out);

#endif
