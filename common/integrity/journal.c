#include "integrity/journal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"

#define USUAL_MEMORY (16 << 20) /* bytes of sections */

#define TO(state) (1u << JOURNAL_##state)

static const unsigned transitions[JOURNAL_STATES] = {
	[JOURNAL_READING] = TO(REPLAYING) | TO(ERASING) | TO(RUNNING) | TO(FAILED),
	[JOURNAL_REPLAYING] = TO(ERASING) | TO(RUNNING) | TO(FAILED),
	[JOURNAL_ERASING] = TO(RUNNING) | TO(FAILED),
	[JOURNAL_RUNNING] = TO(CLOSING) | TO(FAILED),
	[JOURNAL_CLOSING] = TO(CLOSED) | TO(FAILED),
	[JOURNAL_CLOSED] = 0,
	[JOURNAL_FAILED] = 0,
};

static void change_state(struct journal *journal, enum journal_state state)
{
	assert(transitions[journal->state] & (1u << state));
	journal->state = state;
}

static void fail_for_good(struct journal *journal, int error)
{
	if (journal->state == JOURNAL_FAILED || journal->state == JOURNAL_CLOSED)
		return;
	change_state(journal, JOURNAL_FAILED);
	journal->error = error;
}

static bool is_open(const struct journal *journal)
{
	return journal->state == JOURNAL_RUNNING || journal->state == JOURNAL_CLOSING;
}

/* ---- places ---- */

static uint32_t section_of(const struct journal *journal, uint64_t position)
{
	return position % journal->layout.sections;
}

static unsigned seq_of(const struct journal *journal, uint64_t position)
{
	return (journal->first_seq + position / journal->layout.sections) % JOURNAL_SEQS;
}

static uint8_t *buffer_at(const struct journal *journal, unsigned buffer)
{
	return journal->memory + buffer * journal->layout.section_len;
}

static uint8_t *buffer_of(const struct journal *journal, uint64_t position)
{
	return buffer_at(journal, position % journal->buffers);
}

static uint32_t first_entry(const struct journal *journal, uint64_t position)
{
	return position % journal->buffers * journal->layout.entries;
}

/* Where an entry in the index is: not yet placed. */
static uint64_t position_of(const struct journal *journal, uint32_t entry)
{
	unsigned buffer = entry / journal->layout.entries;
	unsigned first = journal->placed % journal->buffers;

	return journal->placed + (buffer + journal->buffers - first) % journal->buffers;
}

/* The position behind all that is used. */
static uint64_t end_position(const struct journal *journal)
{
	return journal->open + (journal->used > 0);
}

/* ---- made ---- */

unsigned journal_buffers(const struct layout *layout)
{
	uint64_t wanted = USUAL_MEMORY / layout->section_len;

	return min_u64(max_u64(wanted, 2), layout->sections);
}

int journal_init(struct journal *journal, const struct layout *layout, const char *name,
		 uint8_t *memory, unsigned buffers)
{
	uint32_t entries = buffers * layout->entries;

	assert(buffers > 0 && buffers <= layout->sections);
	*journal = (struct journal){
		.layout = *layout,
		.name = name,
		.memory = memory,
		.buffers = buffers,
		.state = JOURNAL_READING,
	};
	journal->blocks = calloc(entries, sizeof(*journal->blocks));
	journal->filling = calloc(buffers, sizeof(*journal->filling));
	if (!journal->blocks || !journal->filling || journal_index_init(&journal->index, entries)) {
		journal_destroy(journal);
		return -ENOMEM;
	}
	journal_replay_init(&journal->replay, &journal->layout);
	return 0;
}

void journal_destroy(struct journal *journal)
{
	journal_index_destroy(&journal->index);
	free(journal->blocks);
	free(journal->filling);
	journal->blocks = NULL;
	journal->filling = NULL;
}

/* All that is on the disk is in place. Writing goes on at a section whose number will be seq; empty:
 * no section has entries that are used. */
