/* How much a disk gets at once, by how it answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file/pace.h"

/* A queue that a caller keeps full. */
struct queue {
	struct pace pace;
	unsigned depth, in_flight;
	int64_t now, turn; /* ns: that each turn takes */
};

/* It gets what it may have; and then so many of it land at once. Returns what was in flight. */
static unsigned take_turn(struct queue *queue, unsigned at_once)
{
	unsigned held = queue->depth - queue->in_flight;
	unsigned room = pace_room(&queue->pace, queue->in_flight, held, queue->now);
	unsigned in_flight, landed;

	assert_true(room <= held);
	in_flight = queue->in_flight += room;
	assert_true(in_flight > 0);
	landed = at_once < in_flight ? at_once : in_flight;
	queue->now += queue->turn;
	pace_landed(&queue->pace, landed, in_flight, queue->now);
	queue->in_flight -= landed;
	return in_flight;
}

/* The least and the most that was in flight in turns of which so many land at once. */
static void take_turns(struct queue *queue, unsigned count, unsigned at_once, unsigned *least,
		       unsigned *most)
{
	*least = UINT32_MAX;
	*most = 0;
	while (count-- > 0) {
		unsigned in_flight = take_turn(queue, at_once);

		*least = in_flight < *least ? in_flight : *least;
		*most = in_flight > *most ? in_flight : *most;
	}
}

static void test_one_by_one(void **state)
{
	for (unsigned depth = 1; depth <= 64; depth++) {
		struct queue queue = { .depth = depth };
		unsigned least, most;

		take_turns(&queue, 200, 1, &least, &most);
		assert_int_equal(least, depth);
		assert_int_equal(most, depth);
	}
}

/* Half of them, once that is known. */
static void test_all_at_once(void **state)
{
	for (unsigned depth = 8; depth <= 64; depth++) {
		struct queue queue = { .depth = depth };
		unsigned least, most;

		take_turns(&queue, 100, UINT32_MAX, &least, &most);
		take_turns(&queue, 100, UINT32_MAX, &least, &most);
		assert_int_equal(most, depth / 2);
		/* What it remembers of a depth fades, until that is there again. */
		assert_in_range(least, depth / 2 - 1, depth / 2);
	}
}

/* So few aren't worth an interrupt each. */
static void test_few(void **state)
{
	for (unsigned depth = 1; depth <= 8; depth++) {
		struct queue queue = { .depth = depth };
		unsigned least, most;

		take_turns(&queue, 200, UINT32_MAX, &least, &most);
		assert_in_range(least, depth < 4 ? depth : 4, depth);
	}
}

static void test_changes_its_ways(void **state)
{
	struct queue queue = { .depth = 32 };
	unsigned least, most;

	take_turns(&queue, 100, UINT32_MAX, &least, &most);
	assert_int_equal(take_turn(&queue, UINT32_MAX), 16);
	take_turns(&queue, 100, 1, &least, &most);
	assert_int_equal(take_turn(&queue, 1), 32);
	take_turns(&queue, 100, UINT32_MAX, &least, &most);
	assert_int_equal(take_turn(&queue, UINT32_MAX), 16);
}

/* Of many there are few left: half of these then. And many again: half of those at once. */
static void test_depth_changes(void **state)
{
	struct queue queue = { .depth = 64 };
	unsigned least, most;

	take_turns(&queue, 100, UINT32_MAX, &least, &most);
	queue.depth = 16;
	take_turns(&queue, 200, UINT32_MAX, &least, &most);
	take_turns(&queue, 10, UINT32_MAX, &least, &most);
	assert_in_range(most, 7, 8);
	queue.depth = 64;
	assert_int_equal(take_turn(&queue, UINT32_MAX), 32);
}

/* What is far away answers all at once, too, and is no sooner for being asked for less. */
static void test_far_away(void **state)
{
	struct queue queue = { .depth = 32, .turn = 3000000 };
	unsigned least, most;

	take_turns(&queue, 100, UINT32_MAX, &least, &most);
	take_turns(&queue, 100, UINT32_MAX, &least, &most);
	assert_int_equal(least, 32);
	queue.turn = 300000; /* and now it's near */
	take_turns(&queue, 200, UINT32_MAX, &least, &most);
	assert_int_equal(take_turn(&queue, UINT32_MAX), 16);
	queue.turn = 3000000;
	take_turns(&queue, 200, UINT32_MAX, &least, &most);
	assert_int_equal(take_turn(&queue, UINT32_MAX), 32);
}

/* Whatever the disk does: what is held goes on, if none is in flight. */
static void test_never_stuck(void **state)
{
	struct pace pace = { 0 };
	unsigned seed = 1;

	for (unsigned i = 0; i < 100000; i++) {
		unsigned in_flight, held, room;

		seed = seed * 1103515245 + 12345;
		in_flight = (seed >> 16) % 65;
		held = (seed >> 8) % 65;
		room = pace_room(&pace, in_flight, held, i);
		assert_true(room <= held);
		assert_true(in_flight > 0 || held == 0 || room > 0);
		pace_landed(&pace, in_flight + room > 0 ? (seed >> 4) % (in_flight + room + 1) : 0,
			    in_flight + room, i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_by_one),  cmocka_unit_test(test_all_at_once),
		cmocka_unit_test(test_few),         cmocka_unit_test(test_changes_its_ways),
		cmocka_unit_test(test_far_away),    cmocka_unit_test(test_depth_changes),
		cmocka_unit_test(test_never_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
