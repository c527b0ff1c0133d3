/* A disk that is trusted, where memory can't be had, once, anywhere: what is asked for then may fail with
 * ENOMEM, and nothing is remembered of it: no area is taken for an older one, now or later, and what is
 * asked for again is done. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/crypto.h>

#include "integrity/target-integrity.h"
#include "trusted-disk.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#define OWN_MALLOC !__has_feature(address_sanitizer)
#else
#define OWN_MALLOC 1
#endif

/* ---- memory ---- */

/* Whose: everybody's; or OpenSSL's alone, where the test's own disks ask for some, or a sanitizer has its
 * own malloc. */
static bool of_all, counting, has_failed;
static long left_to_fail;

static bool fails(bool of_openssl)
{
	if (!counting || has_failed || of_openssl == of_all || left_to_fail-- > 0)
		return false;
	has_failed = true;
	return true;
}

static void *openssl_realloc(void *memory, size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return fails(true) ? NULL : realloc(memory, size);
}

static void *openssl_malloc(size_t size, const char *file, int line)
{
	return openssl_realloc(NULL, size, file, line);
}

static void openssl_free(void *memory, const char *file, int line)
{
	(void)file;
	(void)line;
	free(memory);
}

#if OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
	return fails(false) ? NULL : __libc_malloc(size);
}

void *calloc(size_t many, size_t size)
{
	return fails(false) ? NULL : __libc_calloc(many, size);
}

void *realloc(void *memory, size_t size)
{
	return fails(false) ? NULL : __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return fails(false) ? NULL : __libc_memalign(alignment, size);
}
#endif

static void memory_fails_at(long at, bool all)
{
	of_all = all && OWN_MALLOC;
	left_to_fail = at;
	has_failed = false;
	counting = true;
}

/* Whether it came to that. */
static bool memory_failed(void)
{
	counting = false;
	return has_failed;
}

/* ---- the disk ---- */

static struct trusted_disk disk;

static void assert_done(int64_t ret)
{
	if (ret != -ENOMEM || !has_failed)
		assert_true(ret >= 0);
}

/* All of it is what it is, and nobody was told of anything. */
static void assert_as_it_is(void)
{
	struct target_integrity_facts facts;

	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++)
		assert_int_equal(trusted_disk_read(&disk, i), disk.written[i]);
	target_integrity_facts(disk.target, &facts);
	assert_int_equal(facts.stale, 0);
}

static void open_disk(void)
{
	if (trusted_disk_open(&disk) < 0)
		fail_msg("%s", disk.err.text);
}

/* The program is killed, and all that it had sent is there. */
static void kill_and_open(void)
{
	trusted_disk_kill(&disk);
	disk.is_cut = false;
	open_disk();
}

/* Some areas are in doubt from before. */
static void doubt(void)
{
	trusted_disk_init(&disk, false);
	open_disk();
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i += 100)
		assert_int_equal(trusted_disk_write(&disk, i, 2, false), 0);
	disk.left = 5;
	assert_int_equal(trusted_disk_flush(&disk), -EIO);
	disk.left = -1;
	kill_and_open();
	trusted_disk_check(&disk);
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i += 50)
		assert_int_equal(trusted_disk_write(&disk, i, 1, false), 0);
	disk.left = 5;
	assert_int_equal(trusted_disk_flush(&disk), -EIO);
	disk.left = -1;
	trusted_disk_kill(&disk);
	disk.is_cut = false;
}

/* ---- what is asked for ---- */

static void opened_and_read(bool all)
{
	bool more = true;

	doubt();
	for (long at = 0; more; at++) {
		memory_fails_at(at, all);
		if (trusted_disk_open(&disk) < 0) {
			assert_true(memory_failed());
			continue;
		}
		for (unsigned i = 0; i < TRUSTED_BLOCKS; i += 37) {
			int64_t version = trusted_disk_read(&disk, i);

			if (version != -EILSEQ)
				assert_done(version);
		}
		more = memory_failed();
		trusted_disk_kill(&disk);
		disk.is_cut = false;
	}
	open_disk();
	trusted_disk_check(&disk);
	assert_as_it_is();
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

static void while_it_is_opened_and_read(void **state)
{
	(void)state;
	opened_and_read(true);
	opened_and_read(false);
}

/* One that is read again is compared with what is in memory of its area. */
static void read_again(bool all)
{
	bool more = true;

	trusted_disk_init(&disk, false);
	open_disk();
	for (long at = 0; more; at++) {
		for (unsigned i = 0; i < TRUSTED_BLOCKS; i += 37)
			assert_int_equal(trusted_disk_read(&disk, i), 1);
		memory_fails_at(at, all);
		for (unsigned i = 0; i < TRUSTED_BLOCKS; i += 37)
			assert_done(trusted_disk_read(&disk, i));
		more = memory_failed();
	}
	assert_as_it_is();
	assert_int_equal(disk.told, 0);
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

static void while_it_is_read_again(void **state)
{
	(void)state;
	read_again(true);
	read_again(false);
}

/* What fails is asked for once more. False: that fails, too. */
static bool written_and_flushed(void)
{
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i += 90) {
		bool fua = i % 4 == 0;
		int ret = trusted_disk_write(&disk, i, 2, fua);

		assert_done(ret);
		if (ret < 0 && trusted_disk_write(&disk, i, 2, fua) < 0)
			return false;
	}
	assert_done(trusted_disk_flush(&disk));
	return trusted_disk_flush(&disk) == 0;
}

/* Who is cut off behind that finds what he left. */
static void while_it_is_written_directly(void **state)
{
	bool more = true;

	(void)state;
	trusted_disk_init(&disk, false);
	open_disk();
	for (long at = 0; more; at++) {
		memory_fails_at(at, false);
		assert_true(written_and_flushed());
		more = memory_failed();
		if (at % 2)
			kill_and_open();
		trusted_disk_check(&disk);
		assert_as_it_is();
	}
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* What can't be written to the journal ends all writing. Opened anew it is as it was left. */
static void while_it_is_written_through_a_journal(void **state)
{
	bool more = true;

	(void)state;
	trusted_disk_init(&disk, true);
	for (long at = 0; more; at++) {
		open_disk();
		memory_fails_at(at, false);
		written_and_flushed();
		more = memory_failed();
		kill_and_open();
		trusted_disk_check(&disk);
		assert_as_it_is();
		trusted_disk_close(&disk);
	}
	trusted_disk_free(&disk);
}

/* Its file isn't older by that. */
static void while_it_is_closed(void **state)
{
	bool more = true;

	(void)state;
	trusted_disk_init(&disk, false);
	for (long at = 0; more; at++) {
		open_disk();
		assert_int_equal(trusted_disk_write(&disk, 0, 2, true), 0);
		assert_int_equal(trusted_disk_write(&disk, 1000, 2, true), 0);
		memory_fails_at(at, false);
		trusted_disk_close(&disk);
		more = memory_failed();
	}
	open_disk();
	assert_as_it_is();
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(while_it_is_opened_and_read),
		cmocka_unit_test(while_it_is_read_again),
		cmocka_unit_test(while_it_is_written_directly),
		cmocka_unit_test(while_it_is_written_through_a_journal),
		cmocka_unit_test(while_it_is_closed),
	};

	if (!CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
