/* The file that tells what a disk was, cut off at every write to it: all that the disk may be by then
 * counts, and nothing that is older, or was never meant to be. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/trust.h"
#include "torn-disk.h"

#define AREAS    300 /* hashes on three pages */
#define SIZE     (3 << 20)
#define UUID     "27ea5185-21db-482a-8ace-68b644c90ce2"
#define HEAD     (128 * 1024)
#define VERSIONS 64 /* that an area may have on its way */

static struct torn_disk disk;
static struct trust trust;
static struct error err;
static long left; /* writes until the cut; less than 0: none */
static bool is_cut;
static uint64_t bad_from = UINT64_MAX, bad_to; /* bytes that can't be read */

static int file_read(void *file, uint64_t at, void *bytes, size_t len)
{
	(void)file;
	if (at < bad_to && at + len > bad_from)
		return -EIO;
	torn_disk_read(&disk, at, bytes, len);
	return 0;
}

static int file_write(void *file, uint64_t at, const void *bytes, size_t len)
{
	(void)file;
	torn_disk_write(&disk, at, bytes, len);
	is_cut = is_cut || left-- == 0;
	return is_cut ? -EIO : 0;
}

static int file_sync(void *file)
{
	(void)file;
	is_cut = is_cut || left-- == 0;
	if (is_cut)
		return -EIO;
	torn_disk_flush(&disk, torn_disk_mark(&disk));
	disk.count = 0;
	return 0;
}

static const struct trust_io io = {
	.read = file_read,
	.write = file_write,
	.sync = file_sync,
	.name = "disk.trust",
};

static struct trust_volume usual(void)
{
	return (struct trust_volume){
		.uuid = UUID,
		.size = AREAS * (UINT64_C(16) << 20) - 4096,
		.area_len = 16 << 20,
		.block = 4096,
		.tag_size = 28,
	};
}

static void make(const char *text)
{
	struct trust_volume volume = usual();

	left = -1;
	is_cut = false;
	torn_disk_init(&disk, SIZE);
	assert_int_equal(trust_make(&io, &volume, text, &err), 0);
	assert_int_equal(trust_open(&trust, &io, &err), 0);
}

static void forget(void)
{
	trust_destroy(&trust);
	torn_disk_free(&disk);
}

static void open_again(void)
{
	trust_destroy(&trust);
	left = -1;
	is_cut = false;
	assert_int_equal(trust_open(&trust, &io, &err), 0);
}

static const uint8_t *hash_of(uint64_t area, uint32_t version)
{
	static uint8_t hash[TRUST_HASH];

	memset(hash, 0x5a, sizeof(hash));
	memcpy(hash, &area, sizeof(area));
	memcpy(hash + sizeof(area), &version, sizeof(version));
	return hash;
}

/* ---- one thing after another ---- */

static void nothing_is_known_at_first(void **state)
{
	(void)state;
	make("{}");
	assert_int_equal(trust_check(&trust, 7, hash_of(7, 1)), TRUST_UNKNOWN);
	assert_int_equal(trust_saw(&trust, 7, hash_of(7, 1), &err), 0);
	assert_int_equal(trust_check(&trust, 7, hash_of(7, 1)), TRUST_SAME);
	assert_int_equal(trust_check(&trust, 7, hash_of(7, 2)), TRUST_OTHER);
	assert_int_equal(trust_check(&trust, 8, hash_of(7, 1)), TRUST_UNKNOWN);
	assert_int_equal(trust_checkpoint(&trust, &err), 0);
	open_again();
	assert_int_equal(trust_check(&trust, 7, hash_of(7, 1)), TRUST_SAME);
	assert_int_equal(trust_check(&trust, 7, hash_of(7, 2)), TRUST_OTHER);
	forget();
}

static void what_is_written_counts_with_what_was(void **state)
{
	(void)state;
	make("{}");
	trust_saw(&trust, 7, hash_of(7, 1), &err);
	for (uint32_t i = 2; i <= 5; i++)
		assert_int_equal(trust_intend(&trust, 7, hash_of(7, i), &err), 0);
	assert_int_equal(trust_sync(&trust, &err), 0);
	open_again();
	for (uint32_t i = 1; i <= 5; i++)
		assert_int_equal(trust_check(&trust, 7, hash_of(7, i)), TRUST_SAME);
	assert_int_equal(trust_wrote(&trust, 7, hash_of(7, 3), &err), 0);
	for (uint32_t i = 1; i <= 5; i++)
		assert_int_equal(trust_check(&trust, 7, hash_of(7, i)),
				 i < 3 ? TRUST_OTHER : TRUST_SAME);
	assert_int_equal(trust_sync(&trust, &err), 0);
	open_again();
	for (uint32_t i = 1; i <= 5; i++)
		assert_int_equal(trust_check(&trust, 7, hash_of(7, i)),
				 i < 3 ? TRUST_OTHER : TRUST_SAME);
	assert_int_equal(trust_saw(&trust, 7, hash_of(7, 4), &err), 0);
	for (uint32_t i = 1; i <= 5; i++)
		assert_int_equal(trust_check(&trust, 7, hash_of(7, i)),
				 i == 4 ? TRUST_SAME : TRUST_OTHER);
	forget();
}

