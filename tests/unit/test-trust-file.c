/* The file that tells what a disk was, in a file system: made, held by one process, replaced. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "integrity/trust-file.h"

#define UUID "27ea5185-21db-482a-8ace-68b644c90ce2"

static char folder[] = "/tmp/ndio-test.XXXXXX";
static char path[64];
static const struct trust_volume volume = {
	.uuid = UUID, .size = 1000 << 20, .area_len = 1 << 20, .block = 4096
};
static const uint8_t one[TRUST_HASH] = { 1 }, two[TRUST_HASH] = { 2 };
static struct error err;

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/trust", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder); /* nothing else was left there */
}

static void what_is_written_is_read(void **state)
{
	struct trust_file file;
	struct trust trust;
	struct stat st;

	(void)state;
	assert_int_equal(trust_file_make(path, &volume, "{}", false, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(trust_file_open(&file, &trust, path, false, &err), 0);
	assert_int_equal(trust_saw(&trust, 999, one, &err), 0);
	assert_int_equal(trust_intend(&trust, 999, two, &err), 0);
	assert_int_equal(trust_file_close(&file, &trust, &err), 0);
	assert_int_equal(trust_file_open(&file, &trust, path, true, &err), 0);
	assert_int_equal(trust_check(&trust, 999, one), TRUST_SAME);
	assert_int_equal(trust_check(&trust, 999, two), TRUST_SAME);
	assert_int_equal(trust_check(&trust, 998, two), TRUST_UNKNOWN);
	assert_int_equal(trust_intend(&trust, 998, two, &err), -EROFS);
	assert_int_equal(trust_file_close(&file, &trust, &err), 0);
}

static void one_process_has_it(void **state)
{
	struct trust_file file, other;
	struct trust trust, another;
	char wanted[128];

	(void)state;
	snprintf(wanted, sizeof(wanted), "%s: in use by another process", path);
	assert_int_equal(trust_file_open(&file, &trust, path, false, &err), 0);
	assert_int_equal(trust_file_open(&other, &another, path, true, &err), -EBUSY);
	assert_string_equal(err.text, wanted);
	assert_int_equal(trust_file_make(path, &volume, "{}", true, &err), -EBUSY);
	assert_string_equal(err.text, wanted);
	assert_int_equal(trust_file_close(&file, &trust, &err), 0);
	assert_int_equal(trust_file_open(&file, &trust, path, true, &err), 0);
	assert_int_equal(trust_file_open(&other, &another, path, true, &err), 0);
	assert_int_equal(trust_file_close(&file, &trust, &err), 0);
	assert_int_equal(trust_file_close(&other, &another, &err), 0);
}

static void it_is_replaced_only_if_asked(void **state)
{
	struct trust_file file;
	struct trust trust;

	(void)state;
	assert_int_equal(trust_file_make(path, &volume, "{}", false, &err), -EEXIST);
	assert_int_equal(trust_file_make(path, &volume, "{}", true, &err), 0);
	assert_int_equal(trust_file_open(&file, &trust, path, false, &err), 0);
	assert_int_equal(trust_check(&trust, 999, one), TRUST_UNKNOWN);
	assert_int_equal(trust_file_close(&file, &trust, &err), 0);
}

static void it_is_held_until_it_is_replaced(void **state)
{
	struct trust_file file;
	struct trust trust;
	char other[80];
	int held, none;

	(void)state;
	snprintf(other, sizeof(other), "%s.other", path);
	assert_int_equal(trust_file_hold(other, &none, &err), 0);
	assert_int_equal(none, -1);
	assert_int_equal(trust_file_make(other, &volume, "{}", false, &err), 0);
	assert_int_equal(trust_file_rename(other, path, none, &err), -EEXIST);
	assert_int_equal(trust_file_hold(path, &held, &err), 0);
	assert_int_equal(trust_file_open(&file, &trust, path, false, &err), -EBUSY);
	assert_int_equal(trust_file_make(path, &volume, "{}", true, &err), -EBUSY);
	assert_int_equal(trust_file_rename(other, path, held, &err), 0);
	assert_int_equal(trust_file_open(&file, &trust, path, false, &err), 0);
	assert_int_equal(trust_file_close(&file, &trust, &err), 0);
	/* That one isn't held. */
	assert_int_equal(trust_file_make(other, &volume, "{}", false, &err), 0);
	assert_int_equal(trust_file_rename(other, path, held, &err), -EBUSY);
	assert_int_equal(unlink(other), 0);
	trust_file_let_go(&held);
	trust_file_let_go(&held);
}

static void what_is_not_there_is_an_error(void **state)
{
	struct trust_file file;
	struct trust trust;

	(void)state;
	assert_int_equal(trust_file_open(&file, &trust, "/nowhere/trust", false, &err), -ENOENT);
	assert_string_equal(err.text, "/nowhere/trust: No such file or directory");
	assert_int_equal(trust_file_make("/nowhere/trust", &volume, "{}", false, &err), -ENOENT);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(trust_file_open(&file, &trust, path, false, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(one_process_has_it),
		cmocka_unit_test(it_is_replaced_only_if_asked),
		cmocka_unit_test(it_is_held_until_it_is_replaced),
		cmocka_unit_test(what_is_not_there_is_an_error),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
