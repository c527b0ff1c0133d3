#include "integrity/journal-areas.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "integrity/journal-section.h"

struct held {
	struct tag_chunk *chunk[2];
	struct area *area; /* NULL: nothing is held */
	uint64_t offset;
};

/* An area, and a page of its tags, as they will be. */
struct new_area {
	struct area *area;
	struct new_area *next;
	bool changed; /* by the section that is looked at */
	uint8_t hash[TRUST_HASH];
	uint8_t pages[];
};

struct new_page {
	uint64_t at; /* bytes, in the segment */
	struct new_page *next;
	struct tag_chunk *chunk;
	struct new_area *area;
	unsigned changed; /* leaves, a bit each, by the section that is looked at */
	uint8_t bytes[TAG_PAGE];
	uint8_t leaves[TRUST_PAGE * TRUST_HASH];
};

struct journal_areas {
	struct areas *areas;
	struct tags *tags;
	uint32_t entries;

	/* What is being written. */
	uint32_t first, count; /* entries */
	void *page_tree, *area_tree;
	struct new_page *pages;
	struct new_area *new_areas;

	struct held held[];
};

struct journal_areas *journal_areas_new(struct areas *areas, struct tags *tags, uint32_t entries)
{
	struct journal_areas *journal =
		calloc(1, sizeof(*journal) + entries * sizeof(journal->held[0]));

	if (!journal)
		return NULL;
	journal->areas = areas;
	journal->tags = tags;
	journal->entries = entries;
	return journal;
}

static void let_entry_go(struct journal_areas *journal, struct held *held)
{
	tags_let_go(journal->tags, held->chunk[0]);
	tags_let_go(journal->tags, held->chunk[1]);
	areas_let_go(journal->areas, held->area);
	*held = (struct held){ 0 };
}

static void keep_node(void *node)
{
	(void)node;
}

static void forget_new(struct journal_areas *journal)
{
	struct new_page *page = journal->pages, *next_page;
	struct new_area *area = journal->new_areas, *next_area;

	tdestroy(journal->page_tree, keep_node);
	tdestroy(journal->area_tree, keep_node);
	for (; page; page = next_page) {
		next_page = page->next;
		free(page);
	}
	for (; area; area = next_area) {
		next_area = area->next;
		free(area);
	}
	journal->page_tree = journal->area_tree = NULL;
	journal->pages = NULL;
	journal->new_areas = NULL;
}

void journal_areas_free(struct journal_areas *journal)
{
	if (!journal)
		return;
	for (uint32_t i = 0; i < journal->entries; i++)
		let_entry_go(journal, &journal->held[i]);
	forget_new(journal);
	free(journal);
}

void journal_areas_hold(struct journal_areas *journal, uint32_t entry, uint64_t offset)
{
	const struct layout *layout = journal->areas->layout;
	struct held *held = &journal->held[entry];
	uint64_t end = layout_tag_at(layout, offset) + layout->tag_size;

	assert(entry < journal->entries && !held->area);
	held->offset = offset;
	held->area = areas_hold(journal->areas, offset / layout->area_data);
	held->chunk[0] = tags_hold(journal->tags, offset);
	assert(held->area && held->chunk[0]);
	if (end > held->chunk[0]->at + held->chunk[0]->len)
		held->chunk[1] = tags_hold_next(journal->tags, held->chunk[0]);
}

/* ---- what will be ---- */

static int compare_areas(const void *one, const void *other)
{
	const struct new_area *a = one, *b = other;

	return a->area < b->area ? -1 : a->area > b->area;
}

static int compare_new_pages(const void *one, const void *other)
{
	const struct new_page *a = one, *b = other;

	return a->at < b->at ? -1 : a->at > b->at;
}

static struct new_area *new_area_of(struct journal_areas *journal, struct area *area)
{
	struct new_area key = { .area = area }, *new, **found;
	size_t len = journal->areas->pages * TRUST_HASH;

	found = tfind(&key, &journal->area_tree, compare_areas);
	if (found)
		return *found;
	new = calloc(1, sizeof(*new) + len);
	if (!new)
		return NULL;
	new->area = area;
	areas_pages(journal->areas, area, new->pages);
	new->next = journal->new_areas;
	journal->new_areas = new;
	return tsearch(new, &journal->area_tree, compare_areas) ? new : NULL;
}

static struct new_page *new_page_at(struct journal_areas *journal, const struct held *held,
				    unsigned in, uint64_t at)
{
	struct tag_chunk *chunk = held->chunk[in];
	struct new_page key = { .at = at }, *page, **found;
	size_t in_chunk = at - chunk->at;

	found = tfind(&key, &journal->page_tree, compare_new_pages);
	if (found)
		return *found;
	page = calloc(1, sizeof(*page));
	if (!page)
		return NULL;
	page->next = journal->pages;
	journal->pages = page;
	page->at = at;
	page->chunk = chunk;
	page->area = new_area_of(journal, held->area);
	memcpy(page->bytes, chunk->bytes + in_chunk, TAG_PAGE);
	memcpy(page->leaves, chunk->leaves + in_chunk / TRUST_LEAF * TRUST_HASH,
	       sizeof(page->leaves));
	return page->area && tsearch(page, &journal->page_tree, compare_new_pages) ? page : NULL;
}

