/* The journal of a volume with integrity, on a disk whose power is cut at every write: what was
 * flushed is there, and no block is of two writes.
 *
 * Everything that the journal has under way goes on in small steps, in an order that a seed says. The
 * disk's own writes are counted, and cut after any number of them; then also while the journal is
 * carried out and erased again. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/journal-recover.h"
#include "integrity/journal.h"
#include "torn-disk.h"

#define BLOCKS   72 /* three sections of entries */
#define TAG      112
#define VERSIONS 64 /* of a block */

static struct layout layout;
static struct torn_disk disk, made; /* it; and how it was at first */
static struct journal journal;
static uint8_t *memory;
static uint64_t random_state;
static long left; /* writes until the cut */
static bool is_cut;

static struct {
	uint32_t acked, durable; /* versions: the newest that was acknowledged, and flushed */
	uint32_t latest;         /* that may be there at all */
} known[BLOCKS];
static uint32_t version;

static bool one_of(unsigned n)
{
	return torn_random(&random_state) % n == 0;
}

static void fill_block(uint8_t *bytes, size_t len, unsigned block, uint32_t of)
{
	uint64_t word = (uint64_t)of << 32 | block;

	for (size_t i = 0; i < len; i += sizeof(word))
		memcpy(bytes + i, &word, sizeof(word));
}

/* Which version bytes are of, all of them; never: of several, or of another block. */
static uint32_t version_of(const uint8_t *bytes, size_t len, unsigned block)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	assert_int_equal((uint32_t)word, block);
	assert_memory_equal(bytes, bytes + sizeof(word), len - sizeof(word));
	return word >> 32;
}

/* ---- what the journal has under way ---- */

static struct step {
	bool busy;
	struct journal_work work;
	size_t at, mark;
} steps[JOURNAL_ACTS];

static void disk_write(size_t at, const void *bytes, size_t len)
{
	torn_disk_write(&disk, at, bytes, len);
	if (left >= 0 && left-- == 0)
		is_cut = true;
}

static void land(enum journal_act act)
{
	steps[act].busy = false;
	journal_landed(&journal, act, 0);
	journal_validate(&journal);
}

static void step_write(struct step *step)
{
	size_t at = layout_section_at(&layout, step->work.section);
	size_t len = step->work.count * layout.section_len;

	if (step->at++ == 0) {
		disk_write(at, step->work.bytes, len);
		step->mark = torn_disk_mark(&disk);
		return;
	}
	torn_disk_force(&disk, at, len, step->mark);
	land(JOURNAL_WRITE);
}

/* A tag shares its sectors with others. */
static void step_copy(struct step *step)
{
	const struct journal_block *block = &step->work.blocks[step->at / 2];
	uint64_t offset;

	if (step->at == 2 * step->work.block_count) {
		land(JOURNAL_COPY);
		return;
	}
	offset = block->sector * LAYOUT_SECTOR;
	if (step->at++ % 2 == 0)
		disk_write(layout_data_at(&layout, offset), block->data, layout.block);
	else
		disk_write(layout_tag_at(&layout, offset), block->tag, layout.tag_size);
}

static void step_on(enum journal_act act)
{
	struct step *step = &steps[act];

	switch (act) {
	case JOURNAL_READ:
		torn_disk_read(&disk, layout_section_at(&layout, step->work.section),
			       step->work.bytes, step->work.count * layout.section_len);
		land(act);
		break;
	case JOURNAL_WRITE:
		step_write(step);
		break;
	case JOURNAL_COPY:
		step_copy(step);
		break;
	case JOURNAL_FLUSH:
		if (step->at++ == 0) {
			step->mark = torn_disk_mark(&disk);
			break;
		}
		torn_disk_flush(&disk, step->mark);
		land(act);
		break;
	case JOURNAL_NOTHING:
		break;
	}
}

/* False: there is nothing to do. */
static bool go_on(void)
{
	struct journal_work work;
	enum journal_act act;
	unsigned busy = 0;

	if (is_cut)
		return false;
	while ((act = journal_next(&journal, &work)) != JOURNAL_NOTHING) {
		assert_false(steps[act].busy);
		steps[act] = (struct step){ .busy = true, .work = work };
	}
	for (act = 0; act < JOURNAL_ACTS; act++)
		busy += steps[act].busy;
	if (busy == 0)
		return false;
	busy = torn_random(&random_state) % busy;
	for (act = 0; act < JOURNAL_ACTS; act++)
		if (steps[act].busy && busy-- == 0) {
			step_on(act);
			break;
		}
	return true;
}

