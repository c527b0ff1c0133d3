#include "integrity/areas.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "base/mutex.h"

#define MOST_LEAVES (64 * 1024) /* of an area: 2 MiB of hashes while it is read */
#define MOST_DOUBTS TRUST_RECORDS

#define MEMORY_TRIES 50
#define MEMORY_NAP   20 /* ms */

static size_t leaves_of(uint64_t tags_len)
{
	return (tags_len + TRUST_LEAF - 1) / TRUST_LEAF;
}

int areas_init(struct areas *areas, const struct layout *layout, struct trust *trust,
	       bool read_only, uint64_t max, const char *name, struct error *err)
{
	uint64_t tags_len = layout->area_blocks * layout->tag_size;
	uint8_t *were_stale;

	if (tags_len > (uint64_t)MOST_LEAVES * TRUST_LEAF)
		return error_set(err, ENOTSUP,
				 "%s: integrity: its areas are too large for a trust file", name);
	if (trust->volume.size != layout->size)
		return error_set(err, ESTALE,
				 "%s: integrity: it isn't as long as the trust file says", name);
	were_stale = calloc(trust_areas(&trust->volume) / 8 + 1, 1);
	if (!were_stale)
		return error_set(err, ENOMEM, "%s: no memory", name);
	*areas = (struct areas){ .layout = layout, .trust = trust, .read_only = read_only };
	areas->were_stale = were_stale;
	areas->leaves = leaves_of(tags_len);
	areas->pages = trust_pages(areas->leaves);
	areas->max = max_u64(max / (sizeof(struct area) + areas->pages * TRUST_HASH), 1);
	mutex_init_short(&areas->lock);
	return 0;
}

/* Bytes of tags that say something. */
static uint64_t tags_len(const struct areas *areas, uint64_t number)
{
	const struct layout *layout = areas->layout;
	uint64_t data = min_u64(layout->size - number * layout->area_data, layout->area_data);

	return data / layout->block * layout->tag_size;
}

size_t areas_leaves(const struct areas *areas, uint64_t number)
{
	return leaves_of(tags_len(areas, number));
}

size_t areas_leaf_len(const struct areas *areas, uint64_t number, size_t leaf)
{
	return min_u64(tags_len(areas, number) - leaf * TRUST_LEAF, TRUST_LEAF);
}

static uint64_t area_stride(const struct layout *layout)
{
	return layout->area_data + layout->area_tags;
}

size_t areas_first_leaf(const struct areas *areas, const struct tag_chunk *chunk)
{
	return (chunk->at - areas->layout->areas_at) % area_stride(areas->layout) / TRUST_LEAF;
}

int areas_hash(const struct areas *areas, uint64_t number, size_t first, size_t count,
	       const uint8_t *bytes, uint8_t *hashes)
{
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < count; i++)
		ret = trust_hash_leaf(bytes + i * TRUST_LEAF,
				      areas_leaf_len(areas, number, first + i),
				      hashes + i * TRUST_HASH);
	return ret;
}

/* ---- those in memory ---- */

static struct area **area_place(struct areas *areas, uint64_t number)
{
	struct area **place = &areas->buckets[number % AREA_BUCKETS];

	while (*place && (*place)->number != number)
		place = &(*place)->next;
	return place;
}

static void unlink_area(struct areas *areas, struct area *area)
{
	*(area->newer ? &area->newer->older : &areas->newest) = area->older;
	*(area->older ? &area->older->newer : &areas->oldest) = area->newer;
	area->idle = false;
}

static void link_area(struct areas *areas, struct area *area)
{
	area->newer = NULL;
	area->older = areas->newest;
	*(areas->newest ? &areas->newest->newer : &areas->oldest) = area;
	areas->newest = area;
	area->idle = true;
}

static void forget_area(struct areas *areas, struct area *area)
{
	assert(!area->held);
	if (area->idle)
		unlink_area(areas, area);
	*area_place(areas, area->number) = area->next;
	areas->count--;
	free(area);
}

/* Whether somebody needs it has changed; if nobody does it may be gone after that: one that couldn't be read,
 * or is stale, which is known without it, is of no use. */
