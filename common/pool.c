#include "pool.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "align.h"
#include "pin.h"

int pool_init(struct pool *pool, size_t piece_len, unsigned pieces, struct error *err)
{
	size_t stride = round_up(piece_len, sysconf(_SC_PAGESIZE));
	size_t len = stride * pieces;
	void *area;

	*pool = (struct pool){ .piece_len = piece_len };
	pool->free = calloc(pieces, sizeof(*pool->free));
	area = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!pool->free || area == MAP_FAILED) {
		free(pool->free);
		pool->free = NULL;
		if (area != MAP_FAILED)
			munmap(area, len);
		return error_set(err, ENOMEM, "no memory for %zu bytes of bounce memory", len);
	}
	madvise(area, len, MADV_DONTDUMP);
	pool->area = (struct bvec){ area, len };
	pool->pinned = pin_range(area, len) == 0;
	for (unsigned i = pieces; i-- > 0;)
		pool_put(pool, (char *)area + i * stride);
	return 0;
}

void pool_destroy(struct pool *pool)
{
	if (!pool->area.base)
		return;
	OPENSSL_cleanse(pool->area.base, pool->area.len);
	if (pool->pinned)
		unpin_range(pool->area.base, pool->area.len);
	munmap(pool->area.base, pool->area.len);
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