/* Which of two heads is the newer can't be known if one can't be read: the older one isn't taken for it. */
/* And in between another, as it was before: that isn't to be taken again. */
static void an_area_becomes_one_thing_twice(void **state)
{
	static const uint32_t becomes[] = { 2, 1, 2 };

	(void)state;
	make("{}");
	trust_saw(&trust, 7, hash_of(7, 1), &err);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(trust_intend(&trust, 7, hash_of(7, becomes[i]), &err), 0);
	assert_int_equal(trust_wrote(&trust, 7, hash_of(7, 2), &err), 0);
	assert_int_equal(trust_sync(&trust, &err), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(trust_check(&trust, 7, hash_of(7, 1)), TRUST_OTHER);
		assert_int_equal(trust_check(&trust, 7, hash_of(7, 2)), TRUST_SAME);
		assert_false(trust_is_in_doubt(&trust, 7));
		open_again();
	}
	forget();
}

static void a_head_that_cant_be_read_is_an_error(void **state)
{
	(void)state;
	make("{}");
	trust_saw(&trust, 7, hash_of(7, 1), &err);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(trust_checkpoint(&trust, &err), 0);
		trust_destroy(&trust);
		bad_from = i * HEAD;
		bad_to = bad_from + 1;
		assert_int_equal(trust_open(&trust, &io, &err), -EIO);
		bad_from = UINT64_MAX;
		bad_to = 0;
		open_again();
	}
	assert_int_equal(trust_check(&trust, 7, hash_of(7, 1)), TRUST_SAME);
	forget();
}

/* More than a log has room for; and what is on its way all that time stays so. */
static void a_log_that_is_full_begins_anew(void **state)
{
	(void)state;
	make("{}");
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(trust_intend(&trust, i, hash_of(i, 9), &err), 0);
	for (uint32_t i = 1; i < 10000; i++) {
		assert_int_equal(trust_intend(&trust, 100, hash_of(100, i), &err), 0);
		assert_int_equal(trust_wrote(&trust, 100, hash_of(100, i), &err), 0);
	}
	assert_int_equal(trust_sync(&trust, &err), 0);
	assert_true(trust.generation >= 3);
	open_again();
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(trust_check(&trust, i, hash_of(i, 9)), TRUST_SAME);
	assert_int_equal(trust_check(&trust, 100, hash_of(100, 9999)), TRUST_SAME);
	assert_int_equal(trust_check(&trust, 100, hash_of(100, 9998)), TRUST_OTHER);
	forget();
}

/* Ten leaves on two pages, the last of 464 bytes. */
#define HASHED_TAGS 181

static void an_areas_hash_is_that_of_leaves(void **state)
{
	uint8_t tags[HASHED_TAGS * 28], leaves[10 * TRUST_HASH], pages[2 * TRUST_HASH];
	uint8_t whole[TRUST_HASH], parts[TRUST_HASH];
	static const uint8_t wanted[] = { 0x7d, 0x0b, 0x98, 0xb7, 0xf3, 0xe0, 0xcd, 0x7e,
					  0x8f, 0xa7, 0xde, 0xbf, 0xf6, 0xca, 0x9c, 0x21,
					  0xf2, 0x1d, 0xd3, 0x01, 0xd0, 0x3e, 0x3a, 0x01,
					  0xa8, 0x91, 0x00, 0xb7, 0xcd, 0xbb, 0x73, 0x43 };

	(void)state;
	for (size_t i = 0; i < sizeof(tags); i++)
		tags[i] = i * 7;
	assert_int_equal(trust_hash(tags, HASHED_TAGS, 28, whole), 0);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(trust_hash_leaf(tags + i * TRUST_LEAF,
						 i < 9 ? TRUST_LEAF : HASHED_TAGS * 28 % TRUST_LEAF,
						 leaves + i * TRUST_HASH),
				 0);
	assert_int_equal(trust_hash_page(leaves, 8, pages), 0);
	assert_int_equal(trust_hash_page(leaves + 8 * TRUST_HASH, 2, pages + TRUST_HASH), 0);
	assert_int_equal(trust_hash_pages(pages, 2, parts), 0);
	assert_memory_equal(whole, parts, TRUST_HASH);
	assert_memory_equal(whole, wanted, TRUST_HASH);
}

