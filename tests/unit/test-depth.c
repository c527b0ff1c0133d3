/* Who waits for room, and for how long. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "engine/depth.h"

#define PATIENCE 120 /* seconds; then somebody waits forever */
#define FOREVER  (PATIENCE * 1000)
#define THREADS  8

static struct depth depth;

/* A thread that enters, and is made to leave by the test. */
struct reader {
	pthread_t thread;
	uint64_t len;
	unsigned turn; /* 1: entered first; 0: not yet */
};

static atomic_uint nr_entered;

static int set_up(void **state)
{
	alarm(PATIENCE);
	nr_entered = 0;
	return 0;
}

static int tear_down(void **state)
{
	depth_destroy(&depth);
	alarm(0);
	return 0;
}

static void *enter(void *opaque)
{
	struct reader *reader = opaque;

	depth_enter(&depth, reader->len);
	reader->turn = atomic_fetch_add(&nr_entered, 1) + 1;
	return NULL;
}

static unsigned count_waiters(void)
{
	unsigned count = 0;

	pthread_mutex_lock(&depth.lock);
	for (struct depth_waiter *waiter = depth.first; waiter; waiter = waiter->next)
		count++;
	pthread_mutex_unlock(&depth.lock);
	return count;
}

static void start(struct reader *reader, uint64_t len)
{
	*reader = (struct reader){ .len = len };
	assert_int_equal(pthread_create(&reader->thread, NULL, enter, reader), 0);
}

/* Starts one that has to wait, and lets it get in line, if it isn't out of it again. */
static void start_waiting(struct reader *reader, uint64_t len)
{
	unsigned before = count_waiters(), entered = nr_entered;

	start(reader, len);
	while (count_waiters() == before && nr_entered == entered)
		usleep(1000);
}

static void all_enter_at_once_while_there_is_room(void **state)
{
	depth_init(&depth, 100, FOREVER);
	depth_enter(&depth, 50);
	depth_enter(&depth, 49);
	depth_enter(&depth, 1);
	assert_false(depth_leave(&depth, 1));
	depth_leave(&depth, 50);
	depth_enter(&depth, 51);
	depth_leave(&depth, 49);
	depth_leave(&depth, 51);
}

static void what_is_larger_than_the_depth_enters_alone(void **state)
{
	struct reader small;

	depth_init(&depth, 100, FOREVER);
	depth_enter(&depth, 1000);
	start_waiting(&small, 1);
	assert_int_equal(nr_entered, 0);
	depth_leave(&depth, 1000);
	pthread_join(small.thread, NULL);
	assert_int_equal(depth.bytes, 1);
	depth_leave(&depth, 1);
}

/* A small one would fit in front of a large one, but then the large one might wait forever. */
static void nobody_overtakes(void **state)
{
	struct reader large, small;

	depth_init(&depth, 100, FOREVER);
	depth_enter(&depth, 60);
	start_waiting(&large, 80);
	start_waiting(&small, 10);
	assert_int_equal(nr_entered, 0);
	assert_true(depth_leave(&depth, 60));
	pthread_join(large.thread, NULL);
	pthread_join(small.thread, NULL);
	assert_int_equal(depth.bytes, 90);
	depth_leave(&depth, 80);
	depth_leave(&depth, 10);
}

static void a_leave_lets_in_all_that_have_room_then(void **state)
{
	struct reader readers[4];

	depth_init(&depth, 100, FOREVER);
	depth_enter(&depth, 100);
	for (unsigned i = 0; i < 4; i++)
		start_waiting(&readers[i], 40);
	depth_leave(&depth, 100);
	pthread_join(readers[0].thread, NULL);
	pthread_join(readers[1].thread, NULL);
	assert_int_equal(count_waiters(), 2);
	assert_int_equal(nr_entered, 2);
	depth_leave(&depth, 40);
	pthread_join(readers[2].thread, NULL);
	assert_int_equal(readers[2].turn, 3);
	assert_true(depth_leave(&depth, 40));
	pthread_join(readers[3].thread, NULL);
	depth_leave(&depth, 40);
	depth_leave(&depth, 40);
}

