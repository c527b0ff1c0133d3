/* The table of disks to attach: what a line means, and which line a mistake is in. */
#include <errno.h>
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

#include "attach/ndiotab.h"
#include "luks/luks-slots.h"

#define TAB "tab" /* in a folder of our own */

static char folder[4096];

static int make_folder(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/ndio-ndiotab-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int remove_tab(void **state)
{
	unlink(TAB);
	return 0;
}

static int remove_folder(void **state)
{
	return chdir("/") == 0 ? rmdir(folder) : -1;
}

static void write_bytes(const char *bytes, size_t len)
{
	FILE *file = fopen(TAB, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

static void write_tab(const char *text)
{
	write_bytes(text, strlen(text));
}

/* From the file that is there. */
static struct ndiotab_entry found(const char *device)
{
	struct ndiotab_entry entry;
	struct error err = { "" };

	if (ndiotab_find(TAB, device, &entry, &err) < 0)
		fail_msg("%s", err.text);
	return entry;
}

/* The file that is there is an error for this device, with this message. */
static void assert_refused(const char *device, int errnum, const char *message)
{
	struct ndiotab_entry entry;
	struct error err = { "" };

	assert_int_equal(ndiotab_find(TAB, device, &entry, &err), -errnum);
	assert_string_equal(err.text, message);
	assert_null(entry.text);
}

/* So is this line, between two good ones, for a device that has another line. */
static void assert_bad_line(const char *line, const char *why)
{
	char text[1024], message[512];

	snprintf(text, sizeof(text), "nbd8 /disk8 none\n%s\nnbd9 /disk9 none\n", line);
	snprintf(message, sizeof(message), TAB ":2: %s", why);
	write_tab(text);
	assert_refused("nbd9", EINVAL, message);
}

static void assert_same_text(const char *got, const char *wanted)
{
	if (wanted)
		assert_string_equal(got, wanted);
	else
		assert_null(got);
}

static void a_line_of_three_fields_leaves_the_rest_open(void **state)
{
	struct ndiotab_entry entry;

	write_tab("nbd0 nbd://server/export none\n");
	entry = found("nbd0");
	assert_string_equal(entry.device, "nbd0");
	assert_string_equal(entry.locator, "nbd://server/export");
	assert_same_text(entry.key_file, NULL);
	assert_same_text(entry.header, NULL);
	assert_false(entry.read_only || entry.discard);
	assert_int_equal(entry.connections, 0);
	assert_int_equal(entry.block_size, 0);
	assert_int_equal(entry.timeout, 0);
	assert_int_equal(entry.slot, LUKS_ANY_SLOT);
	assert_int_equal(entry.max_kdf_time, 0);
	assert_int_equal(entry.reconnect, NDIOTAB_USUAL);
	assert_int_equal(entry.unflushed, 0);
	assert_same_text(entry.metrics, NULL);
	assert_int_equal(entry.line, 1);
	ndiotab_entry_clear(&entry);
	assert_null(entry.text);
	ndiotab_entry_clear(&entry);
}

static void every_option_is_taken(void **state)
{
	struct ndiotab_entry entry;

	write_tab(
		"# device locator key options\n"
		"\n"
		"  /dev/nbd12\t/srv/disk.luks \t /etc/key   "
		"read-only,connections=64,block-size=4096,timeout=5,header=/a=b,trust=/c,discard,slot=0,"
		"max-kdf-time=600,reconnect=0,unflushed=1M,metrics=[::1]:9100 \n");
	entry = found("/dev/nbd12");
	assert_string_equal(entry.device, "nbd12");
	assert_string_equal(entry.locator, "/srv/disk.luks");
	assert_same_text(entry.key_file, "/etc/key");
	assert_same_text(entry.header, "/a=b");
	assert_same_text(entry.trust, "/c");
	assert_true(entry.read_only && entry.discard);
	assert_int_equal(entry.connections, 64);
	assert_int_equal(entry.block_size, 4096);
	assert_int_equal(entry.timeout, 5);
	assert_int_equal(entry.slot, 0);
	assert_int_equal(entry.max_kdf_time, 600);
	assert_int_equal(entry.reconnect, 0);
	assert_int_equal(entry.unflushed, 1048576);
	assert_same_text(entry.metrics, "[::1]:9100");
	assert_int_equal(entry.line, 3);
	ndiotab_entry_clear(&entry);
}

static void each_device_has_its_own_line(void **state)
{
	struct ndiotab_entry entry;

	write_tab("nbd1 /one none discard\n#nbd2 /no none\n\t# nbd2 /no none\nnbd2 /two none\n"
		  "nbd0 /zero none read-only");
	entry = found("nbd2");
	assert_string_equal(entry.locator, "/two");
	assert_false(entry.discard);
	ndiotab_entry_clear(&entry);
	entry = found("nbd0"); /* no newline at its end */
	assert_string_equal(entry.locator, "/zero");
	assert_true(entry.read_only);
	ndiotab_entry_clear(&entry);
	assert_refused("nbd3", ENODEV, TAB ": no line for nbd3");
}

static void carriage_returns_end_lines_too(void **state)
{
	struct ndiotab_entry entry;

	write_tab("# one\r\n\r\nnbd0 /disk none\r\nnbd1 /disk1 /key discard\r\n");
	entry = found("nbd0");
	assert_same_text(entry.key_file, NULL);
	ndiotab_entry_clear(&entry);
	entry = found("nbd1");
	assert_true(entry.discard);
	ndiotab_entry_clear(&entry);
}

static void an_empty_file_has_no_line(void **state)
{
	write_tab("");
	assert_refused("nbd0", ENODEV, TAB ": no line for nbd0");
	write_tab("\n\n# nothing\n  \t\n#");
	assert_refused("/dev/nbd0", ENODEV, TAB ": no line for nbd0");
}

static void a_missing_field_is_named(void **state)
{
	assert_bad_line("nbd0", "the second field, the locator, is missing");
	assert_bad_line("  nbd0  ", "the second field, the locator, is missing");
	assert_bad_line("nbd0 /disk", "the third field, the key file or \"none\", is missing");
	assert_bad_line("nbd0 /disk none discard read-only", "there are more than four fields");
}

static void a_wrong_field_is_shown(void **state)
{
	static const char *const names[] = { "sda",        "nbd",        "nbd0p1", "nbd-1",
					     "nbd00",      "nbd1048576", "/dev/",  "dev/nbd0",
					     "/dev//nbd0", "nbd0,",      "\xff" };
	char line[64], why[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(line, sizeof(line), "%s /disk none", names[i]);
		snprintf(why, sizeof(why), "\"%s\" is not the name of a device, such as nbd0",
			 names[i]);
		assert_bad_line(line, why);
	}
	assert_bad_line("nbd0 disk.luks none",
			"the locator, disk.luks, is neither an absolute path nor an NBD URI");
	assert_bad_line(
		"nbd0 http://x/ none",
		"http://x/: neither a file nor an NBD URI, which is nbd://HOST:PORT/EXPORT or "
		"nbd+unix:///EXPORT?socket=PATH; a file of that name is ./http://x/");
	assert_bad_line("nbd0 /disk key",
			"the key file, key, is neither an absolute path nor \"none\"");
}

static void a_wrong_option_is_named(void **state)
{
	assert_bad_line("nbd0 /disk none sync", "unknown option \"sync\"");
	assert_bad_line("nbd0 /disk none sync=1", "unknown option \"sync\"");
	assert_bad_line("nbd0 /disk none discard,sync,read-only", "unknown option \"sync\"");
	assert_bad_line("nbd0 /disk none discard,", "unknown option \"\"");
	assert_bad_line("nbd0 /disk none =", "unknown option \"\"");
	assert_bad_line("nbd0 /disk none discard=on", "option discard takes no value");
	assert_bad_line("nbd0 /disk none header", "option header needs a value");
	assert_bad_line("nbd0 /disk none header=x", "header=x is not an absolute path");
	assert_bad_line("nbd0 /disk none trust=x", "trust=x is not an absolute path");
	assert_bad_line("nbd0 /disk none metrics=./x", "metrics=./x is not an absolute path");
	assert_bad_line("nbd0 /disk none metrics", "option metrics needs a value");
	assert_bad_line("nbd0 /disk none timeout", "option timeout needs a value");
}

static void numbers_have_their_ranges(void **state)
{
	static const struct {
		const char *name, *range, *bad[7];
	} numbers[] = {
		{ "connections", "a number from 1 to 64", { "", "0", "65", "-1", "4k" } },
		{ "timeout", "a number from 5 to 86400", { "4", "86401", "90s", "+9", "0x9" } },
		{ "reconnect", "a number from 0 to 86400", { "", "86401", "-1", "5m" } },
		{ "unflushed",
		  "a size from 1048576 to 9223372036854775807 bytes",
		  { "", "0", "1048575", "1023K", "8E", "x" } },
		{ "block-size",
		  "a power of two from 512 to 4096",
		  { "511", "1000", "4097", "8192", "18446744073709552128" } },
	};
	char line[128], why[128];

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		for (const char *const *bad = numbers[i].bad; *bad; bad++) {
			snprintf(line, sizeof(line), "nbd0 /disk none %s=%s", numbers[i].name,
				 *bad);
			snprintf(why, sizeof(why), "%s=%s is not %s", numbers[i].name, *bad,
				 numbers[i].range);
			assert_bad_line(line, why);
		}
	}
}

static void a_device_has_one_line(void **state)
{
	write_tab("nbd0 /a none\nnbd1 /b none\n\n/dev/nbd0 /c none\n");
	assert_refused("nbd0", EINVAL, TAB ":4: line 1 is for nbd0 already");
	assert_refused("nbd1", EINVAL, TAB ":4: line 1 is for nbd0 already");
}

static void devices_on_each_other_are_a_loop(void **state)
{
	struct ndiotab_entry entry;

	write_tab("nbd0 /dev/nbd0 none\n");
	assert_refused("nbd0", EINVAL, TAB ":1: a loop: nbd0 is on /dev/nbd0, and so on itself");
	write_tab("nbd0 /dev/nbd1p3 none\nnbd1 /dev/nbd0 none\n");
	assert_refused("nbd1", EINVAL, TAB ":1: a loop: nbd0 is on /dev/nbd1p3, and so on itself");
	write_tab("nbd4 /dev/nbd5 none\n#\nnbd5 /dev/nbd6 none\nnbd6 /dev/nbd7 none\n"
		  "nbd7 /dev/nbd5 none\n");
	assert_refused("nbd4", EINVAL, TAB ":3: a loop: nbd5 is on /dev/nbd6, and so on itself");
	write_tab("nbd0 /dev/nbd1 none\nnbd1 /dev/nbd2p1 none\nnbd2 nbd://a/ none\n"
		  "nbd3 /dev/nbd1 none\n");
	entry = found("nbd0");
	ndiotab_entry_clear(&entry);
}

static void a_device_that_is_asked_for_must_be_one(void **state)
{
	write_tab("nbd0 /disk none\n");
	assert_refused("sda", EINVAL, "sda: not the name of a device, such as nbd0");
	assert_refused("", EINVAL, ": not the name of a device, such as nbd0");
}

static void bytes_that_are_no_text_are_refused(void **state)
{
	static const char nul[] = "nbd0 /disk none\nnbd1 /di\0sk none\n";
	static const char escape[] = "nbd0 /disk none\n# \33[2J\n";
	static const char middle[] = "nbd0 /disk\r none\n";

	write_bytes(nul, sizeof(nul) - 1);
	assert_refused("nbd0", EINVAL, TAB ":2: character 9 is not text (0x00)");
	write_bytes(escape, sizeof(escape) - 1);
	assert_refused("nbd0", EINVAL, TAB ":2: character 3 is not text (0x1b)");
	write_bytes(middle, sizeof(middle) - 1);
	assert_refused("nbd0", EINVAL, TAB ":1: character 11 is not text (0x0d)");
}

/* It is told, though not all of it. */
static void a_line_may_be_long(void **state)
{
	static char text[60000];
	struct ndiotab_entry entry;
	struct error err;

	memset(text, 'x', sizeof(text));
	memcpy(text, "nbd0 /", 6);
	memcpy(text + sizeof(text) - 6, " none\n", 6);
	write_bytes(text, sizeof(text));
	entry = found("nbd0");
	assert_int_equal(strlen(entry.locator), sizeof(text) - 11);
	ndiotab_entry_clear(&entry);

	for (size_t i = 0; i < 4; i++) {
		static const char *const starts[] = { "", "nbd0 ", "nbd0 / ", "nbd0 / none " };

		memset(text, 'x', sizeof(text));
		memcpy(text, starts[i], strlen(starts[i]));
		memcpy(text + sizeof(text) - 6, " none\n", 6);
		write_bytes(text, sizeof(text));
		assert_int_equal(ndiotab_find(TAB, "nbd0", &entry, &err), -EINVAL);
		assert_memory_equal(err.text, TAB ":1: ", 7);
		assert_true(strlen(err.text) < 256);
	}
}

static void a_file_may_be_full_of_lines(void **state)
{
	char *text = NULL;
	struct ndiotab_entry entry;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	for (unsigned i = 0; i < 1000; i++)
		fprintf(out, "nbd%u /dev/nbd%u none\n", i, i + 1);
	fclose(out);
	write_bytes(text, len);
	free(text);
	entry = found("nbd999");
	assert_string_equal(entry.locator, "/dev/nbd1000");
	ndiotab_entry_clear(&entry);
}

static void a_file_that_is_too_large_is_refused(void **state)
{
	write_tab("nbd0 /disk none\n");
	assert_int_equal(truncate(TAB, 10 << 20), 0);
	assert_refused("nbd0", EFBIG, TAB ": it has more than 65536 bytes");
	/* One byte too many, and just as many as there may be. */
	write_tab("nbd0 /disk none\n");
	assert_int_equal(truncate(TAB, 65537), 0);
	assert_refused("nbd0", EFBIG, TAB ": it has more than 65536 bytes");
	assert_int_equal(truncate(TAB, 65536), 0);
	assert_refused("nbd0", EINVAL, TAB ":2: character 1 is not text (0x00)");
}

static void what_cannot_be_read_is_named(void **state)
{
	uid_t self = geteuid();

	assert_refused("nbd0", ENOENT, TAB ": No such file or directory");
	write_tab("nbd0 /disk none\n");
	assert_int_equal(chmod(TAB, 0), 0);
	if (self == 0)
		assert_int_equal(seteuid(65534), 0);
	assert_refused("nbd0", EACCES, TAB ": Permission denied");
	assert_int_equal(seteuid(self), 0);
	assert_int_equal(unlink(TAB), 0);
	assert_int_equal(mkfifo(TAB, 0600), 0);
	assert_refused("nbd0", EINVAL, TAB ": not a plain file");
	assert_int_equal(unlink(TAB), 0);
	assert_int_equal(symlink(".", TAB), 0);
	assert_refused("nbd0", EINVAL, TAB ": not a plain file");
}

int main(void)
{
#define EACH(test) cmocka_unit_test_teardown(test, remove_tab)
	const struct CMUnitTest tests[] = {
		EACH(a_line_of_three_fields_leaves_the_rest_open),
		EACH(every_option_is_taken),
		EACH(each_device_has_its_own_line),
		EACH(carriage_returns_end_lines_too),
		EACH(an_empty_file_has_no_line),
		EACH(a_missing_field_is_named),
		EACH(a_wrong_field_is_shown),
		EACH(a_wrong_option_is_named),
		EACH(numbers_have_their_ranges),
		EACH(a_device_has_one_line),
		EACH(devices_on_each_other_are_a_loop),
		EACH(a_device_that_is_asked_for_must_be_one),
		EACH(bytes_that_are_no_text_are_refused),
		EACH(a_line_may_be_long),
		EACH(a_file_may_be_full_of_lines),
		EACH(a_file_that_is_too_large_is_refused),
		EACH(what_cannot_be_read_is_named),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
