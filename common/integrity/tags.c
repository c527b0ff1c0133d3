#include "integrity/tags.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "base/mutex.h"
#include "integrity/trust.h"

void tags_init(struct tags *tags, const struct layout *layout, uint64_t max)
{
	*tags = (struct tags){ .layout = layout, .max = max_u64(max / TAG_CHUNK, 1) };
	mutex_init_short(&tags->lock);
}

static struct tag_chunk **chunk_place(struct tags *tags, uint64_t at)
{
	struct tag_chunk **place = &tags->buckets[at / TAG_PAGE * 2654435761u % TAG_BUCKETS];

	while (*place && (*place)->at != at)
		place = &(*place)->next;
	return place;
}

static void unlink_use(struct tags *tags, struct tag_chunk *chunk)
{
	*(chunk->newer ? &chunk->newer->older : &tags->newest) = chunk->older;
	*(chunk->older ? &chunk->older->newer : &tags->oldest) = chunk->newer;
}

static void link_as_newest(struct tags *tags, struct tag_chunk *chunk)
{
	chunk->newer = NULL;
	chunk->older = tags->newest;
	*(tags->newest ? &tags->newest->newer : &tags->oldest) = chunk;
	tags->newest = chunk;
}

static void forget(struct tags *tags, struct tag_chunk *chunk)
{
	assert(!chunk->held);
	*chunk_place(tags, chunk->at) = chunk->next;
	unlink_use(tags, chunk);
	tags->count--;
	free(chunk->bytes);
	free(chunk->leaves);
	free(chunk);
}

/* Those that may go, the oldest first, as long as there are too many. */
static void evict(struct tags *tags)
{
	struct tag_chunk *chunk = tags->oldest, *newer;

	for (; chunk && tags->count > tags->max; chunk = newer) {
		newer = chunk->newer;
		if (!chunk->held && !chunk->dirty)
			forget(tags, chunk);
	}
}

void tags_destroy(struct tags *tags)
{
	while (tags->newest)
		forget(tags, tags->newest);
	pthread_mutex_destroy(&tags->lock);
}

static struct tag_chunk *hold_at(struct tags *tags, uint64_t at, size_t len)
{
	struct tag_chunk **place, *chunk;

	pthread_mutex_lock(&tags->lock);
	place = chunk_place(tags, at);
	chunk = *place;
	if (chunk) {
		unlink_use(tags, chunk);
	} else {
		chunk = calloc(1, sizeof(*chunk));
		if (chunk) {
			chunk->at = at;
			chunk->len = len;
			*place = chunk;
			tags->count++;
		}
	}
	if (chunk) {
		link_as_newest(tags, chunk);
		chunk->held++;
		evict(tags);
	}
	pthread_mutex_unlock(&tags->lock);
	return chunk;
}

struct tag_chunk *tags_hold(struct tags *tags, uint64_t offset)
{
	const struct layout *layout = tags->layout;
	uint64_t area = layout_tag_at(layout, round_down(offset, layout->area_data));
	uint64_t behind = round_down(layout_tag_at(layout, offset) - area, TAG_CHUNK);

	return hold_at(tags, area + behind, min_u64(TAG_CHUNK, layout->area_tags - behind));
}

struct tag_chunk *tags_hold_next(struct tags *tags, const struct tag_chunk *chunk)
{
	const struct layout *layout = tags->layout;
	uint64_t at = chunk->at + chunk->len;
	uint64_t behind = (at - layout->areas_at) % (layout->area_data + layout->area_tags);

	assert(behind < layout->area_tags);
	return hold_at(tags, at, min_u64(TAG_CHUNK, layout->area_tags - behind));
}

void tags_let_go(struct tags *tags, struct tag_chunk *chunk)
{
	if (!chunk)
		return;
	pthread_mutex_lock(&tags->lock);
	assert(chunk->held > 0);
	chunk->held--;
	/* It couldn't be read. */
	if (!chunk->held && !chunk->bytes)
		forget(tags, chunk);
	else
		evict(tags);
	pthread_mutex_unlock(&tags->lock);
}

bool tags_is_valid(struct tags *tags, const struct tag_chunk *chunk)
{
	bool valid;

	pthread_mutex_lock(&tags->lock);
	valid = chunk->bytes;
	pthread_mutex_unlock(&tags->lock);
	return valid;
}