/* ---- reads ---- */

/* One that is under way: its data were read, and its tag wasn't. */
static struct {
	bool open;
	unsigned block, epoch;
	uint32_t of, least;
} reading;

static void end_read(void)
{
	uint8_t tag[TAG];

	if (!reading.open)
		return;
	torn_disk_read(&disk, layout_tag_at(&layout, reading.block * layout.block), tag, TAG);
	assert_int_equal(version_of(tag, TAG, reading.block), reading.of);
	assert_in_range(reading.of, reading.least, known[reading.block].acked);
	journal_read_end(&journal, reading.epoch);
	reading.open = false;
}

static void begin_read(unsigned block)
{
	uint8_t data[512], tag[TAG];
	bool in_memory;

	end_read();
	assert_int_equal(journal_look(&journal, block, 1, &in_memory), 1);
	assert_int_equal(journal_read(&journal, block, data, tag), in_memory);
	if (in_memory) {
		assert_int_equal(version_of(data, 512, block), known[block].acked);
		assert_int_equal(version_of(tag, TAG, block), known[block].acked);
		return;
	}
	torn_disk_read(&disk, layout_data_at(&layout, block * layout.block), data, 512);
	reading.open = true;
	reading.epoch = journal_read_begin(&journal);
	reading.block = block;
	reading.least = known[block].acked;
	reading.of = version_of(data, 512, block);
	assert_int_equal(reading.of, known[block].acked);
}

/* Nothing goes on until a reader is done: then it is done. */
static bool wait_on(void)
{
	if (go_on())
		return true;
	if (is_cut || !reading.open)
		return false;
	end_read();
	return true;
}

/* ---- what is done with it ---- */

/* Returns the mark of the last block. */
static uint64_t write_blocks(unsigned block, unsigned count)
{
	uint8_t data[512], tag[TAG];
	bool waits = true;
	uint64_t mark = 0;
	uint32_t entry;

	version++;
	while (count > 0 && !is_cut) {
		int got = journal_reserve(&journal, block, count, &entry);

		assert_true(got > 0 || (got == 0 && waits));
		if (got == 0) {
			waits = wait_on();
			continue;
		}
		for (int i = 0; i < got; i++) {
			known[block + i].latest = version;
			fill_block(data, 512, block + i, version);
			fill_block(tag, TAG, block + i, version);
			if (one_of(8))
				go_on();
			journal_fill(&journal, entry + i, data, tag);
		}
		if (is_cut)
			break;
		mark = journal_filled(&journal, entry, got);
		for (int i = 0; i < got; i++)
			known[block + i].acked = version;
		block += got;
		count -= got;
	}
	return mark;
}

static void wait_durable(uint64_t mark)
{
	while (journal_is_durable(&journal, mark) == 0)
		if (!wait_on())
			break;
	assert_true(is_cut || journal_is_durable(&journal, mark) == 1);
}

static void flush(void)
{
	uint32_t covered[BLOCKS];

	for (unsigned i = 0; i < BLOCKS; i++)
		covered[i] = known[i].acked;
	wait_durable(journal_flush(&journal));
	for (unsigned i = 0; i < BLOCKS && !is_cut; i++)
		known[i].durable = covered[i];
}

static void write_fua(unsigned block, unsigned count)
{
	uint64_t mark = write_blocks(block, count);

	if (is_cut)
		return;
	journal_commit(&journal, mark);
	wait_durable(mark);
	for (unsigned i = 0; i < count && !is_cut; i++)
		known[block + i].durable = known[block + i].acked;
}

static void start(unsigned buffers)
{
	memset(steps, 0, sizeof(steps));
	reading.open = false;
	memory = calloc(buffers, layout.section_len);
	assert_non_null(memory);
	assert_int_equal(journal_init(&journal, &layout, "disk", memory, buffers), 0);
}

static void stop(void)
{
	journal_destroy(&journal);
	free(memory);
}

static void close_and_open(unsigned buffers)
{
	flush();
	if (is_cut)
		return;
	end_read();
	journal_close(&journal);
	while (go_on())
		continue;
	if (is_cut)
		return;
	assert_int_equal(journal.state, JOURNAL_CLOSED);
	stop();
	start(buffers);
	while (go_on())
		continue;
	assert_true(is_cut || journal.state == JOURNAL_RUNNING);
	assert_true(is_cut || journal.plan.take == 0);
	assert_true(is_cut || !journal.plan.erase);
}

