/* Who waits for whom, and that nobody holds a range that conflicts with another's. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/rangelock.h"

#define PATIENCE 120 /* seconds; then somebody waits forever */

/* Do they conflict where they overlap? In the order of enum range_mode. */
static const bool conflicts[3][3] = {
	[RANGE_READ] = { false, false, true },
	[RANGE_WRITE] = { false, true, true },
	[RANGE_PARTIAL] = { true, true, true },
};

/* A range that counts how often it was granted. */
struct waiter {
	struct range range;
	unsigned granted;
};

static struct range_lock ranges;

static int set_up(void **state)
{
	range_lock_init(&ranges);
	return 0;
}

static int tear_down(void **state)
{
	range_lock_destroy(&ranges);
	return 0;
}

static void count_granted(struct range *range)
{
	((struct waiter *)range)->granted++;
}

static bool take(struct waiter *waiter, uint64_t start, uint64_t end, enum range_mode mode)
{
	*waiter = (struct waiter){
		.range = { .start = start, .end = end, .mode = mode, .granted = count_granted }
	};
	return range_acquire(&ranges, &waiter->range);
}

static void release(struct waiter *waiter)
{
	range_release(&ranges, &waiter->range);
}

static void modes_conflict_as_the_table_says(void **state)
{
	struct waiter a, b;

	for (unsigned i = 0; i < 3; i++) {
		for (unsigned j = 0; j < 3; j++) {
			assert_true(take(&a, 512, 1024, i));
			assert_int_equal(take(&b, 1023, 2048, j), !conflicts[i][j]);
			assert_int_equal(b.granted, 0);
			release(&a);
			assert_int_equal(b.granted, conflicts[i][j]);
			assert_int_equal(a.granted, 0);
			release(&b);
			assert_int_equal(b.granted, conflicts[i][j]);
		}
	}
}

static void only_overlapping_ranges_conflict(void **state)
{
	static const struct {
		uint64_t start, end;
		bool overlaps;
	} others[] = {
		{ 0, 1000, false },    { 0, 1001, true },           { 1999, 3000, true },
		{ 2000, 3000, false }, { 1200, 1300, true },        { 0, 5000, true },
		{ 1000, 2000, true },  { 5000, UINT64_MAX, false },
	};
	struct waiter a, b;

	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		assert_true(take(&a, 1000, 2000, RANGE_PARTIAL));
		assert_int_equal(take(&b, others[i].start, others[i].end, RANGE_PARTIAL),
				 !others[i].overlaps);
		release(&a);
		release(&b);
	}
}

static void ranges_are_granted_in_the_order_of_arrival(void **state)
{
	struct waiter w[6];

	assert_true(take(&w[0], 0, 100, RANGE_WRITE));
	for (unsigned i = 1; i < 6; i++)
		assert_false(take(&w[i], 0, 100, RANGE_WRITE));
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned j = 1; j < 6; j++)
			assert_int_equal(w[j].granted, j <= i);
		release(&w[i]);
	}
}

/* Reads that go on and on don't keep a partial write out. */
static void a_waiting_range_holds_up_later_ones(void **state)
{
	struct waiter first, partial, later[3];

	assert_true(take(&first, 0, 100, RANGE_READ));
	assert_false(take(&partial, 50, 150, RANGE_PARTIAL));
	assert_false(take(&later[0], 90, 110, RANGE_READ));
	assert_false(take(&later[1], 149, 200, RANGE_WRITE));
	assert_true(take(&later[2], 0, 50, RANGE_READ));
	release(&first);
	assert_int_equal(partial.granted, 1);
	assert_int_equal(later[0].granted, 0);
	assert_int_equal(later[1].granted, 0);
	release(&partial);
	assert_int_equal(later[0].granted, 1);
	assert_int_equal(later[1].granted, 1);
	for (unsigned i = 0; i < 3; i++)
		release(&later[i]);
}