void tags_fill_hashed(struct tags *tags, struct tag_chunk *chunk, uint8_t *bytes, uint8_t *leaves)
{
	pthread_mutex_lock(&tags->lock);
	assert(chunk->held > 0);
	if (!chunk->bytes) {
		chunk->bytes = bytes;
		chunk->leaves = leaves;
		bytes = leaves = NULL;
	}
	pthread_mutex_unlock(&tags->lock);
	free(bytes);
	free(leaves);
}

void tags_fill_copied(struct tags *tags, struct tag_chunk *chunk, const uint8_t *bytes,
		      const uint8_t *leaves)
{
	size_t hashes = TAG_CHUNK / TRUST_LEAF * TRUST_HASH;
	uint8_t *bytes_copy = malloc(chunk->len), *leaves_copy = malloc(hashes);

	if (!bytes_copy || !leaves_copy) {
		free(bytes_copy);
		free(leaves_copy);
		return;
	}
	memcpy(bytes_copy, bytes, chunk->len);
	memcpy(leaves_copy, leaves, hashes);
	tags_fill_hashed(tags, chunk, bytes_copy, leaves_copy);
}

void tags_fill(struct tags *tags, struct tag_chunk *chunk, uint8_t *bytes)
{
	tags_fill_hashed(tags, chunk, bytes, NULL);
}

_Static_assert(TAG_CHUNK / TRUST_LEAF <= 64, "a chunk's leaves have a bit each");

/* Those that have some of these bytes. */
static uint64_t leaf_bits(size_t at, size_t len)
{
	size_t first = at / TRUST_LEAF, last = (at + len - 1) / TRUST_LEAF;

	return ~UINT64_C(0) >> (63 - (last - first)) << first;
}

static uint64_t take_changed(struct tag_chunk *chunk, const struct tag_run *run)
{
	uint64_t leaves = leaf_bits(run->first * TAG_PAGE, run->count * TAG_PAGE) & chunk->changed;

	chunk->changed &= ~leaves;
	return leaves;
}

static void line_up(struct tags *tags, struct tag_chunk *chunk)
{
	chunk->turn = tags->turn;
	chunk->next_dirty = NULL;
	*(tags->first_dirty ? tags->dirty_end : &tags->first_dirty) = chunk;
	tags->dirty_end = &chunk->next_dirty;
}

static void mark_dirty(struct tags *tags, struct tag_chunk *chunk, size_t at, size_t len)
{
	if (!chunk->dirty && !chunk->is_written) {
		tags->dirty_chunks++;
		line_up(tags, chunk);
	}
	for (size_t page = at / TAG_PAGE; page <= (at + len - 1) / TAG_PAGE; page++) {
		tags->dirty_pages += !(chunk->dirty & 1u << page);
		chunk->dirty |= 1u << page;
	}
}

/* What of the tags lies in this chunk: its place there, and in buf. */
static size_t part_in(const struct tags *tags, const struct tag_chunk *chunk, uint64_t offset,
		      unsigned count, size_t *at, size_t *in_buf)
{
	uint64_t first = layout_tag_at(tags->layout, offset);
	uint64_t end =
		min_u64(first + (uint64_t)count * tags->layout->tag_size, chunk->at + chunk->len);
	uint64_t start = max_u64(first, chunk->at);

	*at = start - chunk->at;
	*in_buf = start - first;
	return end > start ? end - start : 0;
}

void tags_get(struct tags *tags, struct tag_chunk *const chunk[2], uint64_t offset, unsigned count,
	      uint8_t *buf)
{
	pthread_mutex_lock(&tags->lock);
	for (unsigned i = 0; i < 2 && chunk[i]; i++) {
		size_t at, in_buf, len = part_in(tags, chunk[i], offset, count, &at, &in_buf);

		memcpy(buf + in_buf, chunk[i]->bytes + at, len);
	}
	pthread_mutex_unlock(&tags->lock);
}

void tags_put(struct tags *tags, struct tag_chunk *const chunk[2], uint64_t offset, unsigned count,
	      const uint8_t *buf)
{
	pthread_mutex_lock(&tags->lock);
	for (unsigned i = 0; i < 2 && chunk[i]; i++) {
		size_t at, in_buf, len = part_in(tags, chunk[i], offset, count, &at, &in_buf);

		if (len == 0)
			continue;
		memcpy(chunk[i]->bytes + at, buf + in_buf, len);
		mark_dirty(tags, chunk[i], at, len);
		chunk[i]->changed |= leaf_bits(at, len);
	}
	pthread_mutex_unlock(&tags->lock);
}

