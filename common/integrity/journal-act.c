#include "integrity/journal-act.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"

#define MEMORY_ALIGN 4096
#define PIECE        (1024 * 1024) /* bytes, at the most, of one read or write */

int act_run_init(struct act_run *run, const struct layout *layout, struct tags *tags,
		 enum journal_act act)
{
	*run = (struct act_run){
		.layout = layout,
		.tags = tags,
		.nr_slots = act == JOURNAL_COPY ? ACT_SLOTS : ACT_SLOTS / 2,
	};
	for (unsigned i = 0; act == JOURNAL_COPY && i < ACT_SLOTS; i++) {
		run->slots[i].bytes = aligned_alloc(MEMORY_ALIGN, TAG_CHUNK);
		if (run->slots[i].bytes)
			continue;
		act_run_destroy(run);
		return -ENOMEM;
	}
	return 0;
}

void act_run_destroy(struct act_run *run)
{
	assert(run->in_flight == 0);
	for (unsigned i = 0; i < ACT_SLOTS; i++) {
		free(run->slots[i].bytes);
		run->slots[i].bytes = NULL;
	}
}

void act_run_begin(struct act_run *run, enum journal_act act, const struct journal_work *work)
{
	assert(run->act == JOURNAL_NOTHING && run->in_flight == 0);
	run->act = act;
	run->work = *work;
	run->asked = 0;
	run->data_done = run->tags_done = 0;
	run->flushed = false;
	run->error = 0;
}

static void slot_ask(struct act_run *run, const struct below *below, struct act_slot *slot,
		     enum act_slot_state state)
{
	slot->state = state;
	run->in_flight++;
	below_ask(below, &slot->sub);
}

static uint64_t piece_max(const struct below *below)
{
	return min_u64(PIECE, below_max_len(below));
}

/* ---- sections ---- */

/* Where there is more than one piece a flush behind all of them is the cheaper way to make them
 * durable. */
static bool ask_sections(struct act_run *run, const struct below *below, struct act_slot *slot)
{
	uint64_t len = run->work.count * run->layout->section_len;
	uint64_t at = layout_section_at(run->layout, run->work.section);
	uint64_t piece = min_u64(len - run->asked, piece_max(below));
	bool writes = run->act == JOURNAL_WRITE;
	bool fua = writes && piece == len && below->target->can_fua;

	if (run->asked == len) {
		if (!writes || run->flushed || run->in_flight > 0 || !below->target->can_flush)
			return false;
		run->flushed = true;
		slot->sub = below_flush(below);
	} else {
		slot->sub = below_sub(below, writes ? OP_WRITE : OP_READ, at + run->asked, piece,
				      run->work.bytes + run->asked);
		slot->sub.flags = fua ? REQ_FUA : 0;
		run->flushed = fua;
		run->asked += piece;
	}
	slot_ask(run, below, slot, SLOT_MOVES);
	return true;
}

static bool ask_flush(struct act_run *run, const struct below *below, struct act_slot *slot)
{
	if (run->flushed || !below->target->can_flush)
		return false;
	run->flushed = true;
	slot->sub = below_flush(below);
	slot_ask(run, below, slot, SLOT_MOVES);
	return true;
}

/* ---- blocks to their places: data ---- */

static uint64_t offset_of(const struct journal_block *block)
{
	return block->sector * LAYOUT_SECTOR;
}

/* How many blocks from there on follow each other in an area, max at the most; and in memory, too. */
static size_t neighbours(const struct act_run *run, size_t first, size_t max, bool in_memory)
{
	const struct journal_block *blocks = run->work.blocks + first;
	const struct layout *layout = run->layout;
	uint64_t area = offset_of(blocks) / layout->area_data;
	size_t n = 1;

	max = min_u64(max, run->work.block_count - first);
	while (n < max && blocks[n].sector == blocks[n - 1].sector + layout->block_sectors &&
	       offset_of(&blocks[n]) / layout->area_data == area &&
	       (!in_memory || blocks[n].data == blocks[n - 1].data + layout->block))
		n++;
	return n;
}

/* What lies apart in memory is put together where that makes fewer writes of it. */
static bool ask_data(struct act_run *run, const struct below *below, struct act_slot *slot)
{
	const struct journal_block *blocks = run->work.blocks + run->data_done;
	size_t block = run->layout->block, fit = TAG_CHUNK / block, count;
	uint8_t *bytes = slot->bytes;

	if (run->data_done == run->work.block_count)
		return false;
	fit = min_u64(fit, piece_max(below) / block);
	count = neighbours(run, run->data_done, piece_max(below) / block, true);
	if (is_aligned((uintptr_t)blocks[0].data, below->target->mem_align) &&
	    (count >= fit || count >= neighbours(run, run->data_done, fit, false))) {
		bytes = blocks[0].data;
	} else {
		count = neighbours(run, run->data_done, fit, false);
		for (size_t i = 0; i < count; i++)
			memcpy(bytes + i * block, blocks[i].data, block);
	}
	slot->sub = below_sub(below, OP_WRITE, layout_data_at(run->layout, offset_of(blocks)),
			      count * block, bytes);
	run->data_done += count;
	slot_ask(run, below, slot, SLOT_MOVES);
	return true;
}

/* ---- and tags ---- */

static void slot_let_go(struct act_run *run, struct act_slot *slot)
{
	for (unsigned i = 0; i < 2; i++) {
		tags_let_go(run->tags, slot->chunk[i]);
		slot->chunk[i] = NULL;
	}
	slot->state = SLOT_IDLE;
}

