/* The table of exports: what a line means, and which line a mistake is in. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "luks/luks-slots.h"
#include "serve/table.h"

#define PATH "exports"

static const struct disk usual = {
	.open = { .connections = 4,
		  .reconnect = 60,
		  .slot = LUKS_ANY_SLOT,
		  .locking = LOCK_IMAGE,
		  .direct = DIRECT_OFF },
	.name = "",
	.key_fd = -1,
};

static struct disks disks;
static struct error err;

/* The status; what it has stays in disks until the next one. */
static int parse_bytes(const char *bytes, size_t len, const struct disk *as)
{
	disks_clear(&disks);
	/* Not a byte more than there may be written to. */
	disks.text = malloc(len + 1);
	assert_non_null(disks.text);
	memcpy(disks.text, bytes, len);
	err.text[0] = '\0';
	return table_parse(PATH, disks.text, len, as, &disks, &err);
}

static void parse(const char *text)
{
	if (parse_bytes(text, strlen(text), &usual) < 0)
		fail_msg("%s", err.text);
}

static void assert_refused(const char *text, const char *message)
{
	assert_int_equal(parse_bytes(text, strlen(text), &usual), -EINVAL);
	assert_string_equal(err.text, message);
}

/* This line, between two good ones. */
static void assert_bad_line(const char *line, const char *why)
{
	char *text, *message;

	assert_true(asprintf(&text, "a /a none\n%s\nb /b none\n", line) > 0);
	assert_true(asprintf(&message, PATH ":2: %s", why) > 0);
	assert_refused(text, message);
	free(text);
	free(message);
}

static int clear(void **state)
{
	disks_clear(&disks);
	return 0;
}

static void a_line_of_three_fields_is_as_usual(void **state)
{
	const struct disk *disk = &disks.all[0];

	parse("accounts /srv/disk none\n");
	assert_int_equal(disks.count, 1);
	assert_string_equal(disk->name, "accounts");
	assert_string_equal(disk->locator, "/srv/disk");
	assert_string_equal(disk->open.file, "/srv/disk");
	assert_null(disk->open.uri);
	assert_null(disk->key_file);
	assert_null(disk->description);
	assert_int_equal(disk->key_fd, -1);
	assert_false(disk->open.unlock || disk->open.readonly || disk->open.discard);
	assert_false(disk->open.no_discard || disk->open.one_slot || disk->is_credential);
	assert_int_equal(disk->open.slot, LUKS_ANY_SLOT);
	assert_int_equal(disk->open.direct, DIRECT_OFF);
	assert_int_equal(disk->open.locking, LOCK_IMAGE);
	assert_int_equal(disk->open.connections, 4);
	assert_int_equal(disk->open.reconnect, 60);
	assert_int_equal(disk->line, 1);
}

static void every_option_of_a_file_is_taken(void **state)
{
	const struct disk *disk = &disks.all[0];

	parse("# name locator key options\n\n"
	      " a\t/srv/disk \t /etc/key  read-only,discard,header=/a=b,trust=/c,slot=0,max-kdf-time=600,"
	      "keyfile-offset=1K,keyfile-size=32,direct=on,no-lock-image,description=A%20disk \r\n");
	assert_string_equal(disk->key_file, "/etc/key");
	assert_false(disk->is_credential);
	assert_true(disk->open.unlock && disk->open.readonly && disk->open.discard);
	assert_true(disk->open.one_slot);
	assert_string_equal(disk->open.header, "/a=b");
	assert_string_equal(disk->open.trust, "/c");
	assert_int_equal(disk->open.slot, 0);
	assert_int_equal(disk->open.max_kdf_time, 600);
	assert_int_equal(disk->key_part.offset, 1024);
	assert_int_equal(disk->key_part.size, 32);
	assert_int_equal(disk->open.direct, DIRECT_ON);
	assert_int_equal(disk->open.locking, LOCK_IMAGE_OFF);
	assert_string_equal(disk->description, "A disk");
	assert_int_equal(disk->line, 3);
}

static void every_option_of_a_server_is_taken(void **state)
{
	const struct disk *disk = &disks.all[0];

	parse("a nbd://server/b none connections=64,answer-timeout=5,reconnect=0,unflushed=1M,"
	      "wait=7");
	assert_string_equal(disk->open.uri, "nbd://server/b");
	assert_null(disk->open.file);
	assert_int_equal(disk->open.connections, 64);
	assert_int_equal(disk->open.answer_timeout, 5);
	assert_int_equal(disk->open.reconnect, 0);
	assert_int_equal(disk->open.unflushed, 1 << 20);
	assert_int_equal(disk->open.wait, 7);
}

