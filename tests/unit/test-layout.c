/* The places of dm-integrity, against numbers that were worked out apart from this code, and
 * superblocks that say too much. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/layout.h"

#define MIB UINT64_C(1048576)

/* 4096-byte blocks, 28-byte tags, as aes-gcm-random has them. */
static const struct superblock usual = {
	.tag_size = 28,
	.block = 4096,
	.log2_interleave = 15,
	.journal_sections = 62,
	.provided_sectors = 2066440,
	.fixed_padding = true,
};

static void layout_of(const struct superblock *superblock, uint64_t room, struct layout *layout)
{
	struct error err = { "" };

	assert_int_equal(layout_make(superblock, room, "disk", layout, &err), 0);
}

static void made_as_the_kernel_does(void **state)
{
	static const struct {
		uint64_t room;
		unsigned tag_size, block;
		uint32_t sections;
		uint64_t provided;
	} known[] = {
		{ 32 * MIB, 28, 4096, 1, 64816 },      { 32 * MIB, 32, 512, 5, 60992 },
		{ 1024 * MIB, 28, 4096, 62, 2066440 }, { 1024 * MIB, 48, 512, 256, 1900544 },
		{ 32 * MIB, 96, 512, 12, 52760 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct superblock superblock;
		struct layout layout;
		struct error err;

		assert_int_equal(superblock_make(&superblock, known[i].block, known[i].tag_size,
						 known[i].room, "disk", &err),
				 0);
		assert_int_equal(superblock.journal_sections, known[i].sections);
		assert_int_equal(superblock.provided_sectors, known[i].provided);
		layout_of(&superblock, known[i].room, &layout);
		assert_int_equal(layout.size, known[i].provided * 512);
		/* What is a block more doesn't fit. */
		superblock.provided_sectors += 8;
		assert_int_equal(layout_make(&superblock, known[i].room, "disk", &layout, &err),
				 -EINVAL);
	}
}

static void too_small_a_disk_is_refused(void **state)
{
	struct superblock superblock;
	struct error err;

	(void)state;
	for (uint64_t room = 0; room <= 65536; room += 4096)
		assert_int_equal(superblock_make(&superblock, 4096, 28, room, "disk", &err),
				 -ENOSPC);
	assert_non_null(strstr(err.text, "disk: too small"));
	assert_int_equal(superblock_make(&superblock, 4096, 28, MIB, "disk", &err), 0);
}

static void journal_is_where_it_is(void **state)
{
	struct layout layout;

	(void)state;
	layout_of(&usual, 1024 * MIB, &layout);
	assert_int_equal(layout.entry_len, 104);
	assert_int_equal(layout.entries, 32);
	assert_int_equal(layout.section_sectors, 264);
	assert_int_equal(layout_section_at(&layout, 0), 4096);
	assert_int_equal(layout_section_at(&layout, 61), (8 + 61 * 264) * 512);
	assert_int_equal(layout_entry_data(&layout, 0), 8);
	assert_int_equal(layout_entry_data(&layout, 31), 8 + 31 * 8);
}

static void data_and_tags_are_where_they_are(void **state)
{
	struct superblock old = usual;
	struct layout layout;
	const uint64_t areas = 8 + 62 * 264, run = 224, interleave = 32768;

	(void)state;
	layout_of(&usual, 1024 * MIB, &layout);
	assert_int_equal(layout.areas_at, areas * 512);
	assert_int_equal(layout.area_tags, run * 512);
	assert_int_equal(layout.area_blocks, 4096);
	assert_int_equal(layout_data_at(&layout, 0), (areas + run) * 512);
	assert_int_equal(layout_tag_at(&layout, 0), areas * 512);
	assert_int_equal(layout_tag_at(&layout, 4096), areas * 512 + 28);
	assert_int_equal(layout_data_at(&layout, 16 * MIB - 4096), (areas + run + 32760) * 512);
	assert_int_equal(layout_tag_at(&layout, 16 * MIB - 4096), areas * 512 + 4095 * 28);
	assert_int_equal(layout_data_at(&layout, 48 * MIB + 8192),
			 (areas + 3 * interleave + 4 * run + 16) * 512);
	assert_int_equal(layout_tag_at(&layout, 48 * MIB + 8192),
			 (areas + 3 * (interleave + run)) * 512 + 2 * 28);

	old.fixed_padding = false;
	old.provided_sectors = 2050000;
	layout_of(&old, 1024 * MIB, &layout);
	assert_int_equal(layout.area_tags, 256 * 512);
}

static void what_was_written_is_read(void **state)
{
	static const uint8_t first[] = { 'i', 'n', 't', 'e', 'g', 'r', 't', 0,    4,    15,
					 28,  0,   62,  0,   0,   0,   8,   0x88, 0x1f, 0,
					 0,   0,   0,   0,   8,   0,   0,   0,    3,    0 };
	struct superblock superblock, old = usual;
	uint8_t bytes[SUPERBLOCK_AREA], again[SUPERBLOCK_AREA];
	struct error err;

	(void)state;
	memset(bytes, 0xff, sizeof(bytes));
	superblock_write(&usual, bytes);
	assert_memory_equal(bytes, first, sizeof(first));
	for (size_t i = sizeof(first); i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], 0);
	assert_int_equal(superblock_read(bytes, "disk", &superblock, &err), 0);
	superblock_write(&superblock, again);
	assert_memory_equal(again, bytes, sizeof(bytes));
	old.fixed_padding = false;
	superblock_write(&old, bytes);
	assert_int_equal(bytes[8], 1);
	assert_int_equal(superblock_read(bytes, "disk", &superblock, &err), 0);
	assert_false(superblock.fixed_padding);
}

