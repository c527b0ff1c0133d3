/* A session's log memory: what it gives out never overlaps, comes back in any order, and is the same
 * memory again and again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nbd/session-memory.h"

#define SPACE   (64 * 1024)
#define MAX_LEN (8 * 1024)
#define HELD    64

static struct session_memory memory;

static int set_up(void **state)
{
	struct error err;

	(void)state;
	return session_memory_init(&memory, SPACE, MAX_LEN, false, &err);
}

static int tear_down(void **state)
{
	(void)state;
	session_memory_destroy(&memory);
	return 0;
}

static bool is_in_ring(const struct session_record *record)
{
	const uint8_t *at = (const uint8_t *)record;

	return at >= memory.base && at < memory.base + memory.size;
}

static void it_is_used_again_from_its_start(void **state)
{
	struct session_record *first = session_memory_take(&memory, 100), *again;

	(void)state;
	assert_non_null(first);
	session_memory_give(&memory, first);
	again = session_memory_take(&memory, 5000);
	assert_ptr_equal(again, first);
	session_memory_give(&memory, again);
}

static void in_order_it_goes_round(void **state)
{
	struct session_record *held[4] = { NULL };

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t len = 1 + i * 7919 % MAX_LEN;

		if (held[i % 4])
			session_memory_give(&memory, held[i % 4]);
		held[i % 4] = session_memory_take(&memory, len);
		assert_true(is_in_ring(held[i % 4]));
		memset(held[i % 4]->op.data, i, len);
	}
	for (unsigned i = 0; i < 4; i++)
		session_memory_give(&memory, held[i]);
	assert_int_equal(memory.used, 0);
}

/* As much as a session lets it hold, by what it counts for each. */
static void all_that_is_counted_has_room(void **state)
{
	const uint64_t cost = 1000 + SESSION_OVERHEAD;
	struct session_record *held[SPACE / 1256];

	(void)state;
	for (unsigned turn = 0; turn < 20; turn++) {
		for (unsigned i = 0; i < SPACE / cost; i++) {
			held[i] = session_memory_take(&memory, 1000);
			assert_true(is_in_ring(held[i]));
		}
		for (unsigned i = 0; i < SPACE / cost; i++)
			session_memory_give(&memory, held[i]);
	}
}

static void zeroes_cost_no_data(void **state)
{
	struct session_record *record = session_memory_take(&memory, 0);

	(void)state;
	assert_non_null(record);
	assert_true(memory.used <= SESSION_OVERHEAD);
	session_memory_give(&memory, record);
}

struct held {
	struct session_record *record;
	uint64_t len;
	uint8_t value;
};

static void check_and_give(struct held *held)
{
	const uint8_t *bytes;

	if (!held->record)
		return;
	bytes = held->record->op.data;
	for (uint64_t i = 0; i < held->len; i++)
		assert_int_equal(bytes[i], held->value);
	session_memory_give(&memory, held->record);
	held->record = NULL;
}

/* Long and short, and from anywhere. */
static void it_holds_what_it_was_filled_with(void **state)
{
	static uint8_t source[MAX_LEN * 8];
	struct session_memory large;
	struct error err;

	(void)state;
	srand(2);
	for (size_t i = 0; i < sizeof(source); i++)
		source[i] = rand();
	assert_int_equal(
		session_memory_init(&large, 8 * sizeof(source), sizeof(source), false, &err), 0);
	for (unsigned i = 0; i < 500; i++) {
		size_t skip = rand() % 100, len = rand() % (sizeof(source) - skip);
		struct session_record *record = session_memory_take(&large, len);

		session_memory_fill(record, source + skip, len);
		assert_memory_equal(record->op.data, source + skip, len);
		session_memory_give(&large, record);
	}
	session_memory_destroy(&large);
}

/* More than the ring holds, too, which isn't had then; and what is had lies in it. */
static void nothing_overlaps_in_any_order(void **state)
{
	struct held held[HELD] = { 0 };
	unsigned refused = 0;

	(void)state;
	srand(1);
	for (unsigned i = 0; i < 20000; i++) {
		struct held *one = &held[rand() % HELD];

		check_and_give(one);
		*one = (struct held){ .len = rand() % MAX_LEN, .value = i };
		one->record = session_memory_take(&memory, one->len);
		if (!one->record) {
			refused++;
			continue;
		}
		assert_true(is_in_ring(one->record));
		memset(one->record->op.data, one->value, one->len);
	}
	for (unsigned i = 0; i < HELD; i++)
		check_and_give(&held[i]);
	assert_int_equal(memory.used, 0);
	assert_true(refused > 0 && refused < 20000);
}

/* One that stays is in the way of all: but no longer than that. */
static void one_that_stays_blocks_until_it_goes(void **state)
{
	struct session_record *first = session_memory_take(&memory, 100), *other;
	unsigned count = 0;

	(void)state;
	while ((other = session_memory_take(&memory, MAX_LEN))) {
		assert_true(is_in_ring(other));
		session_memory_give(&memory, other);
		assert_true(++count < 100);
	}
	assert_true(count > 0);
	session_memory_give(&memory, first);
	assert_int_equal(memory.used, 0);
	assert_non_null(session_memory_take(&memory, MAX_LEN));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_is_used_again_from_its_start, set_up, tear_down),
		cmocka_unit_test_setup_teardown(in_order_it_goes_round, set_up, tear_down),
		cmocka_unit_test_setup_teardown(all_that_is_counted_has_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(zeroes_cost_no_data, set_up, tear_down),
		cmocka_unit_test(it_holds_what_it_was_filled_with),
		cmocka_unit_test_setup_teardown(nothing_overlaps_in_any_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_that_stays_blocks_until_it_goes, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