static void a_range_waits_for_all_that_it_conflicts_with(void **state)
{
	struct waiter held[4], waiting;

	for (unsigned i = 0; i < 4; i++)
		assert_true(take(&held[i], i * 100, i * 100 + 100, RANGE_WRITE));
	assert_false(take(&waiting, 50, 350, RANGE_PARTIAL));
	for (unsigned i = 0; i < 4; i++) {
		static const unsigned order[] = { 2, 0, 3, 1 };

		assert_int_equal(waiting.granted, 0);
		release(&held[order[i]]);
	}
	assert_int_equal(waiting.granted, 1);
	release(&waiting);
	assert_int_equal(waiting.granted, 1);
}

static void one_release_may_grant_many(void **state)
{
	struct waiter writer, readers[5];

	assert_true(take(&writer, 0, 1000, RANGE_PARTIAL));
	for (unsigned i = 0; i < 5; i++)
		assert_false(take(&readers[i], i * 10, 500, RANGE_READ));
	release(&writer);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(readers[i].granted, 1);
		release(&readers[i]);
	}
}

static void a_range_may_be_used_again(void **state)
{
	struct waiter w;

	for (unsigned i = 0; i < 3; i++) {
		assert_true(take(&w, i, i + 5, RANGE_PARTIAL));
		release(&w);
	}
}

/* ---- many threads ---- */

#define THREADS 6
#define TURNS   4000
#define BLOCKS  24

/* Who is in each block, by mode, as the threads themselves say. */
static struct {
	pthread_mutex_t lock;
	unsigned inside[BLOCKS][3];
	unsigned violations;
} blocks = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct thread {
	struct range range;
	uint64_t block; /* bytes */
	unsigned seed;
	sem_t granted;
	unsigned grants, waits;
};

static void post_granted(struct range *range)
{
	struct thread *thread = (struct thread *)range;

	thread->grants++;
	sem_post(&thread->granted);
}

static void enter(const struct range *range, uint64_t block)
{
	pthread_mutex_lock(&blocks.lock);
	for (uint64_t b = range->start / block; b < range->end / block; b++) {
		for (unsigned mode = 0; mode < 3; mode++)
			blocks.violations += conflicts[range->mode][mode] && blocks.inside[b][mode];
		blocks.inside[b][range->mode]++;
	}
	pthread_mutex_unlock(&blocks.lock);
}

static void leave(const struct range *range, uint64_t block)
{
	pthread_mutex_lock(&blocks.lock);
	for (uint64_t b = range->start / block; b < range->end / block; b++)
		blocks.inside[b][range->mode]--;
	pthread_mutex_unlock(&blocks.lock);
}

static void *hammer(void *opaque)
{
	struct thread *thread = opaque;
	struct range *range = &thread->range;

	for (unsigned turn = 0; turn < TURNS; turn++) {
		uint64_t first = rand_r(&thread->seed) % BLOCKS;
		uint64_t most = rand_r(&thread->seed) % 2 ? BLOCKS - first : 1;

		range->start = first * thread->block;
		range->end = range->start + (1 + rand_r(&thread->seed) % most) * thread->block;
		range->mode = rand_r(&thread->seed) % 3;
		range->granted = post_granted;
		if (!range_acquire(&ranges, range)) {
			thread->waits++;
			sem_wait(&thread->granted);
		}
		enter(range, thread->block);
		if (rand_r(&thread->seed) % 4 == 0)
			sched_yield();
		leave(range, thread->block);
		range_release(&ranges, range);
	}
	return NULL;
}

