/* What a gateway says of its server is what is read out of it, and nothing else is taken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "nbd/lasting-words.h"

#define BEFORE "LUKS2, sectors of 512 bytes; ndio 0.1.0 instance=00 fences"

static void assert_comes_back(const struct lasting_facts *facts)
{
	char said[128], description[256];
	struct lasting_facts read;

	lasting_say(facts, said, sizeof(said));
	assert_true(strlen(said) < sizeof(said) - 1);
	snprintf(description, sizeof(description), "%s%s", BEFORE, said);
	assert_true(lasting_parse(description, &read));
	assert_int_equal(read.state, facts->state);
	assert_int_equal(read.fences, facts->fences);
	assert_int_equal(read.lost_ms, facts->lost_ms);
	assert_int_equal(read.times_lost, facts->times_lost);
	assert_int_equal(read.unflushed, facts->unflushed);
}

static void what_is_said_is_read(void **state)
{
	static const enum session_state states[] = { SESSION_UP, SESSION_WAITING, SESSION_GIVEN_UP,
						     SESSION_ENDED };
	struct lasting_facts facts = { .times_lost = 3, .unflushed = 4096 };

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		facts.state = states[i];
		facts.lost_ms = states[i] == SESSION_UP ? 0 : 12000;
		facts.fences = !facts.fences;
		assert_comes_back(&facts);
	}
	facts.times_lost = facts.unflushed = UINT64_MAX;
	facts.lost_ms = INT64_C(86400000) * 365 * 1000;
	facts.state = SESSION_GIVEN_UP;
	facts.fences = false;
	assert_comes_back(&facts);
}

static void who_comes_back_is_waited_for(void **state)
{
	assert_string_equal(lasting_state_word(SESSION_QUIESCING), "waiting");
	assert_string_equal(lasting_state_word(SESSION_REPLAYING), "waiting");
	assert_string_equal(lasting_state_word(SESSION_CHECKING), "waiting");
}

static void the_words_are_read(void **state)
{
	struct lasting_facts facts;

	assert_true(lasting_parse(BEFORE "; server waiting, away 12 s, lost 2 times, 65536 bytes "
					 "unflushed, best effort",
				  &facts));
	assert_int_equal(facts.state, SESSION_WAITING);
	assert_int_equal(facts.lost_ms, 12000);
	assert_int_equal(facts.times_lost, 2);
	assert_int_equal(facts.unflushed, 65536);
	assert_false(facts.fences);
}

static void nothing_else_is(void **state)
{
	static const char *const others[] = {
		"",
		BEFORE,
		BEFORE "; server",
		BEFORE "; server asleep, away 1 s, lost 2 times, 3 bytes unflushed, fenced",
		BEFORE "; server up, away -1 s, lost 2 times, 3 bytes unflushed, fenced",
		BEFORE "; server up, away 9223372036854775807 s, lost 2 times, 3 bytes unflushed, "
		       "fenced",
		BEFORE "; server up, away 1 s, lost 2 times, 3 bytes unflushed",
		BEFORE "; server up, away 1 s, lost 2 times, 3 bytes unflushed, somehow",
		BEFORE "; server up, away 1 s, lost x times, 3 bytes unflushed, fenced",
	};
	struct lasting_facts facts;

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (lasting_parse(others[i], &facts))
			fail_msg("taken: %s", others[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_said_is_read),
		cmocka_unit_test(who_comes_back_is_waited_for),
		cmocka_unit_test(the_words_are_read),
		cmocka_unit_test(nothing_else_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