static void start_running(struct journal *journal, uint32_t next, unsigned seq, bool empty)
{
	uint64_t position = (uint64_t)journal->layout.sections + next;

	change_state(journal, JOURNAL_RUNNING);
	journal->first_seq = (seq + JOURNAL_SEQS - 1) % JOURNAL_SEQS;
	journal->open = journal->committed = journal->placed = journal->freed = position;
	journal->wanted = journal->to_place = 0;
	journal->dirty = empty ? position : next;
	journal->erase_count = 0;
}

void journal_is_new(struct journal *journal)
{
	assert(journal->state == JOURNAL_READING && journal->done == 0);
	memset(journal->memory, 0, journal->buffers * journal->layout.section_len);
	start_running(journal, 0, 1, true);
}

/* ---- sections that are to be unused ---- */

static void add_erasing(struct journal *journal, uint32_t section, uint32_t count, unsigned seq)
{
	if (count == 0)
		return;
	assert(journal->erase_count < JOURNAL_ERASINGS);
	journal->erase[journal->erase_count++] = (struct journal_erasing){
		.section = section,
		.count = count,
		.seq = seq % JOURNAL_SEQS,
	};
}

/* All of them. The first is the one where taking begins: once it is gone nothing is taken. That it
 * begins there is told by the one before it, the last. */
static void erase_all(struct journal *journal)
{
	const struct journal_plan *plan = &journal->plan;
	uint32_t sections = journal->layout.sections, start = plan->start;

	journal->erase_at = journal->erase_count = 0;
	add_erasing(journal, start, 1, plan->erase_seq);
	if (start > 0) {
		add_erasing(journal, start + 1, sections - start - 1, plan->erase_seq);
		add_erasing(journal, 0, start - 1, plan->erase_seq);
		add_erasing(journal, start - 1, 1, plan->erase_seq);
	} else if (sections > 1) {
		add_erasing(journal, 1, sections - 2, plan->erase_seq);
		add_erasing(journal, sections - 1, 1, plan->erase_seq);
	}
}

/* Those that were used since all were empty; all is in place. Without them, by the way of the kernel,
 * the ring is written once more around. But if they are few, the section where taking begins gets a
 * number that isn't due there, so that nothing is taken; they are written with their own; and the
 * first as it was. */
static void erase_used(struct journal *journal)
{
	uint64_t end = journal->open, sections = journal->layout.sections;
	uint64_t from = max_u64(journal->dirty, end - sections);
	uint32_t next = section_of(journal, end), first = section_of(journal, from);
	uint64_t used = end - from, before = min_u64(used, sections - first);

	journal->erase_at = journal->erase_count = 0;
	if (used == 0)
		return;
	if (used + 2 > sections) {
		add_erasing(journal, next, sections - next, seq_of(journal, end));
		add_erasing(journal, 0, next, seq_of(journal, end) + 1);
		return;
	}
	add_erasing(journal, next, 1, seq_of(journal, end - 1) + JOURNAL_SEQS - 2);
	add_erasing(journal, first, before, seq_of(journal, from));
	add_erasing(journal, 0, used - before, seq_of(journal, end - 1));
	add_erasing(journal, next, 1, seq_of(journal, end - sections));
}

static bool next_erase(struct journal *journal)
{
	struct journal_erasing *erasing = &journal->erase[journal->erase_at];
	uint32_t count;

	if (journal->busy[JOURNAL_WRITE] || journal->erase_at == journal->erase_count)
		return false;
	count = min_u64(erasing->count, journal->buffers);
	for (uint32_t i = 0; i < count; i++) {
		journal_section_clear(&journal->layout, buffer_at(journal, i), true);
		journal_section_seal(&journal->layout, buffer_at(journal, i), erasing->section + i,
				     erasing->seq);
	}
	journal->work = (struct journal_work){
		.section = erasing->section,
		.count = count,
		.bytes = journal->memory,
	};
	return true;
}

/* True: all are. */
static bool erased(struct journal *journal)
{
	struct journal_erasing *erasing = &journal->erase[journal->erase_at];

	erasing->section += journal->work.count;
	erasing->count -= journal->work.count;
	if (erasing->count == 0)
		journal->erase_at++;
	return journal->erase_at == journal->erase_count;
}

/* ---- what is found on the disk ---- */