#define OPS 7
static void do_op(unsigned op, unsigned buffers)
{
	switch (op) {
	case 0:
		write_blocks(4, 9);
		break;
	case 1:
		write_blocks(7, 1);
		break;
	case 2:
		flush();
		break;
	case 3:
		write_fua(6, 3);
		break;
	case 4:
		write_blocks(0, BLOCKS);
		break;
	case 5:
		begin_read(7);
		for (unsigned i = 0; i < 5; i++)
			go_on();
		break;
	case 6:
		close_and_open(buffers);
		break;
	}
	while (!is_cut && !one_of(4))
		go_on();
}

/* ---- the cut, and after ---- */

static void check_places(void)
{
	uint8_t data[512], tag[TAG];

	for (unsigned i = 0; i < BLOCKS; i++) {
		uint64_t offset = i * layout.block;
		uint32_t of;

		torn_disk_read(&disk, layout_data_at(&layout, offset), data, 512);
		torn_disk_read(&disk, layout_tag_at(&layout, offset), tag, TAG);
		of = version_of(data, 512, i);
		assert_int_equal(version_of(tag, TAG, i), of);
		assert_in_range(of, known[i].durable, known[i].latest);
		known[i].acked = known[i].durable = of;
	}
}

static void cut(enum torn kind)
{
	stop();
	is_cut = false;
	torn_disk_cut(&disk, kind, &random_state);
}

static int read_disk(void *opaque, uint64_t at, void *bytes, size_t len)
{
	(void)opaque;
	torn_disk_read(&disk, at, bytes, len);
	return 0;
}

static int write_disk(void *opaque, uint64_t at, const void *bytes, size_t len, bool fua)
{
	(void)opaque;
	if (is_cut)
		return -EIO;
	disk_write(at, bytes, len);
	if (fua && !is_cut)
		torn_disk_force(&disk, at, len, torn_disk_mark(&disk));
	return 0;
}

static int flush_disk(void *opaque)
{
	(void)opaque;
	if (is_cut)
		return -EIO;
	torn_disk_flush(&disk, torn_disk_mark(&disk));
	return 0;
}

static const char *reason(void *opaque, int errnum)
{
	(void)opaque;
	return strerror(errnum);
}

static const struct journal_io io = { read_disk, write_disk, flush_disk, reason, NULL, "disk" };

/* By who keeps no journal himself. */
static void recover(enum torn kind)
{
	struct error err;

	left = torn_random(&random_state) % 20;
	is_cut = false;
	journal_recover(&io, &layout, &err);
	is_cut = false;
	torn_disk_cut(&disk, kind, &random_state);
	if (torn_random(&random_state) % 2)
		return;
	left = -1;
	assert_int_equal(journal_recover(&io, &layout, &err), 0);
	assert_int_equal(journal_is_left(&io, &layout, &err), 0);
	check_places();
}

/* Opened once more; and cut in the middle of that, as often as it says. */
static void open_again(unsigned buffers, unsigned cuts, enum torn kind)
{
	if (torn_random(&random_state) % 8 == 0)
		recover(kind);
	for (; cuts > 0; cuts--) {
		left = torn_random(&random_state) % 60;
		start(buffers);
		while (go_on())
			continue;
		cut(kind);
	}
	left = -1;
	start(buffers);
	while (go_on())
		continue;
	assert_int_equal(journal.state, JOURNAL_RUNNING);
	check_places();
}

static void lay_out(unsigned sections)
{
	struct superblock superblock = {
		.tag_size = TAG,
		.block = 512,
		.log2_interleave = 3,
		.journal_sections = sections,
		.provided_sectors = BLOCKS,
		.fixed_padding = true,
	};
	struct error err;

	assert_int_equal(layout_make(&superblock, 1 << 20, "disk", &layout, &err), 0);
	assert_int_equal(layout.entries * 3, BLOCKS);
}

/* All blocks have version 0, and the journal was just made. */
static void make(unsigned sections)
{
	uint8_t bytes[512];
	uint8_t *section;

	version = 0;
	memset(known, 0, sizeof(known));
	if (made.size > 0 && layout.sections == sections) {
		torn_disk_copy(&disk, &made);
		return;
	}
	lay_out(sections);
	torn_disk_init(&disk, layout_data_at(&layout, (BLOCKS - 1) * 512) + 512);
	section = calloc(1, layout.section_len);
	for (unsigned i = 0; i < sections; i++) {
		journal_section_clear(&layout, section, true);
		journal_section_seal(&layout, section, i, 0);
		torn_disk_write(&disk, layout_section_at(&layout, i), section, layout.section_len);
	}
	free(section);
	for (unsigned i = 0; i < BLOCKS; i++) {
		fill_block(bytes, 512, i, 0);
		torn_disk_write(&disk, layout_data_at(&layout, i * 512), bytes, 512);
		fill_block(bytes, TAG, i, 0);
		torn_disk_write(&disk, layout_tag_at(&layout, i * 512), bytes, TAG);
	}
	torn_disk_flush(&disk, torn_disk_mark(&disk));
	disk.count = 0;
	torn_disk_free(&made);
	torn_disk_copy(&made, &disk);
}