static void area_changed(struct areas *areas, struct area *area)
{
	bool idle = !area->held && !area->doubtful;

	if (idle && area->state != AREA_GOOD)
		forget_area(areas, area);
	else if (idle && !area->idle)
		link_area(areas, area);
	else if (!idle && area->idle)
		unlink_area(areas, area);
}

static void evict_areas(struct areas *areas)
{
	while (areas->oldest && areas->count > areas->max)
		forget_area(areas, areas->oldest);
}

void areas_destroy(struct areas *areas)
{
	if (!areas->trust)
		return;
	for (size_t i = 0; i < AREA_BUCKETS; i++)
		while (areas->buckets[i])
			forget_area(areas, areas->buckets[i]);
	free(areas->were_stale);
	free(areas->seen);
	pthread_mutex_destroy(&areas->lock);
}

/* What is stale stays so. */
static bool was_stale(const struct areas *areas, uint64_t number)
{
	return areas->were_stale[number / 8] & 1U << number % 8;
}

/* False: it was already. */
static bool make_stale(struct areas *areas, struct area *area)
{
	if (area->state == AREA_STALE)
		return false;
	area->state = AREA_STALE;
	areas->were_stale[area->number / 8] |= 1U << area->number % 8;
	areas->stale++;
	return true;
}

static struct area *new_area(struct areas *areas, uint64_t number)
{
	struct area *area = calloc(1, sizeof(*area) + areas->pages * TRUST_HASH);

	if (!area)
		return NULL;
	area->number = number;
	if (was_stale(areas, number))
		area->state = AREA_STALE;
	*area_place(areas, number) = area;
	areas->count++;
	return area;
}

struct area *areas_hold(struct areas *areas, uint64_t number)
{
	struct area *area;

	pthread_mutex_lock(&areas->lock);
	area = *area_place(areas, number);
	if (!area)
		area = new_area(areas, number);
	if (area) {
		area->held++;
		area_changed(areas, area);
		evict_areas(areas);
	}
	pthread_mutex_unlock(&areas->lock);
	return area;
}

void areas_let_go(struct areas *areas, struct area *area)
{
	if (!area)
		return;
	pthread_mutex_lock(&areas->lock);
	assert(area->held > 0);
	area->held--;
	area_changed(areas, area);
	evict_areas(areas);
	pthread_mutex_unlock(&areas->lock);
}

enum area_state areas_state(struct areas *areas, const struct area *area)
{
	enum area_state state;

	pthread_mutex_lock(&areas->lock);
	state = area->state;
	pthread_mutex_unlock(&areas->lock);
	return state;
}

/* ---- what was read ---- */

static int hash_area(const struct areas *areas, const struct area *area, uint8_t *hash)
{
	return trust_hash_pages(area->pages, trust_pages(areas_leaves(areas, area->number)), hash);
}

static void doubt_area(struct areas *areas, struct area *area)
{
	if (area->doubtful)
		return;
	area->doubtful = true;
	area->next_doubtful = areas->doubtful;
	areas->doubtful = area;
	areas->doubtful_count++;
	area_changed(areas, area);
}

/* All that are, one after the other to be told in_doubt() whether they stay so. */
static struct area *take_doubtful(struct areas *areas)
{
	struct area *first = areas->doubtful;

	areas->doubtful = NULL;
	areas->doubtful_count = 0;
	return first;
}

/* The next of those that were taken. */
static struct area *in_doubt(struct areas *areas, struct area *area, bool still)
{
	struct area *next = area->next_doubtful;

	area->doubtful = false;
	if (still)
		doubt_area(areas, area);
	else
		area_changed(areas, area);
	return next;
}

/* To be recorded; without memory it will be when it is seen again. */
static void remember(struct areas *areas, const struct area *area)
{
	struct area_seen *more = areas->seen;

	if (areas->seen_count == areas->seen_room) {
		areas->seen_room = areas->seen_room ? 2 * areas->seen_room : 64;
		more = realloc(areas->seen, areas->seen_room * sizeof(*more));
		if (!more) {
			areas->seen_room = areas->seen_count;
			return;
		}
		areas->seen = more;
	}
	more[areas->seen_count].number = area->number;
	if (hash_area(areas, area, more[areas->seen_count].hash) == 0)
		areas->seen_count++;
}