void tags_put_page(struct tags *tags, struct tag_chunk *chunk, unsigned page, const uint8_t *bytes,
		   const uint8_t *leaves)
{
	size_t hashes = TAG_PAGE / TRUST_LEAF * TRUST_HASH;

	pthread_mutex_lock(&tags->lock);
	memcpy(chunk->bytes + page * TAG_PAGE, bytes, TAG_PAGE);
	memcpy(chunk->leaves + page * hashes, leaves, hashes);
	mark_dirty(tags, chunk, page * TAG_PAGE, TAG_PAGE);
	chunk->changed |= leaf_bits(page * TAG_PAGE, TAG_PAGE);
	pthread_mutex_unlock(&tags->lock);
}

static bool is_page_dirty(const struct tag_chunk *chunk, unsigned page)
{
	return page < TAG_PAGES && (chunk->dirty & 1u << page);
}

/* For run; NULL: there is none. */
static struct tag_chunk *take_first(struct tags *tags, struct tag_run *run)
{
	struct tag_chunk *chunk = tags->first_dirty;

	*run = (struct tag_run){ .chunk = chunk };
	if (!chunk)
		return NULL;
	tags->first_dirty = chunk->next_dirty;
	chunk->held++;
	chunk->is_written = true;
	return chunk;
}

bool tags_take_dirty(struct tags *tags, struct tag_run *run, uint8_t *buf)
{
	struct tag_chunk *chunk;

	pthread_mutex_lock(&tags->lock);
	chunk = take_first(tags, run);
	if (chunk) {
		while (!is_page_dirty(chunk, run->first))
			run->first++;
		for (; is_page_dirty(chunk, run->first + run->count); run->count++)
			chunk->dirty &= ~(1u << (run->first + run->count));
		tags->dirty_pages -= run->count;
		memcpy(buf, chunk->bytes + run->first * TAG_PAGE, run->count * TAG_PAGE);
		run->changed = take_changed(chunk, run);
	}
	pthread_mutex_unlock(&tags->lock);
	return chunk;
}

uint64_t tags_next_turn(struct tags *tags)
{
	uint64_t turn;

	pthread_mutex_lock(&tags->lock);
	turn = ++tags->turn;
	pthread_mutex_unlock(&tags->lock);
	return turn;
}

bool tags_take_chunk(struct tags *tags, uint64_t turn, struct tag_run *run, uint8_t *buf)
{
	struct tag_chunk *chunk = NULL;

	pthread_mutex_lock(&tags->lock);
	if (tags->first_dirty && tags->first_dirty->turn < turn)
		chunk = take_first(tags, run);
	if (chunk) {
		run->first = __builtin_ctz(chunk->dirty);
		run->count = 32 - __builtin_clz(chunk->dirty) - run->first;
		tags->dirty_pages -= __builtin_popcount(chunk->dirty);
		chunk->dirty = 0;
		memcpy(buf, chunk->bytes + run->first * TAG_PAGE, run->count * TAG_PAGE);
		run->changed = take_changed(chunk, run);
	}
	pthread_mutex_unlock(&tags->lock);
	return chunk;
}

void tags_wrote(struct tags *tags, const struct tag_run *run, bool failed)
{
	pthread_mutex_lock(&tags->lock);
	if (failed)
		mark_dirty(tags, run->chunk, run->first * TAG_PAGE, run->count * TAG_PAGE);
	if (failed)
		run->chunk->changed |= run->changed;
	run->chunk->is_written = false;
	if (run->chunk->dirty)
		line_up(tags, run->chunk);
	else
		tags->dirty_chunks--;
	pthread_mutex_unlock(&tags->lock);
	tags_let_go(tags, run->chunk);
}

size_t tags_dirty_pages(struct tags *tags)
{
	size_t pages;

	pthread_mutex_lock(&tags->lock);
	pages = tags->dirty_pages;
	pthread_mutex_unlock(&tags->lock);
	return pages;
}

bool tags_are_full(struct tags *tags)
{
	bool full;

	pthread_mutex_lock(&tags->lock);
	full = tags->dirty_chunks >= max_u64(tags->max, TAGS_LEAST);
	pthread_mutex_unlock(&tags->lock);
	return full;
}
