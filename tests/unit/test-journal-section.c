/* A section of a journal as bytes: what is put comes back, for all shapes; and it is dm-integrity's
 * own format, byte for byte where that can be said by hand. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/journal-section.h"

static struct layout layout;
static uint8_t *section;

static void lay_out(unsigned block, unsigned tag)
{
	struct superblock superblock = {
		.tag_size = tag,
		.block = block,
		.log2_interleave = 15,
		.journal_sections = 3,
		.provided_sectors = 4096,
		.fixed_padding = true,
	};
	struct error err;

	assert_int_equal(layout_make(&superblock, 64 << 20, "disk", &layout, &err), 0);
	free(section);
	section = calloc(1, layout.section_len);
	assert_non_null(section);
}

static int tear_down(void **state)
{
	(void)state;
	free(section);
	section = NULL;
	return 0;
}

static void fill(uint8_t *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = seed * 31 + i * 7 + (i >> 8);
}

static void put(unsigned entry, unsigned block, unsigned seed)
{
	uint8_t data[4096], tag[112];

	fill(data, sizeof(data), seed);
	fill(tag, sizeof(tag), seed + 1);
	journal_section_put(&layout, section, entry, (uint64_t)block * layout.block_sectors, data,
			    tag);
}

static void assert_block(const struct journal_block *is, unsigned block, unsigned seed)
{
	uint8_t data[4096], tag[112];

	fill(data, sizeof(data), seed);
	fill(tag, sizeof(tag), seed + 1);
	assert_int_equal(is->sector, block * layout.block_sectors);
	assert_memory_equal(is->data, data, layout.block);
	assert_memory_equal(is->tag, tag, layout.tag_size);
}

static void round_trip(void)
{
	struct journal_block blocks[168];
	uint8_t data[4096], tag[112];
	struct error err;
	unsigned sector;

	journal_section_clear(&layout, section, true);
	assert_true(journal_section_is_empty(&layout, section));
	for (unsigned i = 0; i < layout.entries; i++)
		if (i % 3 != 1)
			put(i, 400 - i, i);
	assert_false(journal_section_is_empty(&layout, section));
	journal_section_seal(&layout, section, 2, 3);
	assert_int_equal(journal_section_seqs(&layout, section, 2, &sector), 1 << 3);
	assert_int_equal(journal_section_seqs(&layout, section, 1, &sector), 0);
	assert_int_equal(sector, 0);
	for (unsigned i = 0; i < layout.entries; i++) {
		if (i % 3 == 1)
			continue;
		journal_section_get(&layout, section, i, data, tag);
		assert_block(&(struct journal_block){ (400 - i) * layout.block_sectors, data, tag },
			     400 - i, i);
	}
	size_t count = journal_section_blocks(&layout, section, "disk", blocks, &err);
	assert_int_equal(count, layout.entries - (layout.entries + 1) / 3);
	assert_int_equal(journal_blocks_order(blocks, count), count);
	for (size_t i = 0, entry = layout.entries; i < count; i++) {
		while (--entry % 3 == 1)
			continue;
		assert_block(&blocks[i], 400 - entry, entry);
	}
}

/* It fits together for all that LUKS2 may have. */
static void what_is_put_comes_back(void **state)
{
	(void)state;
	for (unsigned block = 512; block <= 4096; block *= 2)
		for (unsigned tag = 16; tag <= 112; tag += 4) {
			lay_out(block, tag);
			round_trip();
		}
}

/* Figures and offsets worked out by hand, for 4096-byte blocks with tags of 28 bytes: entries of 104
 * bytes, 4 of them in a sector. */