/* 0, or a negative errno: that isn't known. */
static int decide_area(struct areas *areas, struct area *area, const uint8_t *leaves, size_t count)
{
	int verdict = trust_check_leaves(areas->trust, area->number, leaves, count);
	int ret = verdict < 0 ? verdict : trust_hash_each_page(leaves, count, area->pages);

	if (ret < 0)
		return ret;
	if (verdict == TRUST_OTHER) {
		make_stale(areas, area);
		return 0;
	}
	area->state = AREA_GOOD;
	if (areas->read_only)
		return 0;
	/* What a flush hasn't covered yet may still be lost; but not what a journal was carried out for. */
	if (trust_is_in_doubt(areas->trust, area->number) && !areas->journaled)
		doubt_area(areas, area);
	else if (verdict == TRUST_UNKNOWN || trust_is_in_doubt(areas->trust, area->number))
		remember(areas, area);
	return 0;
}

int areas_loaded(struct areas *areas, struct area *area, const uint8_t *leaves, bool *first)
{
	int ret = 0;

	pthread_mutex_lock(&areas->lock);
	assert(area->held > 0);
	*first = area->state == AREA_LOADING;
	if (*first)
		ret = decide_area(areas, area, leaves, areas_leaves(areas, area->number));
	*first = *first && ret == 0;
	if (area->state == AREA_STALE)
		ret = -ESTALE;
	pthread_mutex_unlock(&areas->lock);
	return ret;
}

int areas_check(struct areas *areas, const struct area *area, size_t first, const uint8_t *leaves,
		size_t count)
{
	uint8_t pages[TAG_PAGES * TRUST_HASH];
	int ret, same;

	assert(first % TRUST_PAGE == 0 && trust_pages(count) <= TAG_PAGES);
	ret = trust_hash_each_page(leaves, count, pages);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&areas->lock);
	same = memcmp(area->pages + first / TRUST_PAGE * TRUST_HASH, pages,
		      trust_pages(count) * TRUST_HASH) == 0;
	pthread_mutex_unlock(&areas->lock);
	return same;
}

bool areas_is_stale(struct areas *areas, struct area *area)
{
	bool new;

	pthread_mutex_lock(&areas->lock);
	new = make_stale(areas, area);
	pthread_mutex_unlock(&areas->lock);
	return new;
}

void areas_touch(struct areas *areas, struct area *area)
{
	pthread_mutex_lock(&areas->lock);
	area->touched = areas->turn;
	doubt_area(areas, area);
	pthread_mutex_unlock(&areas->lock);
}

/* ---- with the turn ---- */

bool areas_has_doubts(struct areas *areas)
{
	bool has;

	pthread_mutex_lock(&areas->lock);
	has = areas->doubtful || areas->seen_count > 0;
	pthread_mutex_unlock(&areas->lock);
	return has;
}

/* What was seen, before anything more is intended for those areas. */
int areas_begin(struct areas *areas, struct error *err)
{
	bool more = true;
	int ret = 0;

	while (ret == 0 && more) {
		ret = trust_make_room(areas->trust, TRUST_RECORDS, err);
		pthread_mutex_lock(&areas->lock);
		for (size_t i = 0; ret == 0 && i < TRUST_RECORDS && areas->seen_count > 0; i++) {
			const struct area_seen *seen = &areas->seen[areas->seen_count - 1];

			ret = trust_saw(areas->trust, seen->number, seen->hash, err);
			areas->seen_count -= ret == 0;
		}
		more = areas->seen_count > 0;
		if (!more)
			areas->turn++;
		pthread_mutex_unlock(&areas->lock);
	}
	return ret;
}

