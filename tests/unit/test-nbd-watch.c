/* How long somebody may be held inside libnbd, and which time doesn't count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nbd/nbd-watch.h"

#define LIMIT 4000

static struct nbd_watched watched;

static int set_up(void **state)
{
	(void)state;
	watched = (struct nbd_watched){ .fd = -1 };
	return 0;
}

static void nobody_inside(void **state)
{
	(void)state;
	assert_false(nbd_watched_is_over(&watched, 100 * LIMIT, NBD_WATCH_MS));
}

static void held_inside(void **state)
{
	(void)state;
	watched.until = LIMIT;
	for (int64_t now = 1; now < LIMIT; now += NBD_WATCH_MS)
		assert_false(nbd_watched_is_over(&watched, now, NBD_WATCH_MS));
	assert_true(nbd_watched_is_over(&watched, LIMIT, NBD_WATCH_MS));
}

/* While this process stood still, so did who is inside: before anybody looked at him, or after. */
static void stopped_inside(void **state)
{
	const int64_t stopped = 100 * LIMIT;

	(void)state;
	for (int64_t seen = 0; seen < 2; seen++) {
		watched.until = LIMIT + seen;
		if (seen)
			assert_false(nbd_watched_is_over(&watched, 1, NBD_WATCH_MS));
		assert_false(nbd_watched_is_over(&watched, stopped, stopped + NBD_WATCH_MS));
		assert_false(nbd_watched_is_over(&watched, stopped + LIMIT - 1, NBD_WATCH_MS));
		assert_true(nbd_watched_is_over(&watched, stopped + LIMIT + seen, NBD_WATCH_MS));
	}
}

/* What was forgiven the last time isn't forgiven the next. */
static void stopped_before(void **state)
{
	const int64_t stopped = 100 * LIMIT;

	(void)state;
	watched.until = LIMIT;
	assert_false(nbd_watched_is_over(&watched, stopped, stopped + NBD_WATCH_MS));
	watched.until = 0;
	assert_false(nbd_watched_is_over(&watched, stopped + 1, NBD_WATCH_MS));
	watched.until = stopped + LIMIT;
	assert_false(nbd_watched_is_over(&watched, stopped + LIMIT - 1, NBD_WATCH_MS));
	assert_true(nbd_watched_is_over(&watched, stopped + LIMIT, NBD_WATCH_MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nobody_inside, set_up),
		cmocka_unit_test_setup(held_inside, set_up),
		cmocka_unit_test_setup(stopped_inside, set_up),
		cmocka_unit_test_setup(stopped_before, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
