/* Positions in odd lists, against the same bytes laid out flat. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/bvec.h"

#define FLAT    4096
#define ENTRIES 24

/* The same bytes twice: flat, and at the odd places that bv names. */
struct shape {
	unsigned char memory[2 * FLAT];
	unsigned char flat[FLAT];
	struct iovec iov[ENTRIES];
	struct bvec bv[ENTRIES];
	size_t count;
	uint64_t bytes;
};

static void shape_make(struct shape *s, unsigned *seed)
{
	size_t used = 0, at = 0, i, n;

	for (i = 0; i < sizeof(s->memory); i++)
		s->memory[i] = rand_r(seed);
	for (i = 0; i < ENTRIES; i++) {
		size_t len = rand_r(seed) % 4 ? rand_r(seed) % 167 : rand_r(seed) % 2;

		used += rand_r(seed) % 100;
		s->iov[i].iov_base = &s->memory[used];
		s->iov[i].iov_len = len;
		memcpy(&s->flat[at], &s->memory[used], len);
		used += len;
		at += len;
	}
	assert_int_equal(bvec_measure(s->iov, ENTRIES, &s->count, &s->bytes), 0);
	assert_int_equal(s->bytes, at);
	for (i = n = 0; i < ENTRIES; i++)
		n += s->iov[i].iov_len > 0;
	assert_int_equal(s->count, n);
	bvec_snapshot(s->bv, s->iov, ENTRIES);
}

static void measure_leaves_out_empty_entries(void **state)
{
	char a[3], b[5];
	struct iovec iov[] = { { NULL, 0 }, { a, 3 }, { b, 0 }, { b, 5 }, { NULL, 0 } };
	struct bvec bv[2];
	uint64_t bytes;
	size_t count;

	(void)state;
	assert_int_equal(bvec_measure(iov, 5, &count, &bytes), 0);
	assert_int_equal(count, 2);
	assert_int_equal(bytes, 8);
	bvec_snapshot(bv, iov, 5);
	memset(iov, 0, sizeof(iov));
	assert_ptr_equal(bv[0].base, a);
	assert_int_equal(bv[0].len, 3);
	assert_ptr_equal(bv[1].base, b);
	assert_int_equal(bv[1].len, 5);
}

static void measure_of_nothing_is_nothing(void **state)
{
	uint64_t bytes = 1;
	size_t count = 1;

	(void)state;
	assert_int_equal(bvec_measure(NULL, 0, &count, &bytes), 0);
	assert_int_equal(count, 0);
	assert_int_equal(bytes, 0);
}

static void measure_refuses_more_than_63_bits(void **state)
{
	struct iovec iov[] = { { NULL, INT64_MAX }, { NULL, 0 }, { NULL, 1 } };
	uint64_t bytes;
	size_t count;

	(void)state;
	assert_int_equal(bvec_measure(iov, 2, &count, &bytes), 0);
	assert_int_equal(bytes, INT64_MAX);
	assert_int_equal(bvec_measure(iov, 3, &count, &bytes), -EINVAL);
	iov[2].iov_len = SIZE_MAX;
	assert_int_equal(bvec_measure(iov, 3, &count, &bytes), -EINVAL);
	assert_int_equal(bvec_measure(&iov[2], 1, &count, &bytes), -EINVAL);
}

static void runs_cover_the_list_in_order(void **state)
{
	unsigned seed = 1, round;
	struct shape s;

	(void)state;
	for (round = 0; round < 300; round++) {
		struct iter it;
		uint64_t at = 0;

		shape_make(&s, &seed);
		it = iter_over(s.bv, s.bytes);
		for (;;) {
			struct bvec run = iter_run(&it, 1 + rand_r(&seed) % 200);

			if (!run.len)
				break;
			assert_memory_equal(run.base, &s.flat[at], run.len);
			at += run.len;
			iter_advance(&it, run.len);
		}
		assert_int_equal(at, s.bytes);
		assert_int_equal(it.left, 0);
	}
}

