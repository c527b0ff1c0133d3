/* bad-blocks: which blocks were found bad. Programs and kernels read one that fails again, some of them five times, so
 * errors alone don't tell how many blocks there are. So many are remembered, without a lock; beyond that
 * some count each time. */
#ifndef NDIO_BAD_BLOCKS_H
#define NDIO_BAD_BLOCKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BAD_BLOCKS 4096

struct bad_blocks {
	_Atomic uint64_t known[BAD_BLOCKS]; /* zeroes: none */
	_Atomic uint64_t count;
};

/* The block at that byte of the data is one. Any thread. */
void bad_blocks_add(struct bad_blocks *bad, uint64_t offset);

uint64_t bad_blocks_count(struct bad_blocks *bad);

#endif