/* ---- leaves in doubt ---- */

#define LEAVES 20

static void fill_leaves(uint8_t *leaves, unsigned version)
{
	for (unsigned i = 0; i < LEAVES; i++)
		memcpy(leaves + i * TRUST_HASH, hash_of(i, version), TRUST_HASH);
}

static void set_leaf(uint8_t *leaves, unsigned leaf, unsigned version)
{
	memcpy(leaves + leaf * TRUST_HASH, hash_of(leaf, version), TRUST_HASH);
}

static void hash_all(const uint8_t *leaves, uint8_t *hash)
{
	uint8_t pages[3 * TRUST_HASH];

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(trust_hash_page(leaves + i * 8 * TRUST_HASH, i < 2 ? 8 : 4,
						 pages + i * TRUST_HASH),
				 0);
	assert_int_equal(trust_hash_pages(pages, 3, hash), 0);
}

static void saw_all(const uint8_t *leaves)
{
	uint8_t hash[TRUST_HASH];

	hash_all(leaves, hash);
	assert_int_equal(trust_saw(&trust, 7, hash, &err), 0);
	assert_int_equal(trust_sync(&trust, &err), 0);
}

static void intend_leaf(unsigned leaf, unsigned is, unsigned becomes)
{
	uint8_t hash[TRUST_HASH];

	memcpy(hash, hash_of(leaf, is), TRUST_HASH);
	assert_int_equal(trust_intend_leaf(&trust, 7, leaf, hash, hash_of(leaf, becomes), &err), 0);
}

static void assert_verdict(const uint8_t *leaves, enum trust_verdict verdict)
{
	assert_int_equal(trust_check_leaves(&trust, 7, leaves, LEAVES), verdict);
}

/* Of leaf 3 there were two writes, of 19 one. */
static void assert_mixed(uint8_t *leaves)
{
	for (unsigned three = 1; three <= 4; three++)
		for (unsigned last = 1; last <= 3; last++) {
			set_leaf(leaves, 3, three);
			set_leaf(leaves, 19, last);
			assert_verdict(leaves, three <= 3 && last <= 2 ? TRUST_SAME : TRUST_OTHER);
		}
	set_leaf(leaves, 3, 2);
	set_leaf(leaves, 19, 2);
	set_leaf(leaves, 4, 2);
	assert_verdict(leaves, TRUST_OTHER);
	set_leaf(leaves, 4, 1);
}

static void each_leaf_is_what_it_was_or_became(void **state)
{
	uint8_t leaves[LEAVES * TRUST_HASH];

	(void)state;
	make("{}");
	fill_leaves(leaves, 1);
	saw_all(leaves);
	assert_false(trust_is_in_doubt(&trust, 7));
	intend_leaf(3, 1, 2);
	intend_leaf(19, 1, 2);
	intend_leaf(3, 2, 3);
	assert_int_equal(trust_sync(&trust, &err), 0);
	assert_mixed(leaves);
	open_again();
	assert_true(trust_is_in_doubt(&trust, 7));
	assert_mixed(leaves);
	assert_int_equal(trust_checkpoint(&trust, &err), 0);
	open_again();
	assert_mixed(leaves);
	/* Then it is one of them, and that alone. */
	set_leaf(leaves, 3, 2);
	saw_all(leaves);
	open_again();
	assert_false(trust_is_in_doubt(&trust, 7));
	assert_verdict(leaves, TRUST_SAME);
	set_leaf(leaves, 3, 1);
	assert_verdict(leaves, TRUST_OTHER);
	set_leaf(leaves, 3, 3);
	assert_verdict(leaves, TRUST_OTHER);
	forget();
}

