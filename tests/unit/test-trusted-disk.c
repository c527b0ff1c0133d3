/* A disk that its owner trusts, by a trust file: whoever stores it can hand back nothing that is older or
 * was changed; and whoever is cut off, anywhere, finds it as he left it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/align.h"
#include "trusted-disk.h"

#define START 4096

static struct trusted_disk disk;

/* So many of each: an argument of the program. */
#define USUAL_ROUNDS 60
static unsigned rounds = USUAL_ROUNDS;

static uint8_t *copy_of(const struct torn_disk *from)
{
	uint8_t *copy = malloc(from->size);

	memcpy(copy, from->now, from->size);
	return copy;
}

/* ---- cut off ---- */

/* The program is gone, the server, or both. What is in doubt at each is there or isn't. */
enum crash { CRASH_CLIENT, CRASH_SERVER, CRASH_BOTH, CRASHES };

static void end_of(enum crash crash, enum torn kind, uint64_t *random)
{
	if (crash == CRASH_SERVER)
		trusted_disk_close(&disk);
	else
		trusted_disk_kill(&disk);
	if (crash != CRASH_CLIENT)
		torn_disk_cut(&disk.disk, kind, random);
	if (crash != CRASH_SERVER)
		torn_disk_cut(&disk.file, kind, random);
	disk.left = -1;
	disk.is_cut = disk.by_server = false;
}

static void open_and_check(void)
{
	int ret = trusted_disk_open(&disk);

	if (ret < 0)
		fail_msg("%s", disk.err.text);
	trusted_disk_check(&disk);
}

static void crash_at(long at, enum crash crash, enum torn kind, unsigned steps, uint64_t *random)
{
	disk.left = at;
	disk.by_server = crash == CRASH_SERVER;
	trusted_disk_walk(&disk, steps, random);
	end_of(crash, kind, random);
	open_and_check();
}

/* One course of events, cut off at each write and sync of disk and file; by default at some of them. */
static void every_cut(bool journal, enum crash crash)
{
	long step = rounds > USUAL_ROUNDS ? 1 : 8;
	bool more = true;

	for (long at = crash; more; at += step) {
		uint64_t random = 1;

		trusted_disk_init(&disk, journal);
		assert_int_equal(trusted_disk_open(&disk), 0);
		disk.left = at;
		disk.by_server = crash == CRASH_SERVER;
		trusted_disk_walk(&disk, 40, &random);
		more = disk.is_cut;
		random += at;
		end_of(crash, at % TORN_KINDS, &random);
		open_and_check();
		trusted_disk_close(&disk);
		trusted_disk_free(&disk);
	}
}

/* Who is cut off is handed back the disk as it was at first: of what was flushed nothing is older, of what
 * wasn't it may be. */
static void every_cut_and_old_disk(bool journal)
{
	unsigned found_out = 0;
	bool more = true;

	for (long at = 2; more; at += rounds > USUAL_ROUNDS ? 1 : 9) {
		uint64_t random = 4;
		uint8_t *old;

		trusted_disk_init(&disk, journal);
		old = copy_of(&disk.disk);
		assert_int_equal(trusted_disk_open(&disk), 0);
		disk.left = at;
		trusted_disk_walk(&disk, 40, &random);
		more = disk.is_cut;
		end_of(CRASH_CLIENT, TORN_NOTHING, &random);
		memcpy(disk.disk.now, old, disk.disk.size);
		assert_int_equal(trusted_disk_open(&disk), 0);
		for (unsigned i = 0; i < TRUSTED_BLOCKS; i++) {
			int64_t version = trusted_disk_read(&disk, i);

			found_out += version == -ESTALE;
			assert_true(version == -ESTALE || disk.flushed[i] == 1);
		}
		trusted_disk_kill(&disk);
		free(old);
		trusted_disk_free(&disk);
	}
	assert_true(found_out > 0);
}

