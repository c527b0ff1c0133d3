/* What the server tells: nothing that a terminal obeys, and not more of a client than somebody reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/printable.h"
#include "serve/say.h"

static int log_fd, before;
static char said[256 * 1024];

/* Standard error is a file from here on. */
static int begin(void **state)
{
	log_fd = memfd_create("log", MFD_CLOEXEC);
	before = dup(STDERR_FILENO);
	return log_fd >= 0 && before >= 0 && dup2(log_fd, STDERR_FILENO) >= 0 ? 0 : -1;
}

static int end(void **state)
{
	dup2(before, STDERR_FILENO);
	close(before);
	close(log_fd);
	return 0;
}

/* All of it since begin(). */
static const char *all_said(void)
{
	ssize_t len = pread(log_fd, said, sizeof(said) - 1, 0);

	assert_true(len >= 0);
	said[len] = '\0';
	return said;
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (const char *at = text; (at = strstr(at, what)); at++)
		n++;
	return n;
}

static void what_a_terminal_obeys_is_not_printed(void **state)
{
	static const char *const texts[][2] = {
		{ "plain", "plain" },
		{ "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x92\xbe",
		  "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x92\xbe" },
		{ "a\nb\rc\td", "a?b?c?d" },
		{ "\033[2J\007\x7f", "?[2J??" },
		{ "\xc2\x9b"
		  "31m \xc2\xa0",
		  "??31m \xc2\xa0" },
		{ "a\xe2\x80\xae"
		  "b\xe2\x81\xa6"
		  "c\xe2\x80\xa8",
		  "a???b???c???" },
		{ "\xe2\x80\x90\xe2\x81\xa0", "\xe2\x80\x90\xe2\x81\xa0" },
		{ "\xff\xe2", "\xff\xe2" },
		{ "\xe2\x80", "\xe2\x80" },
	};
	char to[64];

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_string_equal(printable(texts[i][0], to, sizeof(to)), texts[i][1]);
	assert_string_equal(printable("cut short", to, 4), "cut");
}

static void a_line_is_one_line(void **state)
{
	char longer[3000];

	say("name \"%s\"", "a\nndio serve: b\033[0m");
	assert_string_equal(all_said(), "ndio serve: name \"a?ndio serve: b?[0m\"\n");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	say("%s", longer);
	assert_int_equal(count(all_said(), "\n"), 2);
	assert_true(said[strlen(said) - 1] == '\n');
}

static unsigned sum_behind(const char *text, const char *words)
{
	unsigned sum = 0;

	for (const char *at = text; (at = strstr(at, words)); at++)
		sum += strtoul(at + strlen(words), NULL, 10);
	return sum;
}

/* The numbers of those that weren't said. */
static unsigned counted(const char *text)
{
	return sum_behind(text, "ndio serve: peer: and ") +
	       sum_behind(text, "ndio serve: clients: and ");
}

static void a_burst_is_counted(void **state)
{
	struct teller teller = { 0 };

	assert_false(teller_has_more(&teller));
	for (int i = 0; i < 1000; i++)
		teller_say(&teller, "peer", "failure %d", i);
	assert_true(teller_has_more(&teller));
	teller_go_on(&teller, "peer", true);
	assert_false(teller_has_more(&teller));
	/* It is ten, unless this was stopped for a second. */
	assert_in_range(count(all_said(), "failure"), 10, 500);
	assert_int_equal(count(said, "failure") + counted(said), 1000);
	assert_non_null(strstr(said, "ndio serve: failure 0\n"));
	teller_go_on(&teller, "peer", true);
	assert_int_equal(count(all_said(), "failure") + counted(said), 1000);
}

static void so_is_one_of_many_short_connections(void **state)
{
	unsigned lines;

	for (int i = 0; i < 500; i++) {
		struct teller teller = { 0 };

		for (int j = 0; j < 20; j++)
			teller_say(&teller, "peer", "failure %d", j);
		teller_go_on(&teller, "peer", true);
	}
	tellers_end();
	lines = count(all_said(), "failure");
	assert_in_range(lines, 1, 2500);
	assert_int_equal(lines + counted(said), 10000);
	assert_in_range(count(said, "\n"), 50, 2600);
}

static void after_a_second_it_is_told_again(void **state)
{
	struct teller teller = { 0 };

	for (int i = 0; i < 30; i++)
		teller_say(&teller, "peer", "failure %d", i);
	/* Not by waiting: as if it had been a second ago. */
	teller.since = clock_ms() - 1000;
	teller.left_out = 20;
	teller_go_on(&teller, "peer", false);
	assert_false(teller_has_more(&teller));
	assert_non_null(strstr(all_said(), "ndio serve: peer: and 20 more like this\n"));
	teller.left_out = 3;
	teller_say(&teller, "peer", "the last one");
	assert_non_null(strstr(all_said(), "ndio serve: peer: and 3 more like this\n"
					   "ndio serve: the last one\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_terminal_obeys_is_not_printed),
		cmocka_unit_test_setup_teardown(a_line_is_one_line, begin, end),
		cmocka_unit_test_setup_teardown(a_burst_is_counted, begin, end),
		cmocka_unit_test_setup_teardown(after_a_second_it_is_told_again, begin, end),
		cmocka_unit_test_setup_teardown(so_is_one_of_many_short_connections, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
