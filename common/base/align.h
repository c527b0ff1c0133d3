/* align: rounding to blocks, and what shares a cache line. A block here is a power of two. */
#ifndef NDIO_ALIGN_H
#define NDIO_ALIGN_H

#include <stdbool.h>
#include <stdint.h>

/* What several cores write, and what others read meanwhile, is better that far apart: bytes. */
#define CACHE_LINE 64

static inline uint64_t round_down(uint64_t n, uint64_t block)
{
	return n & ~(block - 1);
}

/* n is at most UINT64_MAX - block. */
static inline uint64_t round_up(uint64_t n, uint64_t block)
{
	return round_down(n + block - 1, block);
}

static inline bool is_aligned(uint64_t n, uint64_t block)
{
	return (n & (block - 1)) == 0;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

#endif