/* The superblock with this byte changed. */
static void refused(size_t at, uint8_t value, int error, const char *why)
{
	struct superblock superblock;
	uint8_t bytes[SUPERBLOCK_AREA];
	struct error err;

	superblock_write(&usual, bytes);
	bytes[at] = value;
	assert_int_equal(superblock_read(bytes, "disk", &superblock, &err), error);
	if (!strstr(err.text, why))
		fail_msg("byte %zu is %u: %s", at, value, err.text);
}

static void what_is_not_ours_is_refused_by_name(void **state)
{
	(void)state;
	refused(0, 'I', -EINVAL, "there is no superblock");
	refused(20 + 4, 8 | 1, -ENOTSUP, "a journal with a MAC");
	refused(20 + 4, 8 | 2, -ENOTSUP, "tags that are being calculated");
	refused(20 + 4, 8 | 4, -ENOTSUP, "a bitmap in place of a journal");
	refused(20 + 4, 8 | 16, -ENOTSUP, "a keyed superblock");
	refused(20 + 4, 8 | 32, -ENOTSUP, "tags in the disk's own sectors");
	refused(20 + 4, 8 | 64, -ENOTSUP, "flags 0x48");
	refused(20 + 7, 0x80, -ENOTSUP, "flags 0x80000008");
	refused(8, 2, -ENOTSUP, "version 2");
	refused(8, 6, -ENOTSUP, "version 6");
	refused(8, 1, -EINVAL, "version and flags");
	refused(9, 2, -EINVAL, "impossible");
	refused(9, 32, -EINVAL, "impossible");
	refused(10, 0, -EINVAL, "impossible");
	refused(12, 0, -EINVAL, "impossible");
	refused(28, 4, -EINVAL, "impossible");
}

static void does_not_fit(const struct superblock *superblock, uint64_t room)
{
	struct layout layout;
	struct error err = { "" };

	assert_int_equal(layout_make(superblock, room, "disk", &layout, &err), -EINVAL);
	assert_non_null(strstr(err.text, "disk: integrity: "));
}

