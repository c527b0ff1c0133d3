/* Areas of a trusted disk in memory: those that are needed stay, others as far as there is room, and of those
 * that are stale only that they are. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/align.h"
#include "integrity/areas.h"

#define AREAS 4096
#define MOST  8 /* in memory */

static const struct layout layout = {
	.tag_size = 32,
	.block = 4096,
	.area_data = 16 << 20,
	.area_blocks = 4096,
	.area_tags = 4096 * 32,
	.size = (uint64_t)AREAS * (16 << 20),
};
#define LEAVES (4096 * 32 / TRUST_LEAF)

static uint8_t file[3 << 20], leaves[LEAVES * TRUST_HASH];
static struct trust trust;
static struct areas areas;
static struct error err;

static int read_file(void *opaque, uint64_t at, void *bytes, size_t len)
{
	(void)opaque;
	assert_in_range(at + len, 0, sizeof(file));
	memcpy(bytes, file + at, len);
	return 0;
}

static int write_file(void *opaque, uint64_t at, const void *bytes, size_t len)
{
	(void)opaque;
	assert_in_range(at + len, 0, sizeof(file));
	memcpy(file + at, bytes, len);
	return 0;
}

static int sync_file(void *opaque)
{
	(void)opaque;
	return 0;
}

/* Room for so many, whatever one takes. */
static void open_areas(void)
{
	const struct trust_io io = { read_file, write_file, sync_file, NULL, "trust" };
	const struct trust_volume volume = {
		.uuid = "uuid",
		.size = layout.size,
		.area_len = layout.area_data,
		.block = layout.block,
		.tag_size = layout.tag_size,
	};
	uint64_t area = sizeof(struct area) + trust_pages(LEAVES) * TRUST_HASH;

	assert_int_equal(trust_make(&io, &volume, "{}", &err), 0);
	assert_int_equal(trust_open(&trust, &io, &err), 0);
	assert_int_equal(areas_init(&areas, &layout, &trust, false, MOST * area, "disk", &err), 0);
}

static void close_areas(void)
{
	areas_destroy(&areas);
	trust_destroy(&trust);
}

static struct area *load(uint64_t number, int wanted)
{
	struct area *area = areas_hold(&areas, number);
	bool first;

	assert_non_null(area);
	assert_int_equal(areas_state(&areas, area), AREA_LOADING);
	assert_int_equal(areas_loaded(&areas, area, leaves, &first), wanted);
	return area;
}

/* One that isn't takes the place of another. */
static bool is_loaded(uint64_t number)
{
	struct area *area = areas_hold(&areas, number);
	bool loaded = areas_state(&areas, area) == AREA_GOOD;

	areas_let_go(&areas, area);
	return loaded;
}

static void the_one_used_longest_ago_goes(void **state)
{
	struct area *held;

	(void)state;
	open_areas();
	held = load(0, 0);
	for (uint64_t i = 1; i <= MOST + 1; i++) {
		areas_let_go(&areas, load(i, 0));
		assert_true(is_loaded(1));
	}
	assert_int_equal(areas_count(&areas), MOST);
	assert_false(is_loaded(2));
	assert_false(is_loaded(3));
	assert_true(is_loaded(5));
	areas_let_go(&areas, held);
	assert_true(is_loaded(0));
	close_areas();
}

static void one_that_is_in_doubt_stays(void **state)
{
	struct area *area;

	(void)state;
	open_areas();
	area = load(0, 0);
	assert_int_equal(areas_begin(&areas, &err), 0);
	areas_touch(&areas, area);
	areas_let_go(&areas, area);
	for (uint64_t i = 1; i <= 2 * MOST; i++)
		areas_let_go(&areas, load(i, 0));
	assert_true(is_loaded(0));
	assert_int_equal(areas_begin(&areas, &err), 0);
	assert_int_equal(areas_settle(&areas, true, &err), 0);
	for (uint64_t i = 1; i <= MOST; i++)
		areas_let_go(&areas, load(1000 + i, 0));
	assert_false(is_loaded(0));
	close_areas();
}

static void stale_ones_take_no_memory(void **state)
{
	static const uint8_t other[TRUST_HASH] = { 1 };
	struct area *area;

	(void)state;
	open_areas();
	for (uint64_t i = 0; i < AREAS; i++) {
		if (i % 1024 == 0)
			assert_int_equal(trust_make_room(&trust, 1024, &err), 0);
		assert_int_equal(trust_saw(&trust, i, other, &err), 0);
		area = load(i, -ESTALE);
		assert_int_equal(areas_count(&areas), 1);
		areas_let_go(&areas, area);
	}
	assert_int_equal(areas_count(&areas), 0);
	/* They stay so, whatever they are later. */
	for (uint64_t i = 0; i < AREAS; i++) {
		area = areas_hold(&areas, i);
		assert_int_equal(areas_state(&areas, area), AREA_STALE);
		assert_false(areas_is_stale(&areas, area));
		areas_let_go(&areas, area);
	}
	assert_int_equal(areas_count(&areas), 0);
	assert_int_equal(areas_stale(&areas), AREAS);
	close_areas();
}

/* What its tags in memory are is known until that is settled. */
static void a_stale_one_in_doubt_stays_until_it_is_settled(void **state)
{
	struct area *area;

	(void)state;
	open_areas();
	area = load(5, 0);
	assert_int_equal(areas_begin(&areas, &err), 0);
	areas_touch(&areas, area);
	assert_true(areas_is_stale(&areas, area));
	areas_let_go(&areas, area);
	assert_int_equal(areas_count(&areas), 1);
	assert_int_equal(areas_begin(&areas, &err), 0);
	assert_int_equal(areas_settle(&areas, true, &err), 0);
	assert_int_equal(areas_count(&areas), 0);
	area = areas_hold(&areas, 5);
	assert_int_equal(areas_state(&areas, area), AREA_STALE);
	areas_let_go(&areas, area);
	close_areas();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_one_used_longest_ago_goes),
		cmocka_unit_test(one_that_is_in_doubt_stays),
		cmocka_unit_test(stale_ones_take_no_memory),
		cmocka_unit_test(a_stale_one_in_doubt_stays_until_it_is_settled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
