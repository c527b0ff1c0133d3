/* A disk whose journal was left by somebody who was cut off, and is only read: it is as if that had been
 * carried out, and not one byte is written, neither to the disk nor to the trust file. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/target-integrity.h"
#include "trusted-disk.h"

static struct trusted_disk disk;
static uint8_t *disk_before, *file_before;
static int64_t seen[TRUSTED_BLOCKS];

static uint8_t *copy_now(const struct torn_disk *from)
{
	uint8_t *copy = malloc(from->size);

	assert_non_null(copy);
	memcpy(copy, from->now, from->size);
	return copy;
}

/* Something is in the journal, or on its way there, or everywhere: written, and cut off. */
static void leave_journal(long at, uint64_t seed)
{
	uint64_t random = seed;

	assert_int_equal(trusted_disk_open(&disk), 0);
	disk.left = at;
	trusted_disk_walk(&disk, 60, &random);
	trusted_disk_kill(&disk);
	torn_disk_cut(&disk.disk, seed % TORN_KINDS, &random);
	torn_disk_cut(&disk.file, seed % TORN_KINDS, &random);
	disk.left = -1;
	disk.is_cut = false;
	disk_before = copy_now(&disk.disk);
	file_before = copy_now(&disk.file);
}

static void assert_nothing_written(void)
{
	assert_memory_equal(disk.disk.now, disk_before, disk.disk.size);
	assert_memory_equal(disk.file.now, file_before, disk.file.size);
	assert_int_equal(disk.disk.count, 0);
}

static bool is_left(void)
{
	struct trusted_disk other = disk;
	struct target_integrity_options options = {
		.start = 4096,
		.room = disk.disk.size - 4096,
		.block = TRUSTED_BLOCK,
		.tag_size = TRUSTED_TAG,
	};
	int ret;

	torn_target_init(&other.below, &disk.disk, &disk.left, &disk.is_cut);
	ret = target_integrity_open(&other.below.target, &options, &other.target, &other.err);
	assert_true(ret == 0 || ret == -EUCLEAN);
	if (ret == 0)
		other.target->ops->close(other.target);
	return ret < 0;
}

static void open_to_read(bool untrusted)
{
	disk.readonly = true;
	disk.untrusted = untrusted;
	if (trusted_disk_open(&disk) < 0)
		fail_msg("%s", disk.err.text);
	assert_true(disk.target->readonly);
}

static void close_read(void)
{
	trusted_disk_close(&disk);
	disk.readonly = disk.untrusted = false;
	assert_nothing_written();
}

/* Each block alone, and many at once. */
static void read_all(void)
{
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++) {
		seen[i] = trusted_disk_read(&disk, i);
		if (seen[i] < disk.flushed[i] || seen[i] > disk.written[i])
			fail_msg("block %u is in version %ld: flushed up to %u, written up to %u",
				 i, (long)seen[i], disk.flushed[i], disk.written[i]);
	}
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i += TRUSTED_RUN)
		trusted_disk_read_run(&disk, i, TRUSTED_RUN, seen + i);
}

/* By whom it is opened next it is found as it was read. */
static void carried_out_it_is_the_same(void)
{
	if (trusted_disk_open(&disk) < 0)
		fail_msg("%s", disk.err.text);
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++)
		assert_int_equal(trusted_disk_read(&disk, i), seen[i]);
	trusted_disk_close(&disk);
}

static void forget(void)
{
	free(disk_before);
	free(file_before);
	trusted_disk_free(&disk);
}

static void it_is_read_as_if_carried_out(void **state)
{
	unsigned left = 0;

	(void)state;
	for (unsigned at = 1; at < 150; at += 2) {
		trusted_disk_init(&disk, true);
		leave_journal(at, at);
		left += is_left();
		for (int untrusted = 0; untrusted < 2; untrusted++) {
			open_to_read(untrusted);
			read_all();
			close_read();
		}
		carried_out_it_is_the_same();
		forget();
	}
	assert_true(left > 20);
}

/* The disk and its journal, or that alone, as they were some time before. */
static void an_older_journal_is_found_out(void **state)
{
	unsigned found_out = 0;
	uint8_t *older;

	(void)state;
	trusted_disk_init(&disk, true);
	leave_journal(30, 1);
	older = disk_before;
	free(file_before);
	open_to_read(false);
	trusted_disk_close(&disk);
	disk.readonly = false;
	leave_journal(-1, 6);
	assert_true(is_left());
	memcpy(disk.disk.now, older, disk.disk.size);
	memcpy(disk_before, older, disk.disk.size);
	open_to_read(false);
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++) {
		int64_t version = trusted_disk_read(&disk, i);

		found_out += version == -ESTALE;
		assert_true(version == -ESTALE ||
			    (version >= disk.flushed[i] && version <= disk.written[i]));
	}
	assert_true(found_out > 0);
	close_read();
	free(older);
	forget();
}

/* What was changed in it is an error, of that block. */
static void a_changed_block_of_it_is_found_out(void **state)
{
	unsigned found_out = 0;

	(void)state;
	trusted_disk_init(&disk, true);
	leave_journal(40, 4);
	assert_true(is_left());
	for (uint32_t i = 0; i < disk.layout.sections; i++)
		for (unsigned n = 0; n < disk.layout.entries; n++) {
			uint64_t at = 4096 + layout_section_at(&disk.layout, i) +
				      layout_entry_data(&disk.layout, n) * LAYOUT_SECTOR;

			disk.disk.now[at] ^= 1;
			disk_before[at] ^= 1;
		}
	open_to_read(true);
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++) {
		int64_t version = trusted_disk_read(&disk, i);

		found_out += version == -EILSEQ;
		assert_true(version == -EILSEQ || version >= disk.flushed[i]);
	}
	assert_in_range(found_out, 1, TRUSTED_BLOCKS / 2);
	close_read();
	forget();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_read_as_if_carried_out),
		cmocka_unit_test(an_older_journal_is_found_out),
		cmocka_unit_test(a_changed_block_of_it_is_found_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