/* The same again needs no record; and what doesn't fit into the log goes to the next one. */
static void leaves_that_are_written_again_and_again_have_room(void **state)
{
	uint8_t leaves[LEAVES * TRUST_HASH];
	size_t before;

	(void)state;
	make("{}");
	fill_leaves(leaves, 1);
	saw_all(leaves);
	intend_leaf(0, 1, 2);
	before = trust.log_count;
	intend_leaf(0, 2, 1);
	intend_leaf(0, 1, 2);
	assert_int_equal(trust.log_count, before);
	for (unsigned version = 2; version < 1000; version++)
		for (unsigned leaf = 0; leaf < 8; leaf++) {
			assert_int_equal(trust_make_room(&trust, 2, &err), 0);
			intend_leaf(leaf, version - 1, version);
		}
	assert_int_equal(trust_make_room(&trust, TRUST_RECORDS, &err), 0);
	assert_int_equal(trust_make_room(&trust, TRUST_RECORDS, &err), 0);
	assert_int_equal(trust_sync(&trust, &err), 0);
	open_again();
	for (unsigned leaf = 0; leaf < 8; leaf++)
		set_leaf(leaves, leaf, 1 + leaf * 100);
	assert_verdict(leaves, TRUST_SAME);
	forget();
}

/* ---- the volume and its header ---- */

static void another_volume_is_refused(void **state)
{
	struct trust_volume volume = usual();

	(void)state;
	make("{}");
	assert_int_equal(trust_check_volume(&trust, &volume, &err), 0);
	volume.size += 4096;
	assert_int_equal(trust_check_volume(&trust, &volume, &err), -ESTALE);
	assert_string_equal(err.text,
			    "disk.trust: the volume has another size or other tags than it had");
	strcpy(volume.uuid, "other");
	assert_int_equal(trust_check_volume(&trust, &volume, &err), -ESTALE);
	assert_string_equal(err.text, "disk.trust: of another volume, with the UUID " UUID);
	forget();
}

static void another_header_is_refused(void **state)
{
	static const char *one = "{\"keyslots\":{\"0\":{}}}";
	static const char *two = "{\"keyslots\":{\"0\":{},\"1\":{}}}";

	(void)state;
	make("{}");
	assert_int_equal(trust_seal(&trust, one, "key", 3, &err), 0);
	open_again();
	assert_int_equal(trust.volume.seals, 1);
	assert_int_equal(trust_check_header(&trust, one, &err), 0);
	assert_int_equal(trust_check_header(&trust, two, &err), -ESTALE);
	assert_string_equal(err.text, "disk.trust: the header isn't the one that was sealed: key "
				      "slot 1 is new");
	assert_int_equal(trust_check_key(&trust, "key", 3, &err), 0);
	assert_int_equal(trust_check_key(&trust, "kez", 3, &err), -ESTALE);
	assert_string_equal(err.text,
			    "disk.trust: the header opens with another volume key than the "
			    "one that sealed it");
	assert_int_equal(trust_seal(&trust, two, "key", 3, &err), 0);
	open_again();
	assert_int_equal(trust_check_header(&trust, one, &err), -ESTALE);
	assert_int_equal(trust_check_key(&trust, "key", 3, &err), 0);
	forget();
}

static void what_is_no_such_file_is_refused(void **state)
{
	uint32_t version = 2;

	(void)state;
	torn_disk_init(&disk, SIZE);
	assert_int_equal(trust_open(&trust, &io, &err), -EINVAL);
	torn_disk_free(&disk);
	make("{}");
	trust_destroy(&trust);
	torn_disk_write(&disk, HEAD + 40, "x", 1);
	assert_int_equal(trust_open(&trust, &io, &err), -EINVAL);
	assert_string_equal(err.text,
			    "disk.trust: this is no file that ndio trust made, or it is damaged");
	torn_disk_write(&disk, HEAD + 8, &version, sizeof(version));
	assert_int_equal(trust_open(&trust, &io, &err), -ENOTSUP);
	torn_disk_free(&disk);
}

/* ---- cut off ---- */

/* What each area may be. Versions count up. */
static struct {
	uint32_t settled;  /* trust_wrote() or trust_saw() said so */
	uint32_t certain;  /* and it was synced: nothing older counts */
	uint32_t intended; /* up to this; */
	uint32_t synced;   /* and that is safe */
} areas[AREAS];

/* Some areas are written more than others, so that they have more on their way. */
static uint64_t pick(uint64_t *random)
{
	return torn_random(random) % 2 ? torn_random(random) % 3 : torn_random(random) % AREAS;
}

static void all_is_safe(void)
{
	for (unsigned i = 0; i < AREAS; i++) {
		areas[i].certain = areas[i].settled;
		areas[i].synced = areas[i].intended;
	}
}

