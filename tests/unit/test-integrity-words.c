/* What a gateway says that it has found in its disk is what is read out of it, also behind what it says of
 * its server, and nothing else is taken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/integrity-words.h"
#include "nbd/lasting-words.h"

#define BEFORE "LUKS2, sectors of 4096 bytes; ndio 0.1.0 instance=00 fences"

static void assert_found_again(const struct integrity_found *found)
{
	const struct lasting_facts server = { .state = SESSION_UP, .times_lost = 7 };
	char server_words[128], said[128], description[512];
	struct lasting_facts server_read;
	struct integrity_found read;

	lasting_say(&server, server_words, sizeof(server_words));
	integrity_say(found, said, sizeof(said));
	assert_true(strlen(said) < sizeof(said) - 1);
	snprintf(description, sizeof(description), "%s%s%s", BEFORE, server_words, said);
	assert_true(integrity_parse(description, &read));
	assert_int_equal(read.trusted, found->trusted);
	assert_int_equal(read.bad_blocks, found->bad_blocks);
	assert_int_equal(read.bad_reads, found->bad_reads);
	assert_int_equal(read.stale_areas, found->stale_areas);
	assert_true(lasting_parse(description, &server_read));
	assert_int_equal(server_read.times_lost, 7);
	assert_false(server_read.fences);
}

static void what_is_found_is_read(void **state)
{
	static const struct integrity_found all[] = {
		{ 0 },
		{ .trusted = true },
		{ .trusted = true, .bad_blocks = 3, .bad_reads = 7, .stale_areas = 1 },
		{ .bad_blocks = UINT64_MAX, .bad_reads = UINT64_MAX, .stale_areas = UINT64_MAX },
		{ .trusted = true,
		  .bad_blocks = UINT64_MAX,
		  .bad_reads = UINT64_MAX,
		  .stale_areas = UINT64_MAX },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		assert_found_again(&all[i]);
}

static void its_words_are_read(void **state)
{
	struct integrity_found found;

	assert_true(integrity_parse(
		BEFORE "; integrity trusted, 3 bad blocks, 7 bad reads, 1 stale areas", &found));
	assert_true(found.trusted);
	assert_int_equal(found.bad_blocks, 3);
	assert_int_equal(found.bad_reads, 7);
	assert_int_equal(found.stale_areas, 1);
	assert_true(integrity_parse(
		BEFORE "; integrity checked, 0 bad blocks, 0 bad reads, 2 stale areas", &found));
	assert_false(found.trusted);
	assert_int_equal(found.bad_blocks, 0);
	assert_int_equal(found.stale_areas, 2);
}

static void no_other_words_are(void **state)
{
	static const char *const others[] = {
		"",
		BEFORE,
		BEFORE "; integrity",
		BEFORE "; integrity trusted",
		BEFORE "; integrity believed, 3 bad blocks, 7 bad reads, 1 stale areas",
		BEFORE "; integrity trusted, 3 bad blocks",
		BEFORE "; integrity trusted, 3 bad blocks, 1 stale areas",
		BEFORE "; integrity trusted, 3 bad blocks, 7 bad reads, 1 stale",
		BEFORE "; integrity trusted, x bad blocks, 7 bad reads, 1 stale areas",
	};
	struct integrity_found found;

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (integrity_parse(others[i], &found))
			fail_msg("taken: %s", others[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_found_is_read),
		cmocka_unit_test(its_words_are_read),
		cmocka_unit_test(no_other_words_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