static void copies_match_the_flat_bytes(void **state)
{
	unsigned char buf[FLAT];
	unsigned seed = 2, round;
	struct shape s;

	(void)state;
	for (round = 0; round < 300; round++) {
		struct iter it, start;
		uint64_t at = 0;

		shape_make(&s, &seed);
		start = it = iter_over(s.bv, s.bytes);
		while (it.left) {
			struct iter place = it;
			size_t n = rand_r(&seed) % (it.left + 1), i;

			switch (rand_r(&seed) % 3) {
			case 0:
				iter_advance(&it, n);
				break;
			case 1:
				iter_copy_from(&it, buf, n);
				assert_memory_equal(buf, &s.flat[at], n);
				break;
			case 2:
				for (i = 0; i < n; i++)
					s.flat[at + i] = rand_r(&seed);
				iter_copy_to(&it, &s.flat[at], n);
				break;
			}
			assert_int_equal(it.left, place.left - n);
			at += n;
		}
		iter_copy_from(&start, buf, s.bytes);
		assert_memory_equal(buf, s.flat, s.bytes);
	}
}

static void nothing_outside_the_list_is_written(void **state)
{
	unsigned char memory[64], ones[16];
	struct bvec bv[] = { { &memory[3], 7 }, { &memory[20], 1 }, { &memory[40], 8 } };
	struct iter it = iter_over(bv, 16);
	size_t i;

	(void)state;
	memset(memory, 0, sizeof(memory));
	memset(ones, 1, sizeof(ones));
	iter_copy_to(&it, ones, sizeof(ones));
	for (i = 0; i < sizeof(memory); i++) {
		int inside = (i >= 3 && i < 10) || i == 20 || (i >= 40 && i < 48);

		assert_int_equal(memory[i], inside);
	}
}

static void the_end_may_come_before_the_lists(void **state)
{
	char memory[8] = "abcdefg";
	struct bvec bv = { memory, 8 };
	struct iter it = iter_over(&bv, 5);

	(void)state;
	iter_advance(&it, 3);
	assert_int_equal(iter_run(&it, SIZE_MAX).len, 2);
	iter_advance(&it, 2);
	assert_int_equal(iter_run(&it, SIZE_MAX).len, 0);
}

/* On the heap and exactly as long as the list, so that sanitizers see a step too far. */
static void the_end_of_the_list_is_not_looked_past(void **state)
{
	struct bvec *bv = malloc(sizeof(*bv));
	char byte = 'x', copy;
	struct iter it;

	(void)state;
	*bv = (struct bvec){ &byte, 1 };
	it = iter_over(bv, 1);
	iter_copy_from(&it, &copy, 1);
	assert_int_equal(copy, 'x');
	assert_int_equal(iter_run(&it, 1).len, 0);
	iter_advance(&it, 0);
	iter_copy_from(&it, NULL, 0);
	iter_copy_to(&it, NULL, 0);
	free(bv);

	it = iter_over(NULL, 0);
	assert_int_equal(iter_run(&it, 1).len, 0);
	iter_advance(&it, 0);
}

static void zeroes_are_zero_and_as_many_as_asked_for(void **state)
{
	const uint64_t bytes = 1000003;
	struct iter it = iter_of_zeroes(bytes);
	unsigned char buf[300];
	uint64_t sum = 0;
	size_t i;

	(void)state;
	memset(buf, 1, sizeof(buf));
	iter_copy_from(&it, buf, sizeof(buf));
	for (i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0);
	assert_int_equal(iter_run(&it, 7).len, 7);
	for (;;) {
		struct bvec run = iter_run(&it, SIZE_MAX);

		if (!run.len)
			break;
		for (i = 0; i < run.len; i++)
			sum += ((unsigned char *)run.base)[i];
		assert_int_equal((uintptr_t)run.base % 4096, 0);
		iter_advance(&it, run.len);
	}
	assert_int_equal(sum, 0);

	it = iter_of_zeroes(UINT64_MAX);
	iter_advance(&it, UINT64_MAX - 1);
	assert_int_equal(iter_run(&it, SIZE_MAX).len, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(measure_leaves_out_empty_entries),
		cmocka_unit_test(measure_of_nothing_is_nothing),
		cmocka_unit_test(measure_refuses_more_than_63_bits),
		cmocka_unit_test(runs_cover_the_list_in_order),
		cmocka_unit_test(copies_match_the_flat_bytes),
		cmocka_unit_test(nothing_outside_the_list_is_written),
		cmocka_unit_test(the_end_may_come_before_the_lists),
		cmocka_unit_test(the_end_of_the_list_is_not_looked_past),
		cmocka_unit_test(zeroes_are_zero_and_as_many_as_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