static void no_two_that_conflict_are_held_at_once(uint64_t block)
{
	pthread_t ids[THREADS];
	struct thread threads[THREADS] = { 0 };

	alarm(PATIENCE);
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i].seed = i + 1;
		threads[i].block = block;
		sem_init(&threads[i].granted, 0, 0);
		assert_int_equal(pthread_create(&ids[i], NULL, hammer, &threads[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		int left;

		pthread_join(ids[i], NULL);
		assert_int_equal(threads[i].grants, threads[i].waits);
		assert_int_equal(sem_getvalue(&threads[i].granted, &left), 0);
		assert_int_equal(left, 0);
		sem_destroy(&threads[i].granted);
	}
	alarm(0);
	assert_int_equal(blocks.violations, 0);
}

static void none_that_conflict_are_held_at_once_in_small_blocks(void **state)
{
	no_two_that_conflict_are_held_at_once(1);
}

static void none_that_conflict_are_held_at_once_in_large_blocks(void **state)
{
	no_two_that_conflict_are_held_at_once(20480);
	no_two_that_conflict_are_held_at_once(65536);
	no_two_that_conflict_are_held_at_once((uint64_t)65536 * RANGE_REGIONS);
}

/* In an order that is known: each is granted when none before it conflicts with it. Some are where
 * the lock counts them with others that are far away. */
static void who_is_granted_matches_the_model(void **state)
{
	enum { COUNT = 40 };
	struct waiter waiters[COUNT];
	bool held[COUNT] = { false }; /* asked for and not released */
	bool must_wait[COUNT];
	unsigned asked[COUNT], turn = 0, seed = 5, waited = 0;

	for (unsigned round = 0; round < 20000; round++) {
		unsigned i = rand_r(&seed) % COUNT;
		struct range *range = &waiters[i].range;

		if (held[i]) {
			if (range->blocker)
				continue;
			release(&waiters[i]);
			held[i] = false;
		} else {
			uint64_t far = (uint64_t)65536 * RANGE_REGIONS;
			uint64_t start = rand_r(&seed) % 300 * 8192 + rand_r(&seed) % 3 * far;
			uint64_t len = (1 + rand_r(&seed) % (rand_r(&seed) % 4 ? 2 : 40)) * 8192;

			must_wait[i] = !take(&waiters[i], start, start + len, rand_r(&seed) % 3);
			waited += must_wait[i];
			asked[i] = turn++;
			held[i] = true;
		}
		for (unsigned a = 0; a < COUNT; a++) {
			unsigned blockers = 0;

			for (unsigned b = 0; held[a] && b < COUNT; b++) {
				const struct range *x = &waiters[a].range, *y = &waiters[b].range;

				blockers += held[b] && asked[b] < asked[a] && x->start < y->end &&
					    y->start < x->end && conflicts[x->mode][y->mode];
			}
			if (held[a]) {
				assert_int_equal(!waiters[a].range.blocker, !blockers);
				assert_int_equal(waiters[a].granted, must_wait[a] && !blockers);
			}
		}
	}
	assert_true(waited > 100);
	for (unsigned left = COUNT; left;)
		for (unsigned i = left = 0; i < COUNT; i++) {
			left += held[i];
			if (held[i] && !waiters[i].range.blocker) {
				release(&waiters[i]);
				held[i] = false;
			}
		}
}

/* ---- what it costs ---- */

/* The nth of many: where it is, and how. */
typedef void shape_fn(struct range *range, unsigned n, unsigned count);

static void same_place(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = 4096, .end = 8192, .mode = RANGE_WRITE };
}

static void same_place_of_all_modes(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = 4096, .end = 8192, .mode = n % 3 };
}

static void reads_behind_a_partial_write(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = 4096,
				 .end = 8192,
				 .mode = n ? RANGE_READ : RANGE_PARTIAL };
}

static void partial_writes_behind_reads(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = 4096,
				 .end = 8192,
				 .mode = n < count / 2 ? RANGE_READ : RANGE_PARTIAL };
}

static void large_and_apart(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = n * 1000000ULL,
				 .end = (n + 1) * 1000000ULL,
				 .mode = RANGE_PARTIAL };
}

static void each_overlaps_the_next(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = n * 100000ULL,
				 .end = n * 100000ULL + 150000,
				 .mode = RANGE_WRITE };
}

static void each_overlaps_the_next_downwards(struct range *range, unsigned n, unsigned count)
{
	each_overlaps_the_next(range, count - n, count);
}

static void each_overlaps_many(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = n * 512ULL,
				 .end = n * 512ULL + (64 << 20),
				 .mode = RANGE_WRITE };
}

static void one_in_the_other(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = n * 512ULL,
				 .end = (2 * count - n) * 512ULL,
				 .mode = RANGE_PARTIAL };
}

