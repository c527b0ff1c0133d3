/* The counters, and how they are told. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/stats.h"

#define COUNTERS (sizeof(struct stat_counters) / sizeof(_Atomic uint64_t))

static char *printed(const struct stats *stats, const char *prefix)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	stats_print(stats, prefix, out);
	fclose(out);
	return text;
}

static void every_counter_is_a_line(void **state)
{
	struct stats stats = { 0 };
	_Atomic uint64_t *counters = (void *)&stats.slot[STAT_SLOTS - 1].counters;
	char *text, *line, *rest;
	unsigned lines = 0;

	/* Each has a value of its own, so that none is told twice or by another's name. */
	for (unsigned i = 0; i < COUNTERS; i++)
		counters[i] = 1000 + i;
	text = printed(&stats, "a.prefix.");
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		unsigned long long value;
		char name[32];

		assert_int_equal(sscanf(line, "a.prefix.%31[a-z_]=%llu", name, &value), 2);
		assert_in_range(value, 1000, 1000 + COUNTERS - 1);
		assert_int_equal(counters[value - 1000], value);
		counters[value - 1000] = 0;
		lines++;
	}
	assert_int_equal(lines, COUNTERS);
	free(text);
}

static void names_are_those_of_their_counters(void **state)
{
	struct stats stats = { 0 };
	char *text;

	stat_add(&stats, bytes_written, UINT64_MAX);
	stat_add(&stats, zero_copy, 7);
	stat_add(&stats, in_flight, 5);
	stat_sub(&stats, in_flight, 2);
	text = printed(&stats, "");
	assert_non_null(strstr(text, "\nbytes_written=18446744073709551615\n"));
	assert_non_null(strstr(text, "\nzero_copy=7\n"));
	assert_non_null(strstr(text, "\nin_flight=3\n"));
	assert_non_null(strstr(text, "\nerrors=0\n"));
	free(text);
}

/* Wherever it was counted. */
static void slots_are_added_up(void **state)
{
	struct stats stats = { 0 };

	for (unsigned i = 0; i < STAT_SLOTS; i++)
		stats.slot[i].counters.reads = 1 << i;
	stats.slot[0].counters.in_flight = 3;
	stats.slot[1].counters.in_flight = -2;
	assert_int_equal(stat_get(&stats, reads), (1 << STAT_SLOTS) - 1);
	assert_int_equal(stat_get(&stats, in_flight), 1);
}

static void *count_to_100000(void *stats)
{
	for (unsigned i = 0; i < 100000; i++)
		stat_add((struct stats *)stats, reads, 1);
	return NULL;
}

static void no_count_is_lost(void **state)
{
	struct stats stats = { 0 };
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_to_100000, &stats), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(stat_get(&stats, reads), 300000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_counter_is_a_line),
		cmocka_unit_test(names_are_those_of_their_counters),
		cmocka_unit_test(slots_are_added_up),
		cmocka_unit_test(no_count_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