static void the_bytes_are_the_kernels(void **state)
{
	static const uint8_t sealed[][8] = {
		{ 0x22, 0x22, 0x22, 0x22, 0x27, 0x22, 0x22, 0x22 }, /* section 5, sector 0 */
		{ 0x2b, 0x22, 0x22, 0x22, 0x27, 0x22, 0x22, 0x22 }, /* sector 9 */
	};
	uint8_t data[4096], tag[28];

	(void)state;
	lay_out(4096, 28);
	assert_int_equal(layout.section_sectors, 264);
	fill(data, sizeof(data), 1);
	fill(tag, sizeof(tag), 2);
	journal_section_clear(&layout, section, true);
	journal_section_put(&layout, section, 17, 0x123 * 8, data, tag);
	journal_section_seal(&layout, section, 5, 1);
	assert_memory_equal(section + 504, sealed[0], 8);
	assert_memory_equal(section + 9 * 512 + 504, sealed[1], 8);
	/* Entry 17 is the third in sector 1. */
	const uint8_t *entry = section + 512 + 2 * 104;
	assert_memory_equal(entry, "\x18\x09\0\0\0\0\0\0", 8);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(entry + 8 + 8 * i, data + i * 512 + 504, 8);
	assert_memory_equal(entry + 72, tag, 28);
	/* Its data are behind those of 17 others. */
	assert_memory_equal(section + (8 + 17 * 8) * 512, data, 504);
	/* The first is unused. */
	assert_memory_equal(section, "\0\0\0\0\xff\xff\xff\xff", 8);
}

/* Of several of one sector the last one counts, whatever the order in memory of their entries. */
static void the_last_of_a_sector_counts(void **state)
{
	struct journal_block blocks[120];
	struct error err;
	size_t count;

	(void)state;
	lay_out(512, 16);
	assert_int_equal(layout.entries, 120);
	journal_section_clear(&layout, section, true);
	put(0, 5, 1);
	put(1, 7, 2);
	put(8, 5, 3); /* behind entry 0 in its sector */
	put(9, 6, 4);
	put(119, 7, 5);
	journal_section_seal(&layout, section, 0, 0);
	count = journal_section_blocks(&layout, section, "disk", blocks, &err);
	assert_int_equal(count, 5);
	assert_int_equal(journal_blocks_order(blocks, count), 3);
	assert_block(&blocks[0], 5, 3);
	assert_block(&blocks[1], 6, 4);
	assert_block(&blocks[2], 7, 5);
}

static void set_sector(unsigned entry, uint64_t sector)
{
	memcpy(section + entry % 8 * 512 + entry / 8 * layout.entry_len, &sector, 8);
}

static void what_is_unused_or_in_progress_is_passed_over(void **state)
{
	struct journal_block blocks[32];
	struct error err;

	(void)state;
	lay_out(4096, 28);
	journal_section_clear(&layout, section, true);
	put(3, 1, 1);
	put(4, 2, 2);
	set_sector(3, UINT64_C(0xfffffffe00000008));
	assert_int_equal(journal_section_blocks(&layout, section, "disk", blocks, &err), 1);
	assert_block(&blocks[0], 2, 2);
	set_sector(4, UINT64_C(0xffffffff00000010));
	assert_int_equal(journal_section_blocks(&layout, section, "disk", blocks, &err), 0);
	assert_false(journal_section_is_empty(&layout, section));
}

static void sectors_that_the_volume_has_not_are_refused(void **state)
{
	static const uint64_t bad[] = { 4096, 4, 1, UINT64_C(0x8000000000000000), 4095 };
	struct journal_block blocks[32];
	struct error err;

	(void)state;
	lay_out(4096, 28);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		journal_section_clear(&layout, section, true);
		put(3, 1, 1);
		set_sector(3, bad[i]);
		assert_int_equal(journal_section_blocks(&layout, section, "disk", blocks, &err),
				 -EINVAL);
		assert_ptr_equal(strstr(err.text, "disk: integrity: the journal has data for"),
				 err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_put_comes_back),
		cmocka_unit_test(the_bytes_are_the_kernels),
		cmocka_unit_test(the_last_of_a_sector_counts),
		cmocka_unit_test(what_is_unused_or_in_progress_is_passed_over),
		cmocka_unit_test(sectors_that_the_volume_has_not_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, tear_down);
}
