#include "engine/bounce.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdint.h>
#include <sys/mman.h>

#include "memory/huge.h"
#include "memory/pin.h"

static void *map_small_pages(size_t len)
{
	void *area = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED)
		return NULL;
	madvise(area, len, MADV_DONTDUMP);
	madvise(area, len, MADV_NOHUGEPAGE);
	return area;
}

int bounce_init(struct bounce *bounce, size_t len, bool huge, struct error *err)
{
	void *area = huge ? huge_map(len) : map_small_pages(len);

	*bounce = (struct bounce){ 0 };
	if (!area)
		return error_set(err, ENOMEM, "no memory for %zu bytes of bounce memory", len);
	bounce->area = (struct bvec){ area, len };
	bounce->pinned = pin_has_room(len + BOUNCE_LEAVES) && pin_range(area, len) == 0;
	return 0;
}

void bounce_destroy(struct bounce *bounce)
{
	if (!bounce->area.base)
		return;
	OPENSSL_cleanse(bounce->area.base, bounce->area.len);
	if (bounce->pinned)
		unpin_range(bounce->area.base, bounce->area.len);
	munmap(bounce->area.base, bounce->area.len);
	*bounce = (struct bounce){ 0 };
}

struct bvec bounce_share(const struct bounce *bounce, unsigned index, size_t len)
{
	assert((index + 1) * len <= bounce->area.len);
	return (struct bvec){ (uint8_t *)bounce->area.base + index * len, len };
}
