/* pool: a channel's share of the bounce memory, in pieces of a fixed length that are reused.
 * Not thread-safe: it belongs to its channel. */
#ifndef NDIO_POOL_H
#define NDIO_POOL_H

#include <stddef.h>

#include "engine/bvec.h"
#include "base/error.h"

struct pool {
	size_t piece_len;  /* bytes */
	unsigned nr_free;
	void **free;       /* a stack, so that the warmest piece goes out first */
};

/* Divides an area that starts on a page into pieces, each on whole pages of its own: there must be
 * room for them. It outlives the pool. 0, or -ENOMEM. */
int pool_init(struct pool *pool, struct bvec area, size_t piece_len, unsigned pieces,
	      struct error *err);
void pool_destroy(struct pool *pool); /* harmless on a zeroed struct */

void *pool_get(struct pool *pool); /* NULL when all are out */
void pool_put(struct pool *pool, void *piece);

#endif