static bool next_read(struct journal *journal)
{
	uint32_t section = journal->done, left = journal->layout.sections - section;
	unsigned seq;

	if (journal->busy[JOURNAL_READ])
		return false;
	if (journal->state == JOURNAL_REPLAYING) {
		if (journal->loaded > 0 || journal->done == journal->plan.take)
			return false;
		section =
			journal_plan_section(&journal->plan, &journal->layout, journal->done, &seq);
		left = min_u64(journal->plan.take - journal->done,
			       journal->layout.sections - section);
	}
	journal->work = (struct journal_work){
		.section = section,
		.count = min_u64(left, journal->buffers),
		.bytes = journal->memory,
	};
	return true;
}

static void replayed(struct journal *journal)
{
	if (journal->plan.erase) {
		change_state(journal, JOURNAL_ERASING);
		erase_all(journal);
	} else {
		start_running(journal, journal->plan.next, journal->plan.next_seq,
			      journal->plan.take == 0);
	}
}

static void see_sections(struct journal *journal)
{
	int ret;

	for (uint32_t i = 0; i < journal->work.count; i++)
		journal_replay_see(&journal->replay, buffer_at(journal, i));
	journal->done += journal->work.count;
	if (journal->done < journal->layout.sections)
		return;
	journal->done = 0;
	ret = journal_replay_decide(&journal->replay, journal->name, &journal->plan, &journal->why);
	if (ret < 0)
		fail_for_good(journal, ret);
	else if (journal->plan.take > 0)
		change_state(journal, JOURNAL_REPLAYING);
	else
		replayed(journal);
}

/* The blocks of the sections that were read. What the disk says now may be something else than before. */
static int load_blocks(struct journal *journal)
{
	unsigned seq, sector;
	int count;

	journal->block_count = 0;
	for (uint32_t i = 0; i < journal->work.count; i++) {
		uint32_t section = journal_plan_section(&journal->plan, &journal->layout,
							journal->done + i, &seq);

		if (journal_section_seqs(&journal->layout, buffer_at(journal, i), section,
					 &sector) != 1u << seq)
			return error_set(&journal->why, EIO,
					 "%s: integrity: the journal changed while it was read",
					 journal->name);
		count = journal_section_blocks(
			&journal->layout, buffer_at(journal, i), journal->name,
			journal->blocks + journal->block_count, &journal->why);
		if (count < 0)
			return count;
		journal->block_count += count;
	}
	journal->block_count = journal_blocks_order(journal->blocks, journal->block_count);
	journal->loaded = journal->work.count;
	return 0;
}

/* Sections that are loaded are in place. */
static void carried_out(struct journal *journal)
{
	journal->done += journal->loaded;
	journal->loaded = 0;
	journal->unflushed = true;
}

static void have_read(struct journal *journal)
{
	int ret;

	if (journal->state == JOURNAL_READING) {
		see_sections(journal);
		return;
	}
	ret = load_blocks(journal);
	if (ret < 0)
		fail_for_good(journal, ret);
	else if (journal->block_count == 0)
		carried_out(journal);
}

/* ---- from memory to the journal ---- */

/* Is there an entry that can be had? */
static bool has_free_entry(const struct journal *journal)
{
	return journal->used > 0 || (journal->open - journal->placed < journal->buffers &&
				     journal->open - journal->freed < journal->layout.sections);
}

static void see_room(struct journal *journal)
{
	journal->starved = journal->starved && !has_free_entry(journal);
}

static void seal_section(struct journal *journal)
{
	journal->open++;
	journal->used = 0;
}

/* As many sections as are full of filled entries and lie side by side, here and there. */
static bool next_commit(struct journal *journal)
{
	uint64_t position = journal->committed, end;

	if (journal->busy[JOURNAL_WRITE])
		return false;
	if (journal->wanted > journal->open && journal->used > 0)
		seal_section(journal);
	end = position + min_u64(journal->buffers - position % journal->buffers,
				 journal->layout.sections - section_of(journal, position));
	for (end = min_u64(end, journal->open); position < end; position++) {
		if (journal->filling[position % journal->buffers] > 0)
			break;
		journal_section_seal(&journal->layout, buffer_of(journal, position),
				     section_of(journal, position), seq_of(journal, position));
	}
	if (position == journal->committed)
		return false;
	journal->work = (struct journal_work){
		.section = section_of(journal, journal->committed),
		.count = position - journal->committed,
		.bytes = buffer_of(journal, journal->committed),
	};
	journal->committing = position;
	return true;
}