static void what_does_not_fit_is_refused(void **state)
{
	struct superblock superblock;

	(void)state;
	does_not_fit(&usual, 0);
	does_not_fit(&usual, 1000 * MIB);
	does_not_fit(&usual, 9 * MIB); /* not even the journal and a block */
	superblock = usual;
	superblock.provided_sectors = 0;
	does_not_fit(&superblock, UINT64_MAX);
	superblock.provided_sectors = 9; /* no whole blocks */
	does_not_fit(&superblock, UINT64_MAX);
	superblock.provided_sectors = UINT64_MAX - 7;
	does_not_fit(&superblock, UINT64_MAX);
	superblock = usual;
	superblock.tag_size = 504 - 8 - 64 + 1;
	does_not_fit(&superblock, UINT64_MAX);
	superblock.tag_size = 65535;
	does_not_fit(&superblock, UINT64_MAX);
	/* Areas of 4096 bytes, and 128 KiB of tags for each. */
	superblock = usual;
	superblock.fixed_padding = false;
	superblock.log2_interleave = 3;
	superblock.provided_sectors = UINT64_C(1) << 53;
	does_not_fit(&superblock, UINT64_MAX);
}

/* Whatever it says, what is accepted lies within the device. */
/* All of it would be read. */
static void a_journal_has_an_end(void **state)
{
	struct superblock superblock = {
		.tag_size = 28,
		.block = 4096,
		.log2_interleave = 15,
		.journal_sections = 1,
		.provided_sectors = 8,
		.fixed_padding = true,
	};
	struct layout layout;
	struct error err;

	(void)state;
	assert_int_equal(layout_make(&superblock, UINT64_C(1) << 43, "disk", &layout, &err), 0);
	superblock.journal_sections = (UINT64_C(4) << 30) / layout.section_len;
	assert_int_equal(layout_make(&superblock, UINT64_C(1) << 43, "disk", &layout, &err), 0);
	superblock.journal_sections++;
	assert_int_equal(layout_make(&superblock, UINT64_C(1) << 43, "disk", &layout, &err),
			 -ENOTSUP);
	assert_string_equal(err.text,
			    "disk: integrity: a journal of more than 4 GiB: not supported");
}

static void nothing_lies_outside(void **state)
{
	unsigned seed = 1, accepted = 0;
	struct error err;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		uint64_t room = (uint64_t)rand_r(&seed) << (rand_r(&seed) % 34);
		struct superblock superblock = {
			.tag_size = 1 + rand_r(&seed) % 500,
			.block = 512 << rand_r(&seed) % 4,
			.log2_interleave = 3 + rand_r(&seed) % 29,
			.journal_sections = 1 + (rand_r(&seed) >> (rand_r(&seed) % 32)),
			.provided_sectors = (uint64_t)rand_r(&seed) << (rand_r(&seed) % 34),
			.fixed_padding = rand_r(&seed) % 2,
		};
		struct layout layout;

		if (layout_make(&superblock, room, "disk", &layout, &err) < 0)
			continue;
		accepted++;
		assert_true(layout_section_at(&layout, layout.sections - 1) + layout.section_len <=
			    layout_tag_at(&layout, 0));
		assert_true(layout_tag_at(&layout, layout.size - layout.block) + layout.tag_size <=
			    layout_data_at(&layout, layout.size - layout.block));
		assert_true(layout_data_at(&layout, layout.size - layout.block) <=
			    room - layout.block);
	}
	assert_true(accepted > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(made_as_the_kernel_does),
		cmocka_unit_test(too_small_a_disk_is_refused),
		cmocka_unit_test(journal_is_where_it_is),
		cmocka_unit_test(data_and_tags_are_where_they_are),
		cmocka_unit_test(what_was_written_is_read),
		cmocka_unit_test(what_is_not_ours_is_refused_by_name),
		cmocka_unit_test(what_does_not_fit_is_refused),
		cmocka_unit_test(a_journal_has_an_end),
		cmocka_unit_test(nothing_lies_outside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
