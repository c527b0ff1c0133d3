/* pool: a channel's bounce memory: a fixed number of pieces of a fixed length, allocated and
 * pinned once, and reused. Not thread-safe: it belongs to its channel. */
#ifndef NDIO_POOL_H
#define NDIO_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bvec.h"
#include "error.h"

struct pool {
	struct bvec area;  /* all pieces, each on pages of its own */
	size_t piece_len;  /* bytes */
	bool pinned;       /* false where the locked-memory limit forbids it */
	unsigned nr_free;
	void **free;       /* a stack, so that the warmest piece goes out first */
};

/* 0, or -ENOMEM. That it could not be pinned is no error: see pool->pinned. */
int pool_init(struct pool *pool, size_t piece_len, unsigned pieces, struct error *err);
void pool_destroy(struct pool *pool); /* harmless on a zeroed struct */

void *pool_get(struct pool *pool); /* NULL when all are out */
void pool_put(struct pool *pool, void *piece);

#endif
