#include "integrity/journal-overlay.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "integrity/journal-replay.h"
#include "integrity/journal-section.h"

#define IO_ALIGN 4096
#define ID_LEN   8 /* bytes: the last ones of each sector, in place of which the journal has others */

/* A block's newest copy. */
struct overlay_block {
	uint64_t sector;
	uint64_t at;    /* bytes, in the segment: its data */
	uint64_t order; /* of two the later counts */
	size_t kept;    /* where in `kept` what is kept of it begins */
};

struct journal_overlay {
	const struct layout *layout;
	struct overlay_block *blocks; /* in ascending order, each sector once */
	size_t count, room;
	uint8_t *kept; /* of each block the last bytes of its sectors, then its tag */
};

static size_t ids_len(const struct layout *layout)
{
	return (size_t)layout->block_sectors * ID_LEN;
}

static size_t kept_len(const struct layout *layout)
{
	return ids_len(layout) + layout->tag_size;
}

void journal_overlay_close(struct journal_overlay *overlay)
{
	if (!overlay)
		return;
	free(overlay->blocks);
	free(overlay->kept);
	free(overlay);
}

/* ---- what is there ---- */

static int lack_overlay_memory(const struct journal_io *io, struct error *err)
{
	return error_set(err, ENOMEM, "%s: no memory", io->name);
}

static int read_section(const struct journal_io *io, const struct layout *layout, uint32_t section,
			uint8_t *bytes, struct error *err)
{
	int ret =
		io->read(io->disk, layout_section_at(layout, section), bytes, layout->section_len);

	return ret == 0 ? 0 :
			  error_set(err, -ret, "%s: integrity: reading the journal: %s", io->name,
				    io->reason(io->disk, -ret));
}

static int decide_plan(const struct journal_io *io, const struct layout *layout, uint8_t *bytes,
		       struct journal_plan *plan, struct error *err)
{
	struct journal_replay replay;
	int ret = 0;

	journal_replay_init(&replay, layout);
	for (uint32_t i = 0; ret == 0 && i < layout->sections; i++) {
		ret = read_section(io, layout, i, bytes, err);
		if (ret == 0)
			journal_replay_see(&replay, bytes);
	}
	return ret == 0 ? journal_replay_decide(&replay, io->name, plan, err) : ret;
}

static bool make_overlay_room(struct journal_overlay *overlay, size_t more)
{
	size_t room = max_u64(overlay->count + more, overlay->room);
	struct overlay_block *blocks;
	uint8_t *kept;

	if (room == overlay->room)
		return true;
	room = max_u64(room, 2 * overlay->room);
	blocks = realloc(overlay->blocks, room * sizeof(*blocks));
	if (blocks)
		overlay->blocks = blocks;
	kept = blocks ? realloc(overlay->kept, room * kept_len(overlay->layout)) : NULL;
	if (!kept)
		return false;
	overlay->kept = kept;
	overlay->room = room;
	return true;
}

/* bytes: the section, unsealed. */
static void add_overlay_block(struct journal_overlay *overlay, uint32_t section,
			      const uint8_t *bytes, const struct journal_block *block)
{
	const struct layout *layout = overlay->layout;
	struct overlay_block *to = &overlay->blocks[overlay->count];
	uint8_t *kept;

	*to = (struct overlay_block){
		.sector = block->sector,
		.at = layout_section_at(layout, section) + (block->data - bytes),
		.order = overlay->count,
		.kept = overlay->count * kept_len(layout),
	};
	kept = overlay->kept + to->kept;
	for (unsigned i = 0; i < layout->block_sectors; i++)
		memcpy(kept + i * ID_LEN, block->data + (i + 1) * LAYOUT_SECTOR - ID_LEN, ID_LEN);
	memcpy(kept + ids_len(layout), block->tag, layout->tag_size);
	overlay->count++;
}

/* A section of those that are taken, in their order. What the disk says now may be something else. */
static int take_section(struct journal_overlay *overlay, const struct journal_io *io,
			uint32_t section, unsigned seq, uint8_t *bytes,
			struct journal_block *blocks, struct error *err)
{
	const struct layout *layout = overlay->layout;
	unsigned sector;
	int count = read_section(io, layout, section, bytes, err);

	if (count < 0)
		return count;
	if (journal_section_seqs(layout, bytes, section, &sector) != 1u << seq)
		return error_set(err, EIO, "%s: integrity: the journal changed while it was read",
				 io->name);
	count = journal_section_blocks(layout, bytes, io->name, blocks, err);
	if (count > 0 && !make_overlay_room(overlay, count))
		return lack_overlay_memory(io, err);
	for (int i = 0; i < count; i++)
		add_overlay_block(overlay, section, bytes, &blocks[i]);
	return count < 0 ? count : 0;
}

