/* A block that is found bad again isn't counted again, also by several threads at once; and more than can be
 * remembered are counted all the same. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/bad-blocks.h"

#define THREADS 4
#define BLOCK   4096

static struct bad_blocks bad;

static int none_yet(void **state)
{
	memset(&bad, 0, sizeof(bad));
	return 0;
}

static void each_counts_once(void **state)
{
	static const uint64_t offsets[] = { 0, BLOCK, 512, UINT64_C(1) << 60, 0, 512, BLOCK };

	assert_int_equal(bad_blocks_count(&bad), 0);
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++)
		bad_blocks_add(&bad, offsets[i]);
	assert_int_equal(bad_blocks_count(&bad), 4);
}

/* A whole disk, every block in turn, as it is when somebody has overwritten it. */
static void many_are_counted(void **state)
{
	for (uint64_t i = 0; i < 1000; i++)
		bad_blocks_add(&bad, i * BLOCK);
	assert_int_equal(bad_blocks_count(&bad), 1000);
	for (uint64_t i = 0; i < 1000; i++)
		bad_blocks_add(&bad, i * BLOCK);
	assert_int_equal(bad_blocks_count(&bad), 1000);
	for (uint64_t i = 1000; i < 3 * BAD_BLOCKS; i++)
		bad_blocks_add(&bad, i * BLOCK);
	assert_int_equal(bad_blocks_count(&bad), 3 * BAD_BLOCKS);
}

static void *add_some(void *opaque)
{
	for (uint64_t i = 0; i < 500; i++)
		bad_blocks_add(&bad, i * BLOCK);
	return NULL;
}

static void threads_agree(void **state)
{
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_some, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(bad_blocks_count(&bad), 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(each_counts_once, none_yet),
		cmocka_unit_test_setup(many_are_counted, none_yet),
		cmocka_unit_test_setup(threads_agree, none_yet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
