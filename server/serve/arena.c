/* Spans follow each other from tail to head. One that is given back is marked, and the tail moves
 * over those that are: so a slow one holds what is behind it, which its depth bounds anyway. Where
 * what is left below the limit is too short, the head begins anew, and leaves the rest alone. */
#include "arena.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/align.h"

struct arena_span {
	unsigned pages; /* of one that starts here */
	bool is_free;   /* given back */
};

int arena_init(struct arena *arena, size_t size)
{
	unsigned pages = size / ARENA_PAGE;
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct arena_span *spans = calloc(pages, sizeof(*spans));

	if (base == MAP_FAILED || !spans) {
		if (base != MAP_FAILED)
			munmap(base, size);
		free(spans);
		return -ENOMEM;
	}
	madvise(base, size, MADV_DONTDUMP);
	madvise(base, size, MADV_HUGEPAGE);
	*arena = (struct arena){ .base = base, .spans = spans, .pages = pages, .limit = pages };
	return 0;
}

void arena_destroy(struct arena *arena)
{
	if (arena->base)
		munmap(arena->base, (size_t)arena->pages * ARENA_PAGE);
	free(arena->spans);
	*arena = (struct arena){ 0 };
}

/* Pages at head in one piece. */
static unsigned arena_room(const struct arena *arena)
{
	if (arena->end)
		return arena->tail - arena->head;
	return arena->head < arena->limit ? arena->limit - arena->head : 0;
}

void arena_trim(struct arena *arena)
{
	if (arena->used > 0 || arena->touched <= arena->limit)
		return;
	madvise(arena->base + (size_t)arena->limit * ARENA_PAGE,
		(size_t)(arena->touched - arena->limit) * ARENA_PAGE, MADV_DONTNEED);
	arena->touched = arena->limit;
}

void *arena_take(struct arena *arena, size_t len)
{
	unsigned pages = (len + ARENA_PAGE - 1) / ARENA_PAGE;
	void *taken;

	arena_trim(arena);
	if (arena->used == 0)
		arena->head = arena->tail = arena->end = 0; /* the same, warm memory again */
	if (arena_room(arena) < pages && !arena->end && pages <= arena->tail) {
		arena->end = arena->head;
		arena->head = 0;
	}
	if (arena_room(arena) < pages)
		return NULL;
	taken = arena->base + (size_t)arena->head * ARENA_PAGE;
	arena->spans[arena->head] = (struct arena_span){ .pages = pages };
	arena->used += pages;
	arena->head += pages;
	if (arena->touched < arena->head)
		arena->touched = arena->head;
	return taken;
}

void arena_give(struct arena *arena, void *taken)
{
	struct arena_span *span = &arena->spans[((uint8_t *)taken - arena->base) / ARENA_PAGE];

	assert(!span->is_free);
	span->is_free = true;
	while (arena->used > 0 && (span = &arena->spans[arena->tail])->is_free) {
		arena->used -= span->pages;
		arena->tail += span->pages;
		if (arena->tail == arena->end)
			arena->tail = arena->end = 0;
	}
}