static void a_disk_that_is_slow_to_answer_is_asked_for_more(void **state)
{
	int64_t before;

	depth_init(&depth, 100, 30);
	depth_enter(&depth, 100);
	before = clock_ms();
	depth_enter(&depth, 100);
	assert_in_range(clock_ms() - before, 29, FOREVER);
	assert_int_equal(count_waiters(), 0);
	depth_leave(&depth, 100);
	depth_leave(&depth, 100);
	/* It is remembered: now nearly as much has room at once. */
	depth.patience = FOREVER;
	depth_enter(&depth, 100);
	depth_enter(&depth, 90);
	depth_leave(&depth, 100);
	depth_leave(&depth, 90);
}

/* One that was slow only once would otherwise be asked for too much forever. */
static void but_not_for_good(void **state)
{
	enum { MIB = 1 << 20 };

	depth_init(&depth, MIB, 1);
	depth_enter(&depth, MIB);
	depth_enter(&depth, MIB);
	depth_leave(&depth, MIB);
	depth_leave(&depth, MIB);
	assert_in_range(depth.max, 2 * MIB - 1, 2 * MIB);
	for (unsigned i = 0; i < 1000; i++) {
		depth_enter(&depth, 1);
		depth_leave(&depth, 1);
	}
	assert_in_range(depth.max, MIB, MIB + MIB / 100);
}

/* From the middle of the line and from its end. */
static void who_has_lost_patience_holds_nobody_up(void **state)
{
	struct reader middle, end, patient[2];

	depth_init(&depth, 100, FOREVER);
	depth_enter(&depth, 100);
	start_waiting(&patient[0], 30);
	depth.patience = 500;
	start_waiting(&middle, 50);
	depth.patience = FOREVER;
	start_waiting(&patient[1], 30);
	pthread_join(middle.thread, NULL);
	depth.patience = 1;
	start(&end, 50);
	pthread_join(end.thread, NULL);
	assert_int_equal(nr_entered, 2);
	assert_int_equal(depth.bytes, 200);
	assert_int_equal(count_waiters(), 2);
	depth_leave(&depth, 50);
	pthread_join(patient[0].thread, NULL);
	assert_int_equal(count_waiters(), 1);
	depth_leave(&depth, 50);
	pthread_join(patient[1].thread, NULL);
	depth_leave(&depth, 100);
	depth_leave(&depth, 30);
	depth_leave(&depth, 30);
}

/* ---- many ---- */

#define TURNS 5000
#define ROOM  100

static atomic_uint inside;
static atomic_bool crowded;

static void *come_and_go(void *opaque)
{
	unsigned seed = (uintptr_t)opaque;

	for (unsigned i = 0; i < TURNS; i++) {
		unsigned len = 1 + rand_r(&seed) % ROOM;

		depth_enter(&depth, len);
		if (atomic_fetch_add(&inside, len) + len > ROOM)
			crowded = true;
		atomic_fetch_sub(&inside, len);
		depth_leave(&depth, len);
	}
	return NULL;
}

static void there_is_never_more_than_the_depth(void **state)
{
	pthread_t threads[THREADS];

	depth_init(&depth, ROOM, FOREVER);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_false(crowded);
	assert_int_equal(depth.bytes, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(all_enter_at_once_while_there_is_room),
		TEST(what_is_larger_than_the_depth_enters_alone),
		TEST(nobody_overtakes),
		TEST(a_leave_lets_in_all_that_have_room_then),
		TEST(a_disk_that_is_slow_to_answer_is_asked_for_more),
		TEST(but_not_for_good),
		TEST(who_has_lost_patience_holds_nobody_up),
		TEST(there_is_never_more_than_the_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