static void a_line_has_the_last_word(void **state)
{
	static const char text[] = "a /a none no-discard,direct=auto\nb /b none\n";
	struct disk as = usual;

	as.open.discard = as.open.readonly = true;
	assert_int_equal(parse_bytes(text, strlen(text), &as), 0);
	assert_true(disks.all[0].open.no_discard && !disks.all[0].open.discard);
	assert_int_equal(disks.all[0].open.direct, DIRECT_AUTO);
	assert_true(disks.all[1].open.discard && !disks.all[1].open.no_discard);
	assert_true(disks.all[0].open.readonly && disks.all[1].open.readonly);
}

static void a_credential_is_named_by_its_folder(void **state)
{
	parse("a /a $CREDENTIALS_DIRECTORY/disk.key");
	assert_true(disks.all[0].is_credential && disks.all[0].open.unlock);
	assert_string_equal(disks.all[0].key_file, "disk.key");
}

static void a_name_is_any_text(void **state)
{
	static const char *const names[][2] = {
		{ "\"\"", "" },
		{ "%22%22", "\"\"" },
		{ "a%20b%0A%2f%2F", "a b\n//" },
		{ "100%25", "100%" },
		{ "\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xbe", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xbe" },
		{ "%C3%A4", "\xc3\xa4" },
		{ "none", "none" },
		{ "x;ndio-session=1", "x;ndio-session=1" },
	};
	char line[256];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(line, sizeof(line), "%s /a none", names[i][0]);
		parse(line);
		assert_string_equal(disks.all[0].name, names[i][1]);
	}
}

static void a_name_is_as_long_as_the_protocol_has_them(void **state)
{
	char line[5000];

	memset(line, 'n', sizeof(line));
	strcpy(line + 4096, " /a none");
	parse(line);
	assert_int_equal(strlen(disks.all[0].name), 4096);
	memset(line, 'n', sizeof(line));
	strcpy(line + 4097, " /a none");
	assert_bad_line(line, "an export's name has at most 4096 bytes");
}

static void a_wrong_name_is_shown(void **state)
{
	static const char *const numbers[] = { "%", "a%2", "a%2x", "%x2", "a%00b" };
	char line[256], why[256];

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		snprintf(line, sizeof(line), "%s /disk none", numbers[i]);
		snprintf(why, sizeof(why),
			 "\"%s\": a %% and two digits is a character, as in a URI, and %%25 a %%",
			 numbers[i]);
		assert_bad_line(line, why);
	}
	assert_bad_line("\xff /disk none", "the export's name, \"\xff\", is not UTF-8");
	assert_bad_line("%c0%af /disk none", "the export's name, \"\xc0\xaf\", is not UTF-8");
	assert_bad_line("x;ndio-session=0123456789abcdef0123456789abcdef.1 /disk none",
			"the export's name, \"x;ndio-session=0123456789abcdef0123456789abcdef.1\", "
			"ends as that of a session does");
}

static void a_name_has_one_line(void **state)
{
	assert_refused("c /c none\na /a none\n\na /b none\n",
		       PATH ":4: line 2 is for the name \"a\" already");
	assert_refused("a%20b /a none\na%20b /b none",
		       PATH ":2: line 1 is for the name \"a b\" already");
	assert_refused("\"\" /a none\n\"\" /b none",
		       PATH ":2: line 1 is for the name \"\" already");
	parse("a /a none\nA /b none\n\"\" /c none\n");
	assert_int_equal(disks.count, 3);
}

static void a_table_has_at_least_one_line_and_so_many_at_most(void **state)
{
	char text[65 * 32], *end = text;

	assert_refused("", PATH ": no line has an export");
	assert_refused("\n# a /a none\n  \t\n", PATH ": no line has an export");
	for (int i = 0; i < 64; i++)
		end += sprintf(end, "n%d /d%d none\n", i, i);
	parse(text);
	assert_int_equal(disks.count, 64);
	strcpy(end, "n64 /d64 none\n");
	assert_refused(text, PATH ":65: no more than 64 exports");
}

static void a_missing_field_is_named(void **state)
{
	assert_bad_line("c", "the second field, the locator, is missing");
	assert_bad_line("c /c", "the third field, the key file or \"none\", is missing");
	assert_bad_line("c /c none read-only discard", "there are more than four fields");
}

static void a_wrong_field_is_shown(void **state)
{
	static const char *const keys[] = { "key", "$CREDENTIALS_DIRECTORY/",
					    "$CREDENTIALS_DIRECTORY/a/b", "$CREDENTIALS_DIRECTORY",
					    "-" };
	char line[128], why[256];

	assert_bad_line("c disk.luks none",
			"the locator, disk.luks, is neither an absolute path nor an NBD URI");
	assert_bad_line("c nbd:server none",
			"nbd:server: not an NBD URI: write nbd://HOST:PORT/EXPORT "
			"or nbd+unix:///EXPORT?socket=PATH");
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		snprintf(line, sizeof(line), "c /c %s", keys[i]);
		snprintf(why, sizeof(why),
			 "the key file, %s, is neither an absolute path nor "
			 "$CREDENTIALS_DIRECTORY/NAME nor \"none\"",
			 keys[i]);
		assert_bad_line(line, why);
	}
}