static void unseal_sections(struct journal *journal)
{
	for (uint64_t i = journal->committed; i < journal->committing; i++)
		journal_section_unseal(&journal->layout, buffer_of(journal, i));
	journal->committed = journal->committing;
}

/* ---- from memory to its place ---- */

static bool half_of_all(const struct journal *journal)
{
	return journal->open - journal->freed >= (journal->layout.sections + 1) / 2;
}

static bool copy_is_due(const struct journal *journal)
{
	return journal->state == JOURNAL_CLOSING || journal->starved ||
	       journal->to_place > journal->placed || half_of_all(journal) ||
	       journal->committed - journal->placed >= (journal->buffers + 1) / 2;
}

/* What isn't made obsolete by what is durable. */
static void choose_blocks(struct journal *journal)
{
	journal->block_count = 0;
	for (uint64_t position = journal->placed; position < journal->placing; position++) {
		uint32_t first = first_entry(journal, position);

		for (unsigned i = 0; i < journal->layout.entries; i++) {
			const struct journal_entry *entry = &journal->index.entries[first + i];
			uint8_t *bytes = buffer_of(journal, position);

			if (!entry->used ||
			    (entry->newer != JOURNAL_NO_ENTRY &&
			     position_of(journal, entry->newer) < journal->committed))
				continue;
			journal->blocks[journal->block_count++] = (struct journal_block){
				.sector = entry->sector,
				.data = journal_section_data(&journal->layout, bytes, i),
				.tag = journal_section_tag(&journal->layout, bytes, i),
			};
		}
	}
	journal->block_count = journal_blocks_order(journal->blocks, journal->block_count);
}

static void free_buffers(struct journal *journal)
{
	uint32_t first;

	for (; journal->placed < journal->placing; journal->placed++) {
		first = first_entry(journal, journal->placed);
		for (unsigned i = 0; i < journal->layout.entries; i++)
			if (journal->index.entries[first + i].used)
				journal_index_remove(&journal->index, first + i);
	}
	see_room(journal);
}

/* Who begins to read from now on sees those entries in memory; who began before is waited for. */
static bool next_copy(struct journal *journal)
{
	if (journal->busy[JOURNAL_COPY])
		return false;
	if (journal->state == JOURNAL_REPLAYING)
		return journal->loaded > 0;
	if (!journal->waiting) {
		if (journal->placed == journal->committed || !copy_is_due(journal))
			return false;
		journal->waiting = true;
		journal->placing = journal->committed;
		journal->epoch = !journal->epoch;
	}
	if (journal->readers[!journal->epoch] > 0)
		return false;
	journal->waiting = false;
	choose_blocks(journal);
	if (journal->block_count > 0)
		return true;
	free_buffers(journal);
	return false;
}

static bool next_flush(struct journal *journal)
{
	if (journal->busy[JOURNAL_FLUSH])
		return false;
	if (journal->state == JOURNAL_REPLAYING)
		return journal->done == journal->plan.take && journal->unflushed;
	journal->freeing = journal->placed;
	return journal->freed < journal->placed &&
	       (journal->state == JOURNAL_CLOSING || half_of_all(journal));
}

/* ---- acts ---- */

static bool is_drained(const struct journal *journal)
{
	return journal->used == 0 && journal->freed == journal->open;
}

static bool is_due(struct journal *journal, enum journal_act act)
{
	switch (act) {
	case JOURNAL_READ:
		return (journal->state == JOURNAL_READING || journal->state == JOURNAL_REPLAYING) &&
		       next_read(journal);
	case JOURNAL_WRITE:
		if (journal->state == JOURNAL_ERASING ||
		    (journal->state == JOURNAL_CLOSING && is_drained(journal)))
			return next_erase(journal);
		return is_open(journal) && next_commit(journal);
	case JOURNAL_COPY:
		return (is_open(journal) || journal->state == JOURNAL_REPLAYING) &&
		       next_copy(journal);
	case JOURNAL_FLUSH:
		return (is_open(journal) || journal->state == JOURNAL_REPLAYING) &&
		       next_flush(journal);
	default:
		return false;
	}
}

