#include "engine/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/align.h"

int pool_init(struct pool *pool, struct bvec area, size_t piece_len, unsigned pieces,
	      struct error *err)
{
	size_t stride = round_up(piece_len, sysconf(_SC_PAGESIZE));

	assert(stride * pieces <= area.len);
	*pool = (struct pool){ .piece_len = piece_len };
	pool->free = calloc(pieces, sizeof(*pool->free));
	if (!pool->free)
		return error_set(err, ENOMEM, "no memory for a pool of %u pieces", pieces);
	for (unsigned i = pieces; i-- > 0;)
		pool_put(pool, (char *)area.base + i * stride);
	return 0;
}

void pool_destroy(struct pool *pool)
{
	free(pool->free);
	*pool = (struct pool){ 0 };
}

void *pool_get(struct pool *pool)
{
	return pool->nr_free ? pool->free[--pool->nr_free] : NULL;
}

void pool_put(struct pool *pool, void *piece)
{
	pool->free[pool->nr_free++] = piece;
}