static int compare_overlay_blocks(const void *one, const void *other)
{
	const struct overlay_block *a = one, *b = other;

	if (a->sector != b->sector)
		return a->sector < b->sector ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

static void keep_newest(struct journal_overlay *overlay)
{
	struct overlay_block *blocks = overlay->blocks;
	size_t kept = 0;

	if (overlay->count > 0)
		qsort(blocks, overlay->count, sizeof(*blocks), compare_overlay_blocks);
	for (size_t i = 0; i < overlay->count; i++)
		if (i + 1 == overlay->count || blocks[i].sector != blocks[i + 1].sector)
			blocks[kept++] = blocks[i];
	overlay->count = kept;
}

static int read_journal(struct journal_overlay *overlay, const struct journal_io *io,
			struct error *err)
{
	const struct layout *layout = overlay->layout;
	uint8_t *bytes = aligned_alloc(IO_ALIGN, round_up(layout->section_len, IO_ALIGN));
	struct journal_block *blocks = calloc(layout->entries, sizeof(*blocks));
	struct journal_plan plan;
	unsigned seq;
	int ret = bytes && blocks ? decide_plan(io, layout, bytes, &plan, err) :
				    lack_overlay_memory(io, err);

	for (uint32_t i = 0; ret == 0 && i < plan.take; i++) {
		uint32_t section = journal_plan_section(&plan, layout, i, &seq);

		ret = take_section(overlay, io, section, seq, bytes, blocks, err);
	}
	free(blocks);
	free(bytes);
	return ret;
}

int journal_overlay_open(const struct journal_io *io, const struct layout *layout,
			 struct journal_overlay **opened, struct error *err)
{
	struct journal_overlay *overlay = calloc(1, sizeof(*overlay));
	int ret;

	*opened = NULL;
	if (!overlay)
		return lack_overlay_memory(io, err);
	overlay->layout = layout;
	ret = read_journal(overlay, io, err);
	if (ret < 0) {
		journal_overlay_close(overlay);
		return ret;
	}
	keep_newest(overlay);
	*opened = overlay;
	return 0;
}

/* ---- over what was read ---- */

/* The first from this sector on, or the one behind all. */
static size_t first_from(const struct journal_overlay *overlay, uint64_t sector)
{
	size_t low = 0, high = overlay->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (overlay->blocks[middle].sector < sector)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Sectors ascend, and so do their tags' places. */
void journal_overlay_tags(const struct journal_overlay *overlay, uint64_t at, uint64_t len,
			  uint8_t *bytes)
{
	const struct layout *layout = overlay->layout;
	uint64_t area = (at - layout->areas_at) / (layout->area_data + layout->area_tags);

	for (size_t i = first_from(overlay, area * layout->area_data / LAYOUT_SECTOR);
	     i < overlay->count; i++) {
		const struct overlay_block *block = &overlay->blocks[i];
		const uint8_t *tag = overlay->kept + block->kept + ids_len(layout);
		uint64_t tag_at = layout_tag_at(layout, block->sector * LAYOUT_SECTOR);
		uint64_t from = max_u64(tag_at, at);
		uint64_t end = min_u64(tag_at + layout->tag_size, at + len);

		if (tag_at >= at + len)
			break;
		if (from < end)
			memcpy(bytes + (from - at), tag + (from - tag_at), end - from);
	}
}

uint64_t journal_overlay_place(const struct journal_overlay *overlay, uint64_t offset,
			       uint64_t *len)
{
	const struct layout *layout = overlay->layout;
	const struct overlay_block *block, *end = overlay->blocks + overlay->count;
	uint64_t sector = offset / LAYOUT_SECTOR, run = layout->block;

	block = overlay->blocks + first_from(overlay, sector);
	if (block == end || block->sector != sector) {
		if (block < end)
			*len = min_u64(*len, (block->sector - sector) * LAYOUT_SECTOR);
		return layout_data_at(layout, offset);
	}
	while (run < *len && block + run / layout->block < end &&
	       block[run / layout->block].sector == sector + run / LAYOUT_SECTOR &&
	       block[run / layout->block].at == block->at + run)
		run += layout->block;
	*len = min_u64(*len, run);
	return block->at;
}

void journal_overlay_restore(const struct journal_overlay *overlay, uint64_t offset, uint64_t len,
			     uint8_t *data)
{
	uint64_t sector = offset / LAYOUT_SECTOR, end = (offset + len) / LAYOUT_SECTOR;

	for (size_t i = first_from(overlay, sector);
	     i < overlay->count && overlay->blocks[i].sector < end; i++) {
		const struct overlay_block *block = &overlay->blocks[i];
		uint8_t *to = data + (block->sector - sector) * LAYOUT_SECTOR;

		for (unsigned n = 0; n < overlay->layout->block_sectors; n++)
			memcpy(to + (n + 1) * LAYOUT_SECTOR - ID_LEN,
			       overlay->kept + block->kept + n * ID_LEN, ID_LEN);
	}
}