enum journal_act journal_next(struct journal *journal, struct journal_work *work)
{
	enum journal_act act = JOURNAL_READ;

	while (act <= JOURNAL_FLUSH && !is_due(journal, act))
		act++;
	if (act > JOURNAL_FLUSH)
		return JOURNAL_NOTHING;
	journal->busy[act] = true;
	*work = (struct journal_work){ 0 };
	if (act == JOURNAL_READ || act == JOURNAL_WRITE)
		*work = journal->work;
	if (act == JOURNAL_COPY) {
		work->blocks = journal->blocks;
		work->block_count = journal->block_count;
	}
	return act;
}

static void have_written(struct journal *journal)
{
	if (journal->state == JOURNAL_ERASING) {
		if (erased(journal))
			start_running(journal, journal->plan.next, journal->plan.next_seq, true);
	} else if (is_drained(journal)) {
		if (erased(journal))
			change_state(journal, JOURNAL_CLOSED);
	} else {
		unseal_sections(journal);
	}
}

static void free_sections(struct journal *journal)
{
	if (journal->state == JOURNAL_REPLAYING) {
		journal->unflushed = false;
		replayed(journal);
		return;
	}
	journal->freed = journal->freeing;
	see_room(journal);
}

/* Closing: all is in place. */
static void finish_closing(struct journal *journal)
{
	if (journal->state != JOURNAL_CLOSING || !is_drained(journal) || journal->erase_count > 0)
		return;
	erase_used(journal);
	if (journal->erase_count == 0)
		change_state(journal, JOURNAL_CLOSED);
}

void journal_landed(struct journal *journal, enum journal_act act, int error)
{
	assert(journal->busy[act]);
	journal->busy[act] = false;
	if (error < 0)
		fail_for_good(journal, error);
	if (journal->state == JOURNAL_FAILED)
		return;
	if (act == JOURNAL_READ)
		have_read(journal);
	else if (act == JOURNAL_WRITE)
		have_written(journal);
	else if (act == JOURNAL_COPY && journal->state == JOURNAL_REPLAYING)
		carried_out(journal);
	else if (act == JOURNAL_COPY)
		free_buffers(journal);
	else
		free_sections(journal);
	finish_closing(journal);
}

/* ---- writes ---- */

int journal_reserve(struct journal *journal, uint64_t sector, unsigned blocks, uint32_t *entry)
{
	const struct layout *layout = &journal->layout;
	uint32_t first = first_entry(journal, journal->open) + journal->used;
	unsigned count;

	if (journal->state == JOURNAL_FAILED)
		return journal->error;
	if (journal->state > JOURNAL_RUNNING)
		return -ESHUTDOWN;
	if (journal->state < JOURNAL_RUNNING)
		return 0;
	assert(sector % layout->block_sectors == 0 &&
	       sector + (uint64_t)blocks * layout->block_sectors <= layout->size / LAYOUT_SECTOR);
	if (!has_free_entry(journal)) {
		journal->starved = true;
		return 0;
	}
	if (journal->used == 0)
		journal_section_clear(layout, buffer_of(journal, journal->open), false);
	count = min_u64(blocks, layout->entries - journal->used);
	for (unsigned i = 0; i < count; i++)
		journal_index_add(&journal->index, first + i,
				  sector + (uint64_t)i * layout->block_sectors);
	journal->filling[journal->open % journal->buffers] += count;
	journal->used += count;
	if (journal->used == layout->entries)
		seal_section(journal);
	*entry = first;
	return count;
}

void journal_fill(struct journal *journal, uint32_t entry, const void *data, const void *tag)
{
	journal_section_put(&journal->layout, buffer_at(journal, entry / journal->layout.entries),
			    entry % journal->layout.entries, journal->index.entries[entry].sector,
			    data, tag);
}

