/* Files of pre-shared keys: the one that is looked for, and every line that makes no sense. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tls/psk.h"

#define HEX "000102030405060708090a0b0c0D0E0F"

static char path[] = "/tmp/ndio-psk.XXXXXX";

static void write_file(const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static void found(const char *text, const char *user, size_t key_len)
{
	struct psk psk;
	struct error err = { 0 };

	write_file(text, strlen(text));
	if (psk_find(path, user, &psk, &err) != 0)
		fail_msg("%s", err.text);
	assert_string_equal(psk.user, user);
	assert_int_equal(psk.key_len, key_len);
	for (size_t i = 0; i < key_len; i++)
		assert_int_equal(psk.key[i], i);
	psk_clear(&psk);
}

static void refused(const char *text, int errnum, const char *reason)
{
	struct psk psk;
	struct error err = { 0 };

	write_file(text, strlen(text));
	assert_int_equal(psk_find(path, "bob", &psk, &err), -errnum);
	assert_memory_equal(err.text, path, strlen(path));
	if (!strstr(err.text, reason))
		fail_msg("%s", err.text);
	psk_clear(&psk);
}

static void keys(void **state)
{
	(void)state;
	found("bob:" HEX "\n", "bob", 16);
	found("bob:" HEX, "bob", 16);
	found("# comment\n\nbobby:ff" HEX "\nbo:ff" HEX "\nbob:" HEX "\nbob:ff" HEX "\n", "bob",
	      16);
	found("a b@c:" HEX "\n", "a b@c", 16);
}

static void lines_without_sense(void **state)
{
	(void)state;
	refused("alice:" HEX "\nbob\n", EINVAL, "line 2: not USER:KEY");
	refused(":" HEX "\n", EINVAL, "line 1: not USER:KEY");
	refused("bob:" HEX "\n\nalice:" HEX "0\n", EINVAL, "line 3: the key isn't whole bytes");
	refused("bob:" HEX "\r\n", EINVAL, "line 1: the key isn't");
	refused("bob:xx" HEX, EINVAL, "line 1: the key isn't");
	refused("bob:0001\n", EINVAL, "line 1: the key has 2 bytes");
	refused("bob:" HEX HEX HEX HEX "00\n", EINVAL, "line 1: the key has 65 bytes");
	refused("alice:" HEX "\n", ENOENT, "no key of \"bob\"");
	refused("", ENOENT, "no key of \"bob\"");
}

static void zero_bytes(void **state)
{
	static const char text[] = "bob\0x:" HEX "\n";
	struct psk psk;
	struct error err;

	(void)state;
	write_file(text, sizeof(text) - 1);
	assert_int_equal(psk_find(path, "bob", &psk, &err), -ENOENT);
	psk_clear(&psk);
}

static void files(void **state)
{
	static char text[PSK_FILE_MAX + 1];
	struct psk psk;
	struct error err;

	(void)state;
	memset(text, '\n', PSK_FILE_MAX);
	refused(text, EFBIG, "less than 65536 bytes");
	memcpy(text + PSK_FILE_MAX - 2 - strlen("bob:" HEX), "bob:" HEX, strlen("bob:" HEX));
	text[PSK_FILE_MAX - 1] = '\0';
	found(text, "bob", 16);
	assert_int_equal(psk_find("/nonexistent/file", "bob", &psk, &err), -ENOENT);
	psk_clear(&psk);
}

/* Longer than what is in memory at a time. */
static void long_lines(void **state)
{
	static char text[3 * 4096 + 2 * 32 + 64];
	size_t len = 3 * 4096 + 10;

	(void)state;
	memset(text, 'x', len);
	text[0] = '#';
	strcpy(text + len, "\nbob:" HEX "\n");
	found(text, "bob", 16);
	strcpy(text + len, "\nbob\n");
	refused(text, EINVAL, "line 2: not USER:KEY");
	text[0] = 'x';
	refused(text, EINVAL, "line 1: not USER:KEY");
	strcpy(text, "# ");
	memset(text + 2, 'y', 4096 - 2);
	strcpy(text + 4096, "\nbob:" HEX);
	found(text, "bob", 16);
	memset(text, '#', 3 * 4096);
	text[3 * 4096] = '\0';
	refused(text, ENOENT, "no key of");
}

static void others_may_not_read_it(void **state)
{
	static const mode_t modes[] = { 0640, 0604, 0660, 0601 };
	struct psk psk;
	struct error err;

	(void)state;
	write_file("bob:" HEX, 4 + 32);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		assert_int_equal(chmod(path, modes[i]), 0);
		assert_int_equal(psk_find(path, "bob", &psk, &err), -EACCES);
		assert_non_null(strstr(err.text, "chmod 600 /tmp/ndio-psk."));
		psk_clear(&psk);
	}
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(psk_find(path, "bob", &psk, &err), 0);
	psk_clear(&psk);
	chmod(path, 0600);
}

static int make_file(void **state)
{
	(void)state;
	close(mkstemp(path));
	return 0;
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys),       cmocka_unit_test(lines_without_sense),
		cmocka_unit_test(zero_bytes), cmocka_unit_test(files),
		cmocka_unit_test(long_lines), cmocka_unit_test(others_may_not_read_it),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