/* A tag may lie on two pages, and those in two chunks. */
static int put_tag(struct journal_areas *journal, const struct held *held, const uint8_t *tag)
{
	const struct layout *layout = journal->areas->layout;
	uint64_t at = layout_tag_at(layout, held->offset), end = at + layout->tag_size;

	while (at < end) {
		uint64_t start = round_down(at, TAG_PAGE);
		unsigned in = at >= held->chunk[0]->at + held->chunk[0]->len;
		struct new_page *page = new_page_at(journal, held, in, start);
		size_t len = min_u64(end, start + TAG_PAGE) - at;

		if (!page)
			return -ENOMEM;
		memcpy(page->bytes + (at - start), tag, len);
		for (size_t leaf = (at - start) / TRUST_LEAF;
		     leaf <= (at - start + len - 1) / TRUST_LEAF; leaf++)
			page->changed |= 1u << leaf;
		page->area->changed = true;
		tag += len;
		at += len;
	}
	return 0;
}

static int hash_new_page(struct journal_areas *journal, struct new_page *page)
{
	struct areas *areas = journal->areas;
	uint64_t number = page->area->area->number;
	size_t first =
		areas_first_leaf(areas, page->chunk) + (page->at - page->chunk->at) / TRUST_LEAF;
	size_t count = min_u64(areas_leaves(areas, number) - first, TRUST_PAGE);
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < count; i++)
		if (page->changed & 1u << i)
			ret = areas_hash(areas, number, first + i, 1, page->bytes + i * TRUST_LEAF,
					 page->leaves + i * TRUST_HASH);
	if (ret == 0)
		ret = trust_hash_page(page->leaves, count,
				      page->area->pages + first / TRUST_PAGE * TRUST_HASH);
	page->changed = 0;
	return ret;
}

/* What the areas will be with this section, too. */
static int intend_section(struct journal_areas *journal, struct error *err)
{
	struct areas *areas = journal->areas;
	int ret = 0;

	for (struct new_page *page = journal->pages; ret == 0 && page; page = page->next)
		if (page->changed)
			ret = hash_new_page(journal, page);
	for (struct new_area *area = journal->new_areas; ret == 0 && area; area = area->next) {
		if (!area->changed)
			continue;
		area->changed = false;
		ret = trust_hash_pages(area->pages, areas_pages_of(areas, area->area->number),
				       area->hash);
		if (ret == 0)
			ret = areas_intend_whole(areas, area->area, area->hash, err);
	}
	return ret;
}

static int look_at_section(struct journal_areas *journal, uint32_t entry, const uint8_t *bytes,
			   struct error *err)
{
	const struct layout *layout = journal->areas->layout;
	int ret = trust_make_room(journal->areas->trust, layout->entries, err);

	for (unsigned i = 0; ret == 0 && i < layout->entries; i++)
		if (journal->held[entry + i].area)
			ret = put_tag(journal, &journal->held[entry + i],
				      journal_section_tag(layout, (uint8_t *)bytes, i));
	return ret == 0 ? intend_section(journal, err) : ret;
}

/* It may be done again where it fails: what was intended then is in doubt, and no more. */
static int intend_once(struct journal_areas *journal, uint32_t entry, uint32_t sections,
		       const uint8_t *bytes, struct error *err)
{
	const struct layout *layout = journal->areas->layout;
	int ret;

	err->text[0] = '\0';
	assert(!journal->pages);
	journal->first = entry;
	journal->count = sections * layout->entries;
	ret = areas_begin(journal->areas, err);
	for (uint32_t i = 0; ret == 0 && i < sections; i++)
		ret = look_at_section(journal, entry + i * layout->entries,
				      bytes + i * layout->section_len, err);
	if (ret == 0)
		ret = areas_sync(journal->areas, err);
	if (ret < 0)
		forget_new(journal);
	return ret;
}

int journal_areas_intend(struct journal_areas *journal, uint32_t entry, uint32_t sections,
			 const uint8_t *bytes, struct error *err)
{
	unsigned tries = 0;
	int ret;

	do
		ret = intend_once(journal, entry, sections, bytes, err);
	while (areas_try_again(ret, &tries));
	return ret;
}

int journal_areas_wrote(struct journal_areas *journal, struct error *err)
{
	struct areas *areas = journal->areas;
	unsigned tries = 0;
	int ret;

	do
		ret = trust_make_room(areas->trust, journal->count, err);
	while (areas_try_again(ret, &tries));
	for (struct new_page *page = journal->pages; page; page = page->next)
		tags_put_page(journal->tags, page->chunk, (page->at - page->chunk->at) / TAG_PAGE,
			      page->bytes, page->leaves);
	for (struct new_area *area = journal->new_areas; area; area = area->next) {
		int told;

		do
			told = areas_wrote(areas, area->area, area->pages, area->hash,
					   ret == 0 ? err : NULL);
		while (areas_try_again(told, &tries));
		ret = ret == 0 ? told : ret;
	}
	for (uint32_t i = 0; i < journal->count; i++)
		let_entry_go(journal, &journal->held[journal->first + i]);
	forget_new(journal);
	return ret == 0 ? areas_sync(areas, err) : ret;
}