static void do_something(uint64_t *random)
{
	uint64_t area = pick(random);
	int ret = 0;

	switch (torn_random(random) % 16) {
	case 0 ... 7:
		if (areas[area].settled == 0) {
			ret = trust_saw(&trust, area, hash_of(area, 1), &err);
			areas[area].settled = areas[area].intended = 1;
			break;
		}
		if (areas[area].intended - areas[area].settled >= VERSIONS)
			break;
		ret = trust_intend(&trust, area, hash_of(area, areas[area].intended + 1), &err);
		areas[area].intended++;
		break;
	case 8 ... 11:
		if (areas[area].settled == areas[area].synced || areas[area].synced == 0)
			break;
		ret = trust_wrote(&trust, area, hash_of(area, areas[area].settled + 1), &err);
		areas[area].settled++;
		break;
	case 12:
		ret = trust_checkpoint(&trust, &err);
		if (ret == 0)
			all_is_safe();
		break;
	default:
		ret = trust_sync(&trust, &err);
		if (ret == 0)
			all_is_safe();
		break;
	}
	assert_true(ret == 0 || is_cut);
}

static void check_areas(void)
{
	for (uint64_t i = 0; i < AREAS; i++) {
		uint32_t newest = areas[i].synced;

		for (uint32_t v = 1; v <= areas[i].intended + 1; v++) {
			enum trust_verdict verdict = trust_check(&trust, i, hash_of(i, v));

			if (v < areas[i].certain || v > areas[i].intended)
				assert_int_not_equal(verdict, TRUST_SAME);
			if (areas[i].certain > 0 && v >= areas[i].settled && v <= newest)
				assert_int_equal(verdict, TRUST_SAME);
		}
	}
}

/* The disk is what it was settled to be, or something that was intended since: whoever opens it next
 * sees that. */
static void see_areas(uint64_t *random)
{
	for (uint64_t i = 0; i < AREAS; i++) {
		uint32_t most =
			areas[i].synced > areas[i].settled ? areas[i].synced : areas[i].settled;
		uint32_t is = areas[i].settled;

		if (is == 0)
			continue;
		if (areas[i].certain == 0)
			most = is = 1;
		is += torn_random(random) % (most - is + 1);
		assert_int_equal(trust_saw(&trust, i, hash_of(i, is), &err), 0);
		areas[i].settled = areas[i].intended = is;
	}
}

static void cut_and_open(enum torn kind, uint64_t *random)
{
	torn_disk_cut(&disk, kind, random);
	open_again();
	check_areas();
	see_areas(random);
	assert_int_equal(trust_sync(&trust, &err), 0);
	all_is_safe();
	check_areas();
}

static void every_cut(enum torn kind)
{
	bool more = true;

	for (long at = 0; more; at++) {
		uint64_t random = at;

		memset(areas, 0, sizeof(areas));
		make("{}");
		left = at;
		for (unsigned i = 0; i < 150 && !is_cut; i++)
			do_something(&random);
		more = is_cut;
		cut_and_open(kind, &random);
		left = torn_random(&random) % 30;
		for (unsigned i = 0; i < 100 && !is_cut; i++)
			do_something(&random);
		cut_and_open(kind, &random);
		forget();
	}
}

static void cut_off_with_nothing_of_the_rest(void **state)
{
	(void)state;
	every_cut(TORN_NOTHING);
}

static void cut_off_with_all_of_the_rest(void **state)
{
	(void)state;
	every_cut(TORN_ALL);
}

static void cut_off_with_the_first_of_the_rest(void **state)
{
	(void)state;
	every_cut(TORN_FIRST);
}

static void cut_off_with_any_of_the_rest(void **state)
{
	(void)state;
	every_cut(TORN_RANDOM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_known_at_first),
		cmocka_unit_test(what_is_written_counts_with_what_was),
		cmocka_unit_test(an_area_becomes_one_thing_twice),
		cmocka_unit_test(a_head_that_cant_be_read_is_an_error),
		cmocka_unit_test(a_log_that_is_full_begins_anew),
		cmocka_unit_test(an_areas_hash_is_that_of_leaves),
		cmocka_unit_test(each_leaf_is_what_it_was_or_became),
		cmocka_unit_test(leaves_that_are_written_again_and_again_have_room),
		cmocka_unit_test(another_volume_is_refused),
		cmocka_unit_test(another_header_is_refused),
		cmocka_unit_test(what_is_no_such_file_is_refused),
		cmocka_unit_test(cut_off_with_nothing_of_the_rest),
		cmocka_unit_test(cut_off_with_all_of_the_rest),
		cmocka_unit_test(cut_off_with_the_first_of_the_rest),
		cmocka_unit_test(cut_off_with_any_of_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