static void small_ones_under_large_ones(struct range *range, unsigned n, unsigned count)
{
	*range = (struct range){ .start = n * 4096ULL,
				 .end = (n + 1) * 4096ULL,
				 .mode = RANGE_WRITE };
	if (n >= count / 2)
		*range = (struct range){ .end = count * 4096ULL, .mode = RANGE_WRITE };
}

static void small_and_scattered(struct range *range, unsigned n, unsigned count)
{
	uint64_t place = n * 7919ULL % count;

	*range = (struct range){ .start = place * 12288,
				 .end = place * 12288 + 4096 * (1 + n % 5),
				 .mode = n % 3 };
}

/* Takes all of them, and releases each when it is held: the oldest first, or the latest first of
 * those that are. Ranges that were looked at. */
static uint64_t cost(shape_fn *shape, unsigned count, bool latest_first)
{
	struct waiter *waiters = calloc(count, sizeof(*waiters));
	unsigned *held = calloc(count, sizeof(*held)), nr_held = 0, released = 0;
	uint64_t before = ranges.steps;

	assert_non_null(waiters);
	assert_non_null(held);
	for (unsigned i = 0; i < count; i++) {
		shape(&waiters[i].range, i, count);
		waiters[i].range.granted = count_granted;
		waiters[i].granted = range_acquire(&ranges, &waiters[i].range);
	}
	while (released < count) {
		unsigned at = released;

		/* Those that became held, in their order. */
		for (unsigned i = nr_held = 0; i < count; i++)
			if (waiters[i].granted == 1)
				held[nr_held++] = i;
		assert_true(nr_held > 0);
		for (at = 0; at < nr_held; at++) {
			unsigned i = held[latest_first ? nr_held - 1 - at : at];

			waiters[i].granted = 2;
			release(&waiters[i]);
			released++;
		}
		if (nr_held == 1) { /* a line: the others stand behind it, and no loop over all */
			for (unsigned i = held[0] + 1; i < count && waiters[i].granted == 1; i++) {
				waiters[i].granted = 2;
				release(&waiters[i]);
				released++;
			}
		}
	}
	free(waiters);
	free(held);
	return ranges.steps - before;
}

/* Four times as many cost four times as much, and a little: the square would be sixteen times. */
static void cost_does_not_grow_with_the_square(void **state)
{
	static shape_fn *const shapes[] = {
		same_place,
		same_place_of_all_modes,
		reads_behind_a_partial_write,
		partial_writes_behind_reads,
		large_and_apart,
		each_overlaps_the_next,
		each_overlaps_the_next_downwards,
		each_overlaps_many,
		one_in_the_other,
		small_ones_under_large_ones,
		small_and_scattered,
	};

	for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		for (unsigned latest_first = 0; latest_first < 2; latest_first++) {
			uint64_t few = cost(shapes[i], 1000, latest_first);
			uint64_t many = cost(shapes[i], 4000, latest_first);

			if (many >= 8 * few)
				fail_msg("shape %u: %ju steps for 1000, %ju for 4000", i,
					 (uintmax_t)few, (uintmax_t)many);
		}
	}
}

static void nothing_near_costs_next_to_nothing(void **state)
{
	enum { COUNT = 500 };
	struct waiter waiters[COUNT];

	for (unsigned i = 0; i < COUNT; i++)
		assert_true(take(&waiters[i], i * 65536ULL, i * 65536ULL + 4096, RANGE_WRITE));
	for (unsigned i = 0; i < COUNT; i++)
		release(&waiters[i]);
	assert_true(ranges.steps <= 2 * COUNT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(modes_conflict_as_the_table_says),
		TEST(only_overlapping_ranges_conflict),
		TEST(ranges_are_granted_in_the_order_of_arrival),
		TEST(a_waiting_range_holds_up_later_ones),
		TEST(a_range_waits_for_all_that_it_conflicts_with),
		TEST(one_release_may_grant_many),
		TEST(a_range_may_be_used_again),
		TEST(none_that_conflict_are_held_at_once_in_small_blocks),
		TEST(none_that_conflict_are_held_at_once_in_large_blocks),
		TEST(who_is_granted_matches_the_model),
		TEST(cost_does_not_grow_with_the_square),
		TEST(nothing_near_costs_next_to_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