uint64_t journal_filled(struct journal *journal, uint32_t entry, unsigned blocks)
{
	unsigned *filling = &journal->filling[entry / journal->layout.entries];

	assert(*filling >= blocks);
	*filling -= blocks;
	for (unsigned i = 0; i < blocks; i++)
		journal->index.entries[entry + i].filled = true;
	return position_of(journal, entry) + 1;
}

uint64_t journal_flush(struct journal *journal)
{
	journal_commit(journal, end_position(journal));
	return end_position(journal);
}

void journal_commit(struct journal *journal, uint64_t mark)
{
	assert(mark <= end_position(journal));
	journal->wanted = max_u64(journal->wanted, mark);
}

int journal_is_durable(const struct journal *journal, uint64_t mark)
{
	if (mark <= journal->committed)
		return 1;
	return journal->state == JOURNAL_FAILED ? journal->error : 0;
}

void journal_settle(struct journal *journal)
{
	journal->to_place = journal_flush(journal);
}

void journal_close(struct journal *journal)
{
	if (journal->state == JOURNAL_FAILED)
		return;
	change_state(journal, JOURNAL_CLOSING);
	journal_settle(journal);
	finish_closing(journal);
}

/* ---- reads ---- */

/* The newest that is filled. */
static uint32_t find_filled(const struct journal *journal, uint64_t sector)
{
	uint32_t entry = journal_index_find(&journal->index, sector);

	while (entry != JOURNAL_NO_ENTRY && !journal->index.entries[entry].filled)
		entry = journal->index.entries[entry].older;
	return entry;
}

unsigned journal_look(const struct journal *journal, uint64_t sector, unsigned blocks,
		      bool *in_memory)
{
	unsigned alike = 1;

	*in_memory = false;
	if (journal->placed == end_position(journal))
		return blocks;
	*in_memory = find_filled(journal, sector) != JOURNAL_NO_ENTRY;
	while (alike < blocks) {
		sector += journal->layout.block_sectors;
		if ((find_filled(journal, sector) != JOURNAL_NO_ENTRY) != *in_memory)
			break;
		alike++;
	}
	return alike;
}

bool journal_read(const struct journal *journal, uint64_t sector, void *data, void *tag)
{
	uint32_t entry = find_filled(journal, sector);

	if (entry == JOURNAL_NO_ENTRY)
		return false;
	journal_section_get(&journal->layout, buffer_at(journal, entry / journal->layout.entries),
			    entry % journal->layout.entries, data, tag);
	return true;
}

unsigned journal_read_begin(struct journal *journal)
{
	journal->readers[journal->epoch]++;
	return journal->epoch;
}

void journal_read_end(struct journal *journal, unsigned epoch)
{
	assert(journal->readers[epoch] > 0);
	journal->readers[epoch]--;
}

/* ---- invariants ---- */

void journal_validate(const struct journal *journal)
{
	uint64_t end = end_position(journal), placing = journal->placed, used = 0, last;

	if (!is_open(journal))
		return;
	if (journal->waiting || journal->busy[JOURNAL_COPY])
		placing = journal->placing;
	assert(journal->freed <= journal->placed && journal->placed <= placing &&
	       placing <= journal->committed && journal->committed <= journal->open);
	assert(end - journal->freed <= journal->layout.sections);
	assert(end - journal->placed <= journal->buffers);
	assert(journal->used < journal->layout.entries);
	assert(journal->wanted <= end && journal->to_place <= end);
	assert(!journal->busy[JOURNAL_FLUSH] || journal->freeing <= journal->placed);
	for (uint32_t i = 0; i < journal->index.count; i++) {
		const struct journal_entry *entry = &journal->index.entries[i];

		used += entry->used;
		last = position_of(journal, i);
		if (!entry->used)
			continue;
		assert(last < end && (entry->filled || last >= journal->committed));
		if (entry->newer != JOURNAL_NO_ENTRY)
			assert(journal->index.entries[entry->newer].used &&
			       journal->index.entries[entry->newer].older == i &&
			       position_of(journal, entry->newer) >= last);
		else
			assert(journal_index_find(&journal->index, entry->sector) == i);
	}
	assert(used <= (end - journal->placed) * journal->layout.entries);
}