/* Besides what is in doubt since an earlier crash, and wasn't read since. */
int areas_make_room(struct areas *areas, size_t *pages, struct error *err)
{
	size_t left = TRUST_LOG - min_u64(areas->trust->pending_count, TRUST_LOG);

	*pages = min_u64(AREAS_PAGES, max_u64(left / (2 * TRUST_PAGE + 1), TAG_PAGES));
	return trust_make_room(areas->trust, TRUST_RECORDS, err);
}

/* One page of a chunk, from its leaf in_chunk on: those of its leaves that change. */
static int intend_page(struct areas *areas, struct area *area, const struct tag_run *run,
		       size_t first, size_t in_chunk, const uint8_t *bytes, struct error *err)
{
	size_t count = min_u64(areas_leaves(areas, area->number) - first, TRUST_PAGE);
	uint8_t now[TRUST_PAGE * TRUST_HASH], page[TRUST_HASH];
	uint8_t *was = run->chunk->leaves + in_chunk * TRUST_HASH;
	int ret = 0;

	memcpy(now, was, count * TRUST_HASH);
	for (size_t i = 0; ret == 0 && i < count; i++)
		if (run->changed & UINT64_C(1) << (in_chunk + i))
			ret = areas_hash(areas, area->number, first + i, 1, bytes + i * TRUST_LEAF,
					 now + i * TRUST_HASH);
	if (ret == 0)
		ret = trust_hash_page(now, count, page);
	if (ret < 0)
		return error_set(err, -ret, "hashing tags: %s", strerror(-ret));
	pthread_mutex_lock(&areas->lock);
	for (size_t i = 0; ret == 0 && i < count; i++)
		if (memcmp(was + i * TRUST_HASH, now + i * TRUST_HASH, TRUST_HASH) != 0)
			ret = trust_intend_leaf(areas->trust, area->number, first + i,
						was + i * TRUST_HASH, now + i * TRUST_HASH, err);
	if (ret == 0) {
		memcpy(was, now, count * TRUST_HASH);
		memcpy(area->pages + first / TRUST_PAGE * TRUST_HASH, page, TRUST_HASH);
	}
	doubt_area(areas, area);
	pthread_mutex_unlock(&areas->lock);
	return ret;
}

/* An area that was loaded since areas_begin(): what it was is recorded before what it becomes, or the
 * next one would take it for the newest. With the lock held. */
static int record_before(struct areas *areas, uint64_t number, struct error *err)
{
	struct area_seen *seen = areas->seen;
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < areas->seen_count;) {
		if (seen[i].number != number) {
			i++;
			continue;
		}
		ret = trust_saw(areas->trust, number, seen[i].hash, err);
		if (ret == 0)
			seen[i] = seen[--areas->seen_count];
	}
	return ret;
}

int areas_intend(struct areas *areas, const struct tag_run *run, const uint8_t *bytes,
		 struct error *err)
{
	const struct layout *layout = areas->layout;
	uint64_t number = (run->chunk->at - layout->areas_at) / area_stride(layout);
	size_t before = areas_first_leaf(areas, run->chunk);
	struct area *area;
	int ret = 0;

	pthread_mutex_lock(&areas->lock);
	area = *area_place(areas, number);
	assert(area && area->state != AREA_LOADING);
	ret = record_before(areas, number, err);
	pthread_mutex_unlock(&areas->lock);
	for (size_t page = run->first; ret == 0 && page < run->first + run->count; page++) {
		size_t leaf = page * TRUST_PAGE;

		if (before + leaf < areas_leaves(areas, number))
			ret = intend_page(areas, area, run, before + leaf, leaf,
					  bytes + (page - run->first) * TAG_PAGE, err);
	}
	return ret;
}

int areas_sync(struct areas *areas, struct error *err)
{
	return trust_sync(areas->trust, err);
}

bool areas_try_again(int ret, unsigned *tries)
{
	if (ret != -ENOMEM || ++*tries > MEMORY_TRIES)
		return false;
	if (*tries > 1) /* at first at once */
		poll(NULL, 0, MEMORY_NAP);
	return true;
}

bool areas_are_many(struct areas *areas)
{
	return areas->trust->pending_count > MOST_DOUBTS;
}