/* The blocks whose tags begin in one chunk; and that chunk, and the next one if the last tag lies in
 * both. */
static bool hold_tags(struct act_run *run, struct act_slot *slot)
{
	const struct journal_block *blocks = run->work.blocks;
	size_t n = run->tags_done;
	struct tag_chunk *chunk = tags_hold(run->tags, offset_of(&blocks[n]));
	uint64_t end, last = 0;

	slot->chunk[0] = chunk;
	if (!chunk)
		return false;
	end = chunk->at + chunk->len;
	slot->first = n;
	for (; n < run->work.block_count; n++) {
		uint64_t at = layout_tag_at(run->layout, offset_of(&blocks[n]));

		if (at >= end)
			break;
		last = at + run->layout->tag_size;
	}
	slot->count = n - slot->first;
	if (last > end) {
		slot->chunk[1] = tags_hold_next(run->tags, chunk);
		return slot->chunk[1];
	}
	return true;
}

/* Loads what isn't there; or, if all is, changes it: they are dirty from then on. */
static void load_or_put(struct act_run *run, const struct below *below, struct act_slot *slot)
{
	for (unsigned i = 0; i < 2 && slot->chunk[i]; i++) {
		const struct tag_chunk *chunk = slot->chunk[i];

		if (tags_is_valid(run->tags, chunk))
			continue;
		slot->loading = i;
		slot->loaded = aligned_alloc(MEMORY_ALIGN, TAG_CHUNK);
		if (!slot->loaded) {
			run->error = -ENOMEM;
			slot_let_go(run, slot);
			return;
		}
		slot->sub = below_sub(below, OP_READ, chunk->at, chunk->len, slot->loaded);
		slot_ask(run, below, slot, SLOT_LOADS);
		return;
	}
	for (size_t i = slot->first; i < slot->first + slot->count; i++)
		tags_put(run->tags, slot->chunk, offset_of(&run->work.blocks[i]), 1,
			 run->work.blocks[i].tag);
	slot_let_go(run, slot);
}

static bool ask_tags(struct act_run *run, const struct below *below, struct act_slot *slot)
{
	if (run->tags_are_put || run->tags_done == run->work.block_count)
		return false;
	if (!hold_tags(run, slot)) {
		slot_let_go(run, slot);
		run->error = -ENOMEM;
		return true;
	}
	run->tags_done += slot->count;
	load_or_put(run, below, slot);
	return true;
}

static bool ask_sweep(struct act_run *run, const struct below *below, struct act_slot *slot)
{
	uint64_t at;

	if (!tags_take_dirty(run->tags, &slot->run, slot->bytes))
		return false;
	at = slot->run.chunk->at + (uint64_t)slot->run.first * TAG_PAGE;
	slot->sub =
		below_sub(below, OP_WRITE, at, (uint64_t)slot->run.count * TAG_PAGE, slot->bytes);
	slot_ask(run, below, slot, SLOT_SWEEPS);
	return true;
}

/* ---- all of it ---- */

/* False: nothing now. */
static bool ask_some(struct act_run *run, const struct below *below, struct act_slot *slot)
{
	switch (run->act) {
	case JOURNAL_READ:
	case JOURNAL_WRITE:
		return ask_sections(run, below, slot);
	case JOURNAL_COPY:
		return ask_sweep(run, below, slot) || ask_data(run, below, slot) ||
		       ask_tags(run, below, slot);
	case JOURNAL_FLUSH:
		return ask_flush(run, below, slot);
	case JOURNAL_NOTHING:
		break;
	}
	return false;
}

static struct act_slot *idle_act_slot(struct act_run *run)
{
	for (unsigned i = 0; i < run->nr_slots; i++)
		if (run->slots[i].state == SLOT_IDLE)
			return &run->slots[i];
	return NULL;
}

bool act_run_go_on(struct act_run *run, const struct below *below)
{
	struct act_slot *slot;

	if (run->act == JOURNAL_NOTHING)
		return false;
	while (!run->error && (slot = idle_act_slot(run)) && ask_some(run, below, slot))
		;
	if (run->in_flight > 0)
		return false;
	run->act = JOURNAL_NOTHING;
	return true;
}

bool act_run_owns(const struct act_run *run, const struct ndio_subrequest *sub)
{
	const uint8_t *at = (const uint8_t *)sub;

	return at >= (const uint8_t *)run->slots && at < (const uint8_t *)(run->slots + ACT_SLOTS);
}

static void land_load(struct act_run *run, const struct below *below, struct act_slot *slot,
		      bool failed)
{
	if (failed)
		free(slot->loaded);
	else
		tags_fill(run->tags, slot->chunk[slot->loading], slot->loaded);
	if (run->error)
		slot_let_go(run, slot);
	else
		load_or_put(run, below, slot);
}

void act_run_land(struct act_run *run, const struct below *below, struct ndio_subrequest *sub)
{
	struct act_slot *slot = (struct act_slot *)sub;
	enum act_slot_state state = slot->state;
	int ret = below_land(below, sub);

	if (ret == 0)
		return;
	run->in_flight--;
	slot->state = SLOT_IDLE;
	if (ret < 0 && !run->error)
		run->error = ret;
	if (state == SLOT_LOADS)
		land_load(run, below, slot, ret < 0);
	else if (state == SLOT_SWEEPS)
		tags_wrote(run->tags, &slot->run, ret < 0);
}