static void a_walk_with_crashes(bool journal)
{
	uint64_t random = 2;

	trusted_disk_init(&disk, journal);
	assert_int_equal(trusted_disk_open(&disk), 0);
	for (unsigned i = 0; i < rounds; i++) {
		long at = torn_random(&random) % 100;

		disk.takes = i % 3 ? 0 : 1536; /* pages of tags go in parts */
		crash_at(at, torn_random(&random) % CRASHES, torn_random(&random) % TORN_KINDS,
			 torn_random(&random) % 100, &random);
		if (torn_random(&random) % 4)
			continue;
		trusted_disk_close(&disk);
		assert_int_equal(trusted_disk_open(&disk), 0);
	}
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

static void a_client_is_cut_off_anywhere(void **state)
{
	(void)state;
	every_cut(false, CRASH_CLIENT);
}

static void a_server_is_cut_off_anywhere(void **state)
{
	(void)state;
	every_cut(false, CRASH_SERVER);
}

static void both_are_cut_off_anywhere(void **state)
{
	(void)state;
	every_cut(false, CRASH_BOTH);
}

static void who_was_cut_off_takes_nothing_older(void **state)
{
	(void)state;
	every_cut_and_old_disk(false);
}

static void crashes_of_client_server_and_both(void **state)
{
	(void)state;
	a_walk_with_crashes(false);
}

static void with_a_journal_cut_off_anywhere(void **state)
{
	(void)state;
	every_cut(true, CRASH_CLIENT);
	every_cut(true, CRASH_SERVER);
	every_cut(true, CRASH_BOTH);
}

static void with_a_journal_nothing_older_is_taken(void **state)
{
	(void)state;
	every_cut_and_old_disk(true);
}

static void with_a_journal_crashes_of_client_server_and_both(void **state)
{
	(void)state;
	a_walk_with_crashes(true);
}

/* ---- who is seen when ---- */

static void write_by_another(void *opaque)
{
	struct target_queue *queue = disk.queue;

	disk.queue = opaque;
	assert_int_equal(trusted_disk_write(&disk, 3 * disk.layout.area_blocks, 1, false), 0);
	disk.queue = queue;
}

/* While one queue sweeps, another writes to an area of which nothing is known yet: that goes with the
 * same sweep. What the area was before isn't taken for the newest later. */
static void an_area_seen_during_a_sweep(void **state)
{
	const struct target_ops *ops;
	struct target_queue *other;
	uint64_t random = 5;

	(void)state;
	trusted_disk_init(&disk, false);
	trusted_disk_forget(&disk);
	assert_int_equal(trusted_disk_open(&disk), 0);
	ops = disk.target->ops;
	other = ops->queue_open(disk.target, 4, (struct bvec){ 0 }, &disk.err);
	assert_non_null(other);
	assert_int_equal(trusted_disk_write(&disk, 0, 1, false), 0);
	disk.below.opaque = other;
	disk.below.wrote = write_by_another;
	assert_int_equal(trusted_disk_flush(&disk), 0);
	assert_null(disk.below.wrote);
	assert_int_equal(trusted_disk_write(&disk, 1, 1, false), 0);
	disk.left = 2; /* the trust file is written and synced, and then it is over */
	assert_int_equal(trusted_disk_flush(&disk), -EIO);
	ops->queue_close(other);
	end_of(CRASH_CLIENT, TORN_ALL, &random);
	open_and_check();
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* Who was cut off before his flush left an area in doubt. Who reads it and loses the server loses nothing,
 * and isn't told that he did. */
static void doubts_are_no_loss(void **state)
{
	uint64_t random = 6;
	unsigned told;

	(void)state;
	trusted_disk_init(&disk, false);
	assert_int_equal(trusted_disk_open(&disk), 0);
	assert_int_equal(trusted_disk_write(&disk, 0, 1, true), 0);
	assert_int_equal(trusted_disk_write(&disk, 0, 1, false), 0);
	disk.left = 3; /* the file, its sync, the tags; not the flush */
	assert_int_equal(trusted_disk_flush(&disk), -EIO);
	end_of(CRASH_CLIENT, TORN_ALL, &random);
	assert_int_equal(trusted_disk_open(&disk), 0);
	assert_int_equal(trusted_disk_read(&disk, 0), disk.written[0]);
	told = disk.told;
	disk.is_cut = disk.by_server = true;
	end_of(CRASH_SERVER, TORN_ALL, &random);
	assert_int_equal(disk.told, told);
	open_and_check();
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* Tags of two areas are intended, and those of the second aren't written, by an error. The next sweep settles
 * what it can for want of room, and is cut off before it comes to them: they still are what they were. */
static void what_was_not_written_is_not_settled(void **state)
{
	uint64_t random = 8;

	(void)state;
	trusted_disk_init(&disk, false);
	assert_int_equal(trusted_disk_open(&disk), 0);
	assert_int_equal(trusted_disk_write(&disk, 0, 1, true), 0);
	assert_int_equal(trusted_disk_write(&disk, 0, 1, false), 0);
	assert_int_equal(trusted_disk_write(&disk, disk.layout.area_blocks, 1, false), 0);
	disk.by_server = true;
	disk.left = 0;
	assert_int_equal(trusted_disk_flush(&disk), -EIO);
	disk.is_cut = false;
	disk.left = 2; /* one area's tags, and a flush */
	disk.trust.pending_count += TRUST_LOG - 140;
	assert_int_equal(trusted_disk_flush(&disk), -EIO);
	end_of(CRASH_BOTH, TORN_NOTHING, &random);
	open_and_check();
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* A trust file that can't be written fails every flush, and is told of once. */
static void a_broken_file_is_told_once(void **state)
{
	uint64_t random = 7;

	(void)state;
	trusted_disk_init(&disk, false);
	assert_int_equal(trusted_disk_open(&disk), 0);
	assert_int_equal(trusted_disk_write(&disk, 0, 1, false), 0);
	disk.is_cut = true;
	for (int i = 0; i < 3; i++)
		assert_int_equal(trusted_disk_flush(&disk), -EIO);
	assert_int_equal(disk.told, 1);
	end_of(CRASH_CLIENT, TORN_ALL, &random);
	open_and_check();
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* ---- many crashes ---- */

/* Somebody was about to write each leaf of these areas, so often, and is cut off before he does. */
static void intend_and_die(uint64_t first, uint64_t areas, unsigned times)
{
	uint8_t *tags = disk.disk.now + START, is[TRUST_HASH], becomes[TRUST_HASH] = { 0 };
	const struct layout *layout = &disk.layout;
	static unsigned died;
	struct error err;

	becomes[TRUST_HASH - 1] = ++died;
	for (uint64_t area = first; area < first + areas; area++) {
		uint64_t at = layout_tag_at(layout, area * layout->area_data);

		for (unsigned leaf = 0; leaf < layout->area_blocks * TRUSTED_TAG / TRUST_LEAF;
		     leaf++) {
			trust_hash_leaf(tags + at + (size_t)leaf * TRUST_LEAF, TRUST_LEAF, is);
			for (unsigned i = 0; i < times; i++) {
				memcpy(becomes, &i, sizeof(i));
				assert_int_equal(trust_intend_leaf(&disk.trust, area, leaf, is,
								   becomes, &err),
						 0);
			}
		}
	}
	assert_int_equal(trust_sync(&disk.trust, &err), 0);
	trusted_disk_kill(&disk);
	disk.is_cut = false;
}

static void assert_can_be_written(void)
{
	unsigned last = TRUSTED_BLOCKS - 4;

	assert_int_equal(trusted_disk_write(&disk, last, 4, false), 0);
	assert_int_equal(trusted_disk_flush(&disk), 0);
}

/* Areas that nobody reads were in doubt until there was no room to write. */
static void crashes_leave_room_to_write(void **state)
{
	(void)state;
	trusted_disk_init(&disk, false);
	for (unsigned crash = 0; crash < 4; crash++) {
		if (trusted_disk_open(&disk) < 0)
			fail_msg("%s", disk.err.text);
		assert_true(disk.trust.pending_count <= TRUST_LOG / 2);
		assert_can_be_written();
		intend_and_die(crash % 2 * 2, 2, 280); /* about 7900 records */
	}
	open_and_check();
	assert_true(disk.trust.pending_count <= TRUST_LOG / 2);
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* There whole areas are. */
static void with_a_journal_crashes_leave_room_to_write(void **state)
{
	uint8_t becomes[TRUST_HASH] = { 0 };
	struct error err;

	(void)state;
	trusted_disk_init(&disk, true);
	for (unsigned i = 0; i < 20000; i++) {
		if (i % 4000 == 0) {
			assert_int_equal(trusted_disk_open(&disk), 0);
			assert_in_range(disk.trust.pending_count, 0, TRUST_LOG / 2);
			assert_can_be_written();
		}
		memcpy(becomes, &i, sizeof(i));
		assert_int_equal(trust_intend(&disk.trust, i / 100 % 3, becomes, &err), 0);
		if (i % 4000 < 3999)
			continue;
		assert_int_equal(trust_sync(&disk.trust, &err), 0);
		trusted_disk_kill(&disk);
		disk.is_cut = false;
	}
	open_and_check();
	assert_in_range(disk.trust.pending_count, 0, TRUST_LOG / 2);
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* What was settled by that is what counts alone; what isn't right isn't settled. */
static void what_is_settled_at_opening(void **state)
{
	uint8_t *old;

	(void)state;
	trusted_disk_init(&disk, false);
	old = copy_of(&disk.disk);
	assert_int_equal(trusted_disk_open(&disk), 0);
	assert_int_equal(trusted_disk_write(&disk, 0, 4, true), 0);
	intend_and_die(0, 3, 380);
	disk.disk.now[START + layout_tag_at(&disk.layout, 2 * disk.layout.area_data)] ^= 1;
	assert_int_equal(trusted_disk_open(&disk), 0);
	assert_false(trust_is_in_doubt(&disk.trust, 0));
	assert_false(trust_is_in_doubt(&disk.trust, 1));
	assert_true(trust_is_in_doubt(&disk.trust, 2));
	assert_can_be_written();
	assert_int_equal(trusted_disk_read(&disk, 0), 2);
	assert_int_equal(trusted_disk_read(&disk, 2 * disk.layout.area_blocks + 1), -ESTALE);
	trusted_disk_close(&disk);
	memcpy(disk.disk.now, old, disk.disk.size);
	assert_int_equal(trusted_disk_open(&disk), 0);
	assert_int_equal(trusted_disk_read(&disk, 0), -ESTALE);
	assert_int_equal(trusted_disk_read(&disk, 2 * disk.layout.area_blocks + 1), 1);
	trusted_disk_close(&disk);
	free(old);
	trusted_disk_free(&disk);
}

/* ---- attacks ---- */

enum attack {
	FLIP_DATA,
	FLIP_TAG,
	FLIP_SUPERBLOCK,
	SWAP_BLOCKS,
	OLD_BLOCK,
	OLD_TAGS,
	OLD_AREA,
	OLD_IMAGE,
	FLIP_JOURNAL,
	OLD_JOURNAL,
	ATTACKS,
};

static uint8_t *data_of(uint8_t *image, unsigned block)
{
	return image + START + layout_data_at(&disk.layout, (uint64_t)block * TRUSTED_BLOCK);
}

static uint8_t *tag_of(uint8_t *image, unsigned block)
{
	return image + START + layout_tag_at(&disk.layout, (uint64_t)block * TRUSTED_BLOCK);
}

static void swap_bytes(uint8_t *one, uint8_t *other, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t byte = one[i];

		one[i] = other[i];
		other[i] = byte;
	}
}

/* From the first byte of an area's tags to the last of its data. */
static void copy_area(uint8_t *to, uint8_t *from, unsigned area)
{
	unsigned first = area * disk.layout.area_blocks;
	uint64_t end = min_u64(disk.layout.size, (area + 1) * disk.layout.area_data);
	uint8_t *start = tag_of(from, first);
	size_t len = data_of(from, end / TRUSTED_BLOCK - 1) + TRUSTED_BLOCK - start;

	memcpy(to + (start - from), start, len);
}

static void do_attack(enum attack attack, uint8_t *now, uint8_t *old, uint64_t *random)
{
	unsigned block = torn_random(random) % TRUSTED_BLOCKS;
	unsigned other = (block + 1 + torn_random(random) % (TRUSTED_BLOCKS - 1)) % TRUSTED_BLOCKS;
	unsigned bit = torn_random(random) % 8;

	switch (attack) {
	case FLIP_DATA:
		data_of(now, block)[torn_random(random) % TRUSTED_BLOCK] ^= 1u << bit;
		break;
	case FLIP_TAG:
		tag_of(now, block)[torn_random(random) % TRUSTED_TAG] ^= 1u << bit;
		break;
	case FLIP_SUPERBLOCK:
		now[START + torn_random(random) % SUPERBLOCK_LEN] ^= 1u << bit;
		break;
	case SWAP_BLOCKS:
		swap_bytes(data_of(now, block), data_of(now, other), TRUSTED_BLOCK);
		swap_bytes(tag_of(now, block), tag_of(now, other), TRUSTED_TAG);
		break;
	case OLD_BLOCK:
		memcpy(data_of(now, block), data_of(old, block), TRUSTED_BLOCK);
		memcpy(tag_of(now, block), tag_of(old, block), TRUSTED_TAG);
		break;
	case OLD_TAGS: {
		unsigned area = block / disk.layout.area_blocks;
		uint8_t *start = tag_of(old, area * disk.layout.area_blocks);

		memcpy(now + (start - old), start, disk.layout.area_tags);
		break;
	}
	case OLD_AREA:
		copy_area(now, old, block / disk.layout.area_blocks);
		break;
	case FLIP_JOURNAL:
		now[START + SUPERBLOCK_AREA +
		    torn_random(random) % (disk.layout.sections * disk.layout.section_len)] ^=
			1u << bit;
		break;
	case OLD_JOURNAL:
		memcpy(now + START + SUPERBLOCK_AREA, old + START + SUPERBLOCK_AREA,
		       disk.layout.sections * disk.layout.section_len);
		break;
	default:
		memcpy(now, old, disk.disk.size);
		break;
	}
}

/* Does a block differ from what it is, in what is read of it? */
static unsigned blocks_changed(uint8_t *now, uint8_t *right)
{
	unsigned changed = 0;

	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++)
		changed += memcmp(data_of(now, i), data_of(right, i), TRUSTED_BLOCK) != 0 ||
			   memcmp(tag_of(now, i), tag_of(right, i), TRUSTED_TAG) != 0;
	return changed;
}

/* A block that wasn't touched may be unreadable with its area; one that was can't be read. If it is looked for
 * elsewhere, as a superblock may say, what is there isn't it. */
static void read_attacked(uint8_t *now, uint8_t *right, bool elsewhere)
{
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++) {
		bool same = memcmp(data_of(now, i), data_of(right, i), TRUSTED_BLOCK) == 0 &&
			    memcmp(tag_of(now, i), tag_of(right, i), TRUSTED_TAG) == 0;
		int64_t version = trusted_disk_read(&disk, i);

		if (version == -ESTALE || (version == -EILSEQ && (!same || elsewhere)))
			continue;
		if (!same || version != disk.written[i])
			fail_msg("block %u is in version %ld, and should be in %u", i,
				 (long)version, disk.written[i]);
	}
}

/* Before the disk is opened, or while it is and its areas were seen to be right. */
static void attack_once(enum attack attack, bool opened, uint8_t *right, uint8_t *old,
			uint8_t *file, uint64_t *random)
{
	uint8_t *now = disk.disk.now;

	memcpy(now, right, disk.disk.size);
	memcpy(disk.file.now, file, disk.file.size);
	if (!opened)
		do_attack(attack, now, old, random);
	if (trusted_disk_open(&disk) < 0) {
		assert_true(attack == FLIP_SUPERBLOCK || attack == FLIP_JOURNAL);
		assert_false(opened);
		return;
	}
	for (unsigned i = 0; opened && i < TRUSTED_BLOCKS; i += disk.layout.area_blocks)
		assert_int_equal(trusted_disk_read(&disk, i), disk.written[i]);
	if (opened)
		do_attack(attack, now, old, random);
	if (attack == SWAP_BLOCKS || attack == OLD_IMAGE)
		assert_true(blocks_changed(now, right) > 0);
	read_attacked(now, right, attack == FLIP_SUPERBLOCK);
	trusted_disk_kill(&disk);
	disk.is_cut = false;
}

/* The older one was cut off, so that its journal has something in it. */
static void attacked(bool journal)
{
	uint64_t random = 3;
	uint8_t *old, *right, *file;

	trusted_disk_init(&disk, journal);
	assert_int_equal(trusted_disk_open(&disk), 0);
	trusted_disk_walk(&disk, 50, &random);
	assert_int_equal(trusted_disk_flush(&disk), 0);
	end_of(CRASH_CLIENT, TORN_ALL, &random);
	old = copy_of(&disk.disk);
	open_and_check();
	trusted_disk_walk(&disk, 500, &random);
	trusted_disk_close(&disk);
	right = copy_of(&disk.disk);
	file = copy_of(&disk.file);
	for (unsigned i = 0; i < ATTACKS * rounds; i++)
		attack_once(i % ATTACKS, i / ATTACKS % 2, right, old, file, &random);
	free(old);
	free(right);
	free(file);
	trusted_disk_free(&disk);
}

/* A disk whose superblock says something else. */
static void init_with_superblock(void (*change)(struct superblock *superblock))
{
	struct superblock superblock;

	trusted_disk_init(&disk, false);
	assert_int_equal(superblock_read(disk.disk.now + START, "disk", &superblock, &disk.err), 0);
	change(&superblock);
	superblock_write(&superblock, disk.disk.now + START);
}

static void lose_a_block(struct superblock *superblock)
{
	superblock->provided_sectors -= TRUSTED_BLOCK / 512;
}

static void pad_otherwise(struct superblock *superblock)
{
	superblock->fixed_padding = !superblock->fixed_padding;
}

/* By so little that it has as many areas. */
static void a_disk_that_ends_earlier(void **state)
{
	(void)state;
	init_with_superblock(lose_a_block);
	assert_int_equal(trusted_disk_open(&disk), -ESTALE);
	assert_non_null(strstr(disk.err.text, "isn't as long as the trust file says"));
	trusted_disk_free(&disk);
}

static void a_superblock_that_moves_the_data(void **state)
{
	(void)state;
	init_with_superblock(pad_otherwise);
	if (trusted_disk_open(&disk) == 0) {
		for (unsigned i = 0; i < TRUSTED_BLOCKS; i++)
			assert_true(trusted_disk_read(&disk, i) < 0);
		trusted_disk_close(&disk);
	}
	trusted_disk_free(&disk);
}

static void attacks_are_found_out(void **state)
{
	(void)state;
	attacked(false);
}

static void with_a_journal_attacks_are_found_out(void **state)
{
	(void)state;
	attacked(true);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_is_cut_off_anywhere),
		cmocka_unit_test(a_server_is_cut_off_anywhere),
		cmocka_unit_test(both_are_cut_off_anywhere),
		cmocka_unit_test(who_was_cut_off_takes_nothing_older),
		cmocka_unit_test(crashes_of_client_server_and_both),
		cmocka_unit_test(with_a_journal_cut_off_anywhere),
		cmocka_unit_test(with_a_journal_nothing_older_is_taken),
		cmocka_unit_test(with_a_journal_crashes_of_client_server_and_both),
		cmocka_unit_test(an_area_seen_during_a_sweep),
		cmocka_unit_test(doubts_are_no_loss),
		cmocka_unit_test(what_was_not_written_is_not_settled),
		cmocka_unit_test(a_broken_file_is_told_once),
		cmocka_unit_test(crashes_leave_room_to_write),
		cmocka_unit_test(with_a_journal_crashes_leave_room_to_write),
		cmocka_unit_test(what_is_settled_at_opening),
		cmocka_unit_test(a_disk_that_ends_earlier),
		cmocka_unit_test(a_superblock_that_moves_the_data),
		cmocka_unit_test(attacks_are_found_out),
		cmocka_unit_test(with_a_journal_attacks_are_found_out),
	};

	if (argc > 1)
		rounds = strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
