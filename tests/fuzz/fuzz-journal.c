/* Journals of volumes with integrity: sections with commit ids that fit, and then changed anywhere. They
 * are opened as a volume does, written to, closed and opened again. */
#include "fuzz.h"
#include "integrity/journal.h"

#define MAX_SECTIONS 6
#define SIZE         (1 << 20) /* bytes of data */

static struct layout layout;
static struct journal journal;
static uint8_t *disk, *memory; /* the journal's sections; and those in memory */
static unsigned buffers;

static void lay_out(struct fuzz_input *input)
{
	struct superblock superblock = {
		.tag_size = 16 + fuzz_take(input, 97),
		.block = 512 << fuzz_take(input, 4),
		.log2_interleave = 5,
		.journal_sections = 1 + fuzz_take(input, MAX_SECTIONS),
		.provided_sectors = SIZE / LAYOUT_SECTOR,
		.fixed_padding = true,
	};
	struct error err;

	fuzz_check(layout_make(&superblock, 64 << 20, "disk", &layout, &err) == 0);
	disk = calloc(layout.sections, layout.section_len);
	buffers = 1 + fuzz_take(input, layout.sections);
	memory = malloc(buffers * layout.section_len);
	fuzz_check(disk && memory);
}

static void make_section(struct fuzz_input *input, uint32_t section)
{
	uint8_t *bytes = disk + section * layout.section_len;
	uint8_t data[4096], tag[112];

	memset(data, section, sizeof(data));
	memset(tag, section, sizeof(tag));
	journal_section_clear(&layout, bytes, true);
	for (unsigned count = fuzz_take(input, 8); count > 0; count--)
		journal_section_put(&layout, bytes, fuzz_take(input, layout.entries),
				    fuzz_take(input, SIZE / layout.block) * layout.block_sectors,
				    data, tag);
	journal_section_seal(&layout, bytes, section, fuzz_take(input, JOURNAL_SEQS));
}

static void change(struct fuzz_input *input)
{
	uint64_t where = (uint64_t)fuzz_take(input, 1 << 16) << 16 | fuzz_take(input, 1 << 16);
	uint64_t all = layout.sections * layout.section_len;
	uint8_t *at = disk + where % all;

	for (unsigned len = fuzz_take(input, 16); len > 0 && at < disk + all; len--)
		*at++ = fuzz_take(input, 256);
}

/* What a volume would do, in memory; blocks go nowhere. */
static void act_all(void)
{
	struct journal_work work;
	enum journal_act act;
	size_t at, len;

	while ((act = journal_next(&journal, &work)) != JOURNAL_NOTHING) {
		at = work.section * layout.section_len;
		len = work.count * layout.section_len;
		fuzz_check(at + len <= layout.sections * layout.section_len);
		if (act == JOURNAL_READ)
			memcpy(work.bytes, disk + at, len);
		if (act == JOURNAL_WRITE)
			memcpy(disk + at, work.bytes, len);
		for (size_t i = 0; i < work.block_count; i++) {
			const struct journal_block *block = &work.blocks[i];

			fuzz_check(block->sector < SIZE / LAYOUT_SECTOR &&
				   block->sector % layout.block_sectors == 0);
			fuzz_check(i == 0 || block->sector > block[-1].sector);
			fuzz_check(block->data >= memory &&
				   block->data + layout.block <=
					   memory + buffers * layout.section_len);
		}
		journal_landed(&journal, act, 0);
		journal_validate(&journal);
	}
}

static void open_journal(void)
{
	fuzz_check(journal_init(&journal, &layout, "disk", memory, buffers) == 0);
	act_all();
	fuzz_check(journal.state == JOURNAL_RUNNING || journal.state == JOURNAL_FAILED);
	fuzz_check((journal.state == JOURNAL_FAILED) == (journal.why.text[0] != '\0'));
}

static void write_some(struct fuzz_input *input)
{
	uint8_t data[4096] = { 0 }, tag[112] = { 0 };

	while (input->len > 1) {
		uint64_t sector = fuzz_take(input, SIZE / layout.block) * layout.block_sectors;
		uint32_t entry;
		int got;

		while ((got = journal_reserve(&journal, sector, 1, &entry)) == 0)
			act_all();
		fuzz_check(got == 1);
		journal_fill(&journal, entry, data, tag);
		journal_filled(&journal, entry, 1);
		if (fuzz_take(input, 4) == 0)
			journal_flush(&journal);
		fuzz_check(journal_read(&journal, sector, data, tag));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };

	lay_out(&input);
	for (uint32_t i = 0; i < layout.sections; i++)
		make_section(&input, i);
	for (unsigned count = fuzz_take(&input, 8); count > 0; count--)
		change(&input);
	open_journal();
	if (journal.state == JOURNAL_RUNNING) {
		write_some(&input);
		journal_close(&journal);
		act_all();
		fuzz_check(journal.state == JOURNAL_CLOSED);
		journal_destroy(&journal);
		open_journal();
		fuzz_check(journal.state == JOURNAL_RUNNING);
		fuzz_check(journal.plan.take == 0 && !journal.plan.erase);
	}
	journal_destroy(&journal);
	free(disk);
	free(memory);
	return 0;
}
