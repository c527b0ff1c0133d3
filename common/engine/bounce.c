#include "engine/bounce.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base/align.h"
#include "memory/pin.h"

#define HUGE_PAGE ((size_t)2 << 20) /* x86-64 and most others; elsewhere it is only an alignment */

static void *map(size_t len)
{
	void *area = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return area == MAP_FAILED ? NULL : area;
}

/* Starts where a huge page can. */
static void *map_for_huge_pages(size_t len)
{
	uint8_t *area = map(len + HUGE_PAGE);
	size_t lead;

	if (!area)
		return NULL;
	lead = round_up((uintptr_t)area, HUGE_PAGE) - (uintptr_t)area;
	if (lead)
		munmap(area, lead);
	munmap(area + lead + len, HUGE_PAGE - lead);
	return area + lead;
}

int bounce_init(struct bounce *bounce, size_t len, bool huge, struct error *err)
{
	void *area = huge ? map_for_huge_pages(len) : map(len);

	*bounce = (struct bounce){ 0 };
	if (!area)
		return error_set(err, ENOMEM, "no memory for %zu bytes of bounce memory", len);
	/* All of it, before it is touched: a huge page lies in one kind of mapping only. */
	madvise(area, len, MADV_DONTDUMP);
	madvise(area, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
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
