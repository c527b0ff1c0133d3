/* Requests are counted, by whatever threads, and none is forgotten or counted twice. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "metrics/meter.h"

#define KIND 1

static struct meters *make(unsigned count, bool shared)
{
	struct meters *meters = meters_make(count, shared);

	assert_non_null(meters);
	return meters;
}

static struct meter_kind_sum sum_of(const struct meters *meters)
{
	struct meter_sum sum;

	meters_sum(meters, &sum);
	return sum.kind[KIND];
}

static uint64_t count_ended(const struct meter_kind_sum *sum)
{
	uint64_t count = 0;

	for (unsigned i = 0; i <= METER_BOUNDS; i++)
		count += sum->ended[i];
	return count;
}

static void one_request(void **state)
{
	struct meters *meters = make(2, false);
	struct meter *meter = &meters->meter[1];
	struct meter_kind_sum sum;

	meter_begin(meter, KIND);
	sum = sum_of(meters);
	assert_int_equal(sum.in_flight, 1);
	assert_int_equal(count_ended(&sum), 0);
	meter_end(meter, KIND, clock_ns(), 4096, 0);
	sum = sum_of(meters);
	assert_int_equal(sum.in_flight, 0);
	assert_int_equal(count_ended(&sum), 1);
	assert_int_equal(sum.bytes, 4096);
	assert_int_equal(sum.errors[0], 0);
	free(meters);
}

/* Whoever ends it may count elsewhere than who has begun it. */
static void one_that_moves(void **state)
{
	struct meters *meters = make(2, true);
	struct meter_kind_sum sum;

	meter_begin(&meters->meter[0], KIND);
	meter_end(&meters->meter[1], KIND, clock_ns(), 0, 0);
	sum = sum_of(meters);
	assert_int_equal(sum.in_flight, 0);
	free(meters);
}

static void times_go_into_their_buckets(void **state)
{
	/* A second of grace upwards: the machine may be busy meanwhile. */
	static const struct {
		int64_t ns;
		unsigned at_least;
	} cases[] = {
		{ 10001, 1 },        { 1000001, 7 },      { 1999000000, 16 },
		{ 20000000000, 19 }, { 60000000001, 20 }, { INT64_MAX / 2, 20 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct meters *meters = make(1, false);
		struct meter_kind_sum sum;
		unsigned bucket = 0;

		meter_begin(&meters->meter[0], KIND);
		meter_end(&meters->meter[0], KIND, clock_ns() - cases[i].ns, 0, 0);
		sum = sum_of(meters);
		while (sum.ended[bucket] == 0)
			bucket++;
		assert_in_range(bucket, cases[i].at_least, METER_BOUNDS);
		assert_true(sum.ns >= (uint64_t)cases[i].ns);
		free(meters);
	}
}

/* At the bound itself, and one nanosecond beyond. */
static void bounds_belong_to_their_bucket(void **state)
{
	for (unsigned i = 0; i < METER_BOUNDS; i++) {
		uint64_t bound = meter_bounds[i] * UINT64_C(1000);

		assert_int_equal(meter_bucket(bound), i);
		assert_int_equal(meter_bucket(bound + 1), i + 1);
	}
	assert_int_equal(meter_bucket(0), 0);
	assert_int_equal(meter_bucket(UINT64_MAX), METER_BOUNDS);
}

static void errors_by_their_names(void **state)
{
	struct meters *meters = make(1, false);
	struct meter_kind_sum sum;

	for (unsigned i = 0; i < METER_ERRORS; i++) {
		meter_begin(&meters->meter[0], KIND);
		meter_end(&meters->meter[0], KIND, clock_ns(), 100, meter_errors[i].errnum);
	}
	meter_begin(&meters->meter[0], KIND);
	meter_end(&meters->meter[0], KIND, clock_ns(), 100, EBADF);
	sum = sum_of(meters);
	assert_int_equal(sum.errors[0], 2); /* EIO, and what has no name */
	for (unsigned i = 1; i < METER_ERRORS; i++)
		assert_int_equal(sum.errors[i], 1);
	assert_int_equal(sum.bytes, 0);
	free(meters);
}

static void nobody_counts(void **state)
{
	assert_int_equal(meters_begin(NULL, KIND), 0);
	meters_end(NULL, KIND, 0, 1, EIO);
	meters_opened(NULL);
	meters_closed(NULL);
	door_meter_failed(NULL);
	door_meter_tls(NULL, "a", "b");
}

/* ---- threads ---- */

#define THREADS 8
#define TIMES   20000

static atomic_bool over;

static void *count_much(void *opaque)
{
	struct meters *meters = opaque;

	for (int i = 0; i < TIMES; i++) {
		int64_t since = meters_begin(meters, KIND);

		meters_opened(meters);
		meters_end(meters, KIND, since, 1, i % 2 ? EIO : 0);
		meters_closed(meters);
	}
	return NULL;
}

/* There are never fewer in flight than none, nor more than threads. */
static void *look(void *opaque)
{
	bool fine = true;

	while (!atomic_load(&over) && fine) {
		struct meter_sum sum;

		meters_sum(opaque, &sum);
		fine = sum.kind[KIND].in_flight < UINT32_MAX && sum.connections < UINT32_MAX;
	}
	return fine ? opaque : NULL;
}

static void threads_share(void **state)
{
	struct meters *meters = make(3, true);
	pthread_t threads[THREADS], looks;
	struct meter_kind_sum sum;
	void *fine;

	assert_int_equal(pthread_create(&looks, NULL, look, meters), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_much, meters), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&over, true);
	pthread_join(looks, &fine);
	assert_non_null(fine);
	sum = sum_of(meters);
	assert_int_equal(sum.in_flight, 0);
	assert_int_equal(count_ended(&sum), THREADS * TIMES);
	assert_int_equal(sum.errors[0], THREADS * TIMES / 2);
	assert_int_equal(sum.bytes, THREADS * TIMES / 2);
	assert_int_equal(meters->opened, THREADS * TIMES);
	free(meters);
}

static void more_suites_than_there_is_room_for(void **state)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h", "i",
					     "j", "k", "l", "m", "n", "o", "p", "q", "r" };
	struct door_meter door = { .failed = 0 };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		door_meter_tls(&door, "TLSv1.3", names[i]);
	assert_int_equal(door.nr_suites, METER_SUITES);
	assert_int_equal(door.suites[METER_SUITES - 1].count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_request),
		cmocka_unit_test(one_that_moves),
		cmocka_unit_test(times_go_into_their_buckets),
		cmocka_unit_test(bounds_belong_to_their_bucket),
		cmocka_unit_test(errors_by_their_names),
		cmocka_unit_test(nobody_counts),
		cmocka_unit_test(threads_share),
		cmocka_unit_test(more_suites_than_there_is_room_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