/* Whether it was cut: if not there is no later place to cut it. */
static bool run(unsigned sections, unsigned buffers, unsigned ops, long cut_at, uint64_t seed)
{
	bool was_cut;

	make(sections);
	random_state = seed;
	left = -1;
	is_cut = false;
	start(buffers);
	while (go_on())
		continue;
	left = cut_at;
	for (unsigned i = 0; i < 3 && !is_cut; i++, ops /= OPS)
		do_op(ops % OPS, buffers);
	if (!is_cut)
		close_and_open(buffers);
	was_cut = is_cut;
	end_read();
	cut(seed % TORN_KINDS);
	open_again(buffers, seed / TORN_KINDS % 3, seed % TORN_KINDS);
	write_blocks(0, BLOCKS);
	flush();
	begin_read(5);
	end_read();
	if (seed % 2)
		close_and_open(buffers);
	cut(TORN_NOTHING);
	open_again(buffers, 0, TORN_NOTHING);
	assert_int_equal(known[5].durable, version);
	stop();
	torn_disk_free(&disk);
	return was_cut;
}

static void every_three(unsigned sections, unsigned buffers, unsigned step)
{
	unsigned all = OPS * OPS * OPS;
	uint64_t seed = 1;

	for (unsigned ops = 0; ops < all; ops++)
		for (long at = ops % step; run(sections, buffers, ops, at, seed++); at += step)
			continue;
}

static void one_section(void **state)
{
	(void)state;
	every_three(1, 1, 23);
}

static void two_sections(void **state)
{
	(void)state;
	every_three(2, 2, 29);
	every_three(2, 1, 29);
}

static void three_sections(void **state)
{
	(void)state;
	every_three(3, 2, 23);
}

static void many_sections(void **state)
{
	(void)state;
	every_three(8, 3, 31);
	every_three(8, 8, 31);
}

/* Without anything that goes on beside it. */
static void put_quietly(unsigned block, unsigned count)
{
	uint8_t data[512], tag[TAG];
	uint32_t entry;

	version++;
	while (count > 0) {
		int got = journal_reserve(&journal, block, count, &entry);

		assert_true(got > 0);
		for (int i = 0; i < got; i++, block++) {
			fill_block(data, 512, block, version);
			fill_block(tag, TAG, block, version);
			journal_fill(&journal, entry + i, data, tag);
			known[block].latest = known[block].acked = version;
		}
		journal_filled(&journal, entry, got);
		count -= got;
	}
}

/* A durable block is copied though a newer one is in memory already: its place in the journal may be
 * written over together with that, and then neither is there. */
static void newest_not_durable(void **state)
{
	struct journal_work work;
	uint64_t freed;

	(void)state;
	make(2);
	random_state = 1;
	left = -1;
	is_cut = false;
	start(2);
	while (go_on())
		continue;
	write_fua(40, 1);
	while (go_on())
		continue;
	write_fua(6, 1); /* in the last section of the ring */
	put_quietly(6, 1);
	freed = journal.freed;
	while (go_on())
		continue;
	assert_int_equal(journal.committed, journal.open);
	assert_true(journal.freed > freed && journal.freed == journal.open);
	put_quietly(20, layout.entries - 1);
	put_quietly(44, layout.entries);
	/* Both sections are on their way, and only that gets there which the durable one was in. */
	assert_int_equal(journal_next(&journal, &work), JOURNAL_WRITE);
	assert_int_equal(work.count, 2);
	torn_disk_write(&disk, layout_section_at(&layout, 1), work.bytes + layout.section_len,
			layout.section_len);
	cut(TORN_ALL);
	open_again(2, 0, TORN_NOTHING);
	assert_int_equal(known[6].durable, 2);
	stop();
	torn_disk_free(&disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(newest_not_durable), cmocka_unit_test(one_section),
		cmocka_unit_test(two_sections),       cmocka_unit_test(three_sections),
		cmocka_unit_test(many_sections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