bool areas_are_full(struct areas *areas)
{
	bool full;

	pthread_mutex_lock(&areas->lock);
	full = areas->doubtful_count > areas->max;
	pthread_mutex_unlock(&areas->lock);
	return full;
}

/* Up to so many of those that are in doubt; in *rest those that aren't done. Also what is stale since:
 * what it should be is known. */
static int settle_some(struct areas *areas, bool all, struct area **rest, struct error *err)
{
	uint8_t hash[TRUST_HASH];
	struct area *area;
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < TRUST_RECORDS && *rest; i++) {
		area = *rest;
		ret = hash_area(areas, area, hash);
		if (ret < 0)
			return error_set(err, -ret, "hashing an area: %s", strerror(-ret));
		ret = trust_saw(areas->trust, area->number, hash, err);
		*rest = in_doubt(areas, area, !all || area->touched >= areas->turn || ret < 0);
	}
	return ret;
}

int areas_settle(struct areas *areas, bool all, struct error *err)
{
	struct area *rest;
	int ret = 0;

	pthread_mutex_lock(&areas->lock);
	rest = take_doubtful(areas);
	pthread_mutex_unlock(&areas->lock);
	while (ret == 0 && rest) {
		ret = trust_make_room(areas->trust, TRUST_RECORDS, err);
		pthread_mutex_lock(&areas->lock);
		if (ret == 0)
			ret = settle_some(areas, all, &rest, err);
		pthread_mutex_unlock(&areas->lock);
	}
	pthread_mutex_lock(&areas->lock);
	while (rest)
		rest = in_doubt(areas, rest, true);
	if (ret == 0)
		evict_areas(areas);
	pthread_mutex_unlock(&areas->lock);
	return ret == 0 ? trust_sync(areas->trust, err) : ret;
}

/* ---- through a journal ---- */

size_t areas_pages_of(const struct areas *areas, uint64_t number)
{
	return trust_pages(areas_leaves(areas, number));
}

void areas_pages(struct areas *areas, const struct area *area, uint8_t *pages)
{
	pthread_mutex_lock(&areas->lock);
	memcpy(pages, area->pages, areas->pages * TRUST_HASH);
	pthread_mutex_unlock(&areas->lock);
}

int areas_intend_whole(struct areas *areas, struct area *area, const uint8_t *hash,
		       struct error *err)
{
	int ret;

	pthread_mutex_lock(&areas->lock);
	ret = trust_intend(areas->trust, area->number, hash, err);
	pthread_mutex_unlock(&areas->lock);
	return ret;
}

int areas_wrote(struct areas *areas, struct area *area, const uint8_t *pages, const uint8_t *hash,
		struct error *err)
{
	int ret = 0;

	pthread_mutex_lock(&areas->lock);
	memcpy(area->pages, pages, areas->pages * TRUST_HASH);
	area->touched = areas->turn;
	doubt_area(areas, area);
	if (err)
		ret = trust_wrote(areas->trust, area->number, hash, err);
	pthread_mutex_unlock(&areas->lock);
	return ret;
}

void areas_copy(struct areas *areas)
{
	pthread_mutex_lock(&areas->lock);
	areas->copy_turn = ++areas->turn;
	pthread_mutex_unlock(&areas->lock);
}

void areas_copied(struct areas *areas)
{
	struct area *area;

	pthread_mutex_lock(&areas->lock);
	area = take_doubtful(areas);
	while (area)
		area = in_doubt(areas, area, area->touched >= areas->copy_turn);
	evict_areas(areas);
	pthread_mutex_unlock(&areas->lock);
}

uint64_t areas_stale(struct areas *areas)
{
	uint64_t stale;

	pthread_mutex_lock(&areas->lock);
	stale = areas->stale;
	pthread_mutex_unlock(&areas->lock);
	return stale;
}

size_t areas_count(struct areas *areas)
{
	size_t count;

	pthread_mutex_lock(&areas->lock);
	count = areas->count;
	pthread_mutex_unlock(&areas->lock);
	return count;
}
