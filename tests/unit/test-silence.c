/* What counts as progress of a server that owes answers, and what doesn't. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nbd/silence.h"

#define LIMIT 30000
#define LARGE (256 * 1024)

static struct silence silence;

static int set_up(void **state)
{
	(void)state;
	silence = (struct silence){ .limit = LIMIT };
	return 0;
}

static void nothing_owed(void **state)
{
	(void)state;
	assert_int_equal(silence_left(&silence, 5), -1);
	assert_false(silence_is_late(&silence, 10 * LIMIT));
	assert_false(silence_is_over(&silence, 10 * LIMIT));
}

static void nothing_heard(void **state)
{
	(void)state;
	silence_asked(&silence, 4096, 1000);
	silence_asked(&silence, 4096, 20000); /* asking more is no progress */
	assert_false(silence_is_over(&silence, 1000 + LIMIT - 1));
	assert_true(silence_left(&silence, 1000 + LIMIT - 1) <= 1);
	assert_true(silence_is_over(&silence, 1000 + LIMIT));
}

static void answers(void **state)
{
	(void)state;
	silence_asked(&silence, 0, 0);
	silence_asked(&silence, 0, 0);
	silence_answered(&silence, 0, 29000);
	assert_false(silence_is_over(&silence, 29000 + LIMIT - 1));
	assert_true(silence_is_over(&silence, 29000 + LIMIT));
	silence_answered(&silence, 0, 60000);
	assert_int_equal(silence_left(&silence, 10 * LIMIT), -1);
	silence_asked(&silence, 0, 20 * LIMIT); /* idle in between */
	assert_false(silence_is_over(&silence, 21 * LIMIT - 1));
}

static void bytes_now_and_then(void **state)
{
	(void)state;
	silence_asked(&silence, LARGE, 0);
	for (int64_t now = 1000; now < LIMIT; now += 1000)
		silence_moved(&silence, 0, 1);
	assert_true(silence_is_over(&silence, LIMIT));
}

/* For as long as an answer takes at the least speed, and in either direction. */
static void a_slow_line(void **state)
{
	uint64_t part = LIMIT / 1000 * SILENCE_RATE;

	(void)state;
	silence_asked(&silence, LARGE, 0);
	for (unsigned i = 1; i <= LARGE / part; i++) {
		silence_moved(&silence, i % 2 ? part : 0, i % 2 ? 0 : part);
		assert_false(silence_is_over(&silence, i * LIMIT));
	}
	assert_true(silence_is_over(&silence, 100 * LIMIT));
}

static void bytes_without_end(void **state)
{
	unsigned rounds = 0;

	(void)state;
	silence_asked(&silence, LARGE, 0);
	do
		silence_moved(&silence, 0, LARGE / 2);
	while (!silence_is_over(&silence, ++rounds * LIMIT));
	assert_in_range(rounds, 2, 4);
}

/* While this process stood still, nobody read what the server said. */
static void not_looked_at(void **state)
{
	(void)state;
	silence_asked(&silence, 0, 0);
	silence_looked(&silence, 100 * LIMIT);
	assert_false(silence_is_over(&silence, 100 * LIMIT));
	assert_true(silence_is_over(&silence, 101 * LIMIT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nothing_owed, set_up),
		cmocka_unit_test_setup(nothing_heard, set_up),
		cmocka_unit_test_setup(answers, set_up),
		cmocka_unit_test_setup(bytes_now_and_then, set_up),
		cmocka_unit_test_setup(a_slow_line, set_up),
		cmocka_unit_test_setup(bytes_without_end, set_up),
		cmocka_unit_test_setup(not_looked_at, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
