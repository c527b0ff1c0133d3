/* align: rounding to blocks, blocks of zeroes, and what shares a cache line. A block here is a power of two. */
#ifndef NDIO_ALIGN_H
#define NDIO_ALIGN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

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

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool is_zero(const uint8_t *bytes, uint64_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

#endif