static void a_wrong_option_is_named(void **state)
{
	assert_bad_line("c /c none sync", "unknown option \"sync\"");
	assert_bad_line("c /c none read-only,", "unknown option \"\"");
	assert_bad_line("c /c none read-only=1", "option read-only takes no value");
	assert_bad_line("c /c none direct", "option direct needs a value");
	assert_bad_line("c /c none direct=yes", "direct=yes is none of auto, on, off");
	assert_bad_line("c /c none direct=", "direct= is none of auto, on, off");
	assert_bad_line("c /c none direct=auto, on", "there are more than four fields");
	assert_bad_line("c /c none read-only,discard,read-only", "option read-only is given twice");
	assert_bad_line("c /c none discard,no-discard", "discard or no-discard, not both");
	assert_bad_line("c /c /k header=x", "header=x is not an absolute path");
	assert_bad_line("c /c /k slot=32", "slot=32 is not a number from 0 to 31");
	assert_bad_line("c /c /k keyfile-size=9M",
			"keyfile-size=9M is not a size from 1 to 8388608 bytes");
	assert_bad_line("c nbd://h/ none connections=65",
			"connections=65 is not a number from 1 to 64");
	assert_bad_line("c nbd://h/ none unflushed=4K",
			"unflushed=4K is not a size from 1048576 to 9223372036854775807 bytes");
}

static void an_option_has_an_effect(void **state)
{
	static const char *const options[][2] = {
		{ "/c none header=/h", "option header needs a key or a token" },
		{ "/c none trust=/t", "option trust needs a key or a token" },
		{ "/c none slot=1", "option slot needs a key or a token" },
		{ "/c none keyfile-size=1", "option keyfile-size needs a key file" },
		{ "/c none max-kdf-time=1", "option max-kdf-time needs a key or a token" },
		{ "/c none reconnect=1", "option reconnect needs an NBD URI" },
		{ "/c none connections=1", "option connections needs an NBD URI" },
		{ "nbd://h/ none direct=on", "option direct needs a file or block device" },
		{ "nbd://h/ none no-lock-image",
		  "option no-lock-image needs a file or block device" },
	};
	char line[128];

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		snprintf(line, sizeof(line), "c %s", options[i][0]);
		assert_bad_line(line, options[i][1]);
	}
}

static void a_description_is_any_text_but_an_instance(void **state)
{
	char line[2048];

	parse("a /a none description=%C3%A4%2C%3D100%25");
	assert_string_equal(disks.all[0].description, "\xc3\xa4,=100%");
	assert_bad_line("c /c none description=%ff", "the description, \"\xff\", is not UTF-8");
	assert_bad_line("c /c none description=%",
			"\"%\": a % and two digits is a character, as in a URI, and %25 a %");
	assert_bad_line("c /c none description=ndio%20instance=0",
			"a description can't have \"instance=\" in it");
	memset(line, 'd', sizeof(line));
	memcpy(line, "c /c none description=", 22);
	line[22 + 1024] = '\0';
	parse(line);
	line[22 + 1024] = 'd';
	line[22 + 1025] = '\0';
	assert_bad_line(line, "a description has at most 1024 bytes");
}

static void what_is_no_text_is_told_by_its_place(void **state)
{
	static const char bytes[] = "a /a none\nb /b\0 none\n";

	assert_int_equal(parse_bytes(bytes, sizeof(bytes) - 1, &usual), -EINVAL);
	assert_string_equal(err.text, PATH ":2: character 5 is not text (0x00)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_of_three_fields_is_as_usual),
		cmocka_unit_test(every_option_of_a_file_is_taken),
		cmocka_unit_test(every_option_of_a_server_is_taken),
		cmocka_unit_test(a_line_has_the_last_word),
		cmocka_unit_test(a_credential_is_named_by_its_folder),
		cmocka_unit_test(a_name_is_any_text),
		cmocka_unit_test(a_name_is_as_long_as_the_protocol_has_them),
		cmocka_unit_test(a_wrong_name_is_shown),
		cmocka_unit_test(a_name_has_one_line),
		cmocka_unit_test(a_table_has_at_least_one_line_and_so_many_at_most),
		cmocka_unit_test(a_missing_field_is_named),
		cmocka_unit_test(a_wrong_field_is_shown),
		cmocka_unit_test(a_wrong_option_is_named),
		cmocka_unit_test(an_option_has_an_effect),
		cmocka_unit_test(a_description_is_any_text_but_an_instance),
		cmocka_unit_test(what_is_no_text_is_told_by_its_place),
	};

	return cmocka_run_group_tests(tests, NULL, clear);
}
