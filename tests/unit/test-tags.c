/* Tags in memory: where they lie in chunks, what is dirty, and that no more is kept than may be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/tags.h"

#define MIB UINT64_C(1048576)

static struct layout layout;
static struct tags tags;

/* Areas of 16 MiB, whose tags take four chunks, the last of them the half of one. */
static int set_up(void **state)
{
	struct superblock superblock;
	struct error err;

	(void)state;
	assert_int_equal(superblock_make(&superblock, 4096, 28, 256 * MIB, "disk", &err), 0);
	assert_int_equal(layout_make(&superblock, 256 * MIB, "disk", &layout, &err), 0);
	tags_init(&tags, &layout, 4 * TAG_CHUNK);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	tags_destroy(&tags);
	return 0;
}

static struct tag_chunk *hold_read(uint64_t offset)
{
	struct tag_chunk *chunk = tags_hold(&tags, offset);

	assert_non_null(chunk);
	if (!tags_is_valid(&tags, chunk))
		tags_fill(&tags, chunk, calloc(1, TAG_CHUNK));
	return chunk;
}

static void a_chunk_is_of_one_area(void **state)
{
	struct tag_chunk *chunk = hold_read(16 * MIB - 4096), *first = hold_read(16 * MIB);

	(void)state;
	assert_int_equal(chunk->at, layout_tag_at(&layout, 0) + 3 * TAG_CHUNK);
	assert_int_equal(chunk->len, 16384);
	assert_int_equal(first->at, layout_tag_at(&layout, 16 * MIB));
	assert_int_equal(first->len, TAG_CHUNK);
	tags_let_go(&tags, chunk);
	tags_let_go(&tags, first);
}

/* Tag 1170 begins in the first chunk and ends in the second. */
static void a_tag_lies_in_two_chunks(void **state)
{
	struct tag_chunk *chunk[2] = { hold_read(1169 * 4096), NULL };
	uint8_t in[3 * 28], out[3 * 28];

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = i + 1;
	chunk[1] = tags_hold_next(&tags, chunk[0]);
	tags_fill(&tags, chunk[1], calloc(1, TAG_CHUNK));
	tags_put(&tags, chunk, 1169 * 4096, 3, in);
	tags_get(&tags, chunk, 1169 * 4096, 3, out);
	assert_memory_equal(in, out, sizeof(in));
	assert_memory_equal(chunk[0]->bytes + 1169 * 28, in, TAG_CHUNK - 1169 * 28);
	assert_memory_equal(chunk[1]->bytes, in + (TAG_CHUNK - 1169 * 28),
			    sizeof(in) - (TAG_CHUNK - 1169 * 28));
	assert_int_equal(tags_dirty_pages(&tags), 2);
	tags_let_go(&tags, chunk[0]);
	tags_let_go(&tags, chunk[1]);
}

static void whoever_comes_later_fills_nothing(void **state)
{
	struct tag_chunk *one = tags_hold(&tags, 0), *other = tags_hold(&tags, 4096);
	uint8_t *bytes = calloc(1, TAG_CHUNK);

	(void)state;
	assert_ptr_equal(one, other);
	assert_false(tags_is_valid(&tags, one));
	bytes[0] = 7;
	tags_fill(&tags, one, bytes);
	tags_fill(&tags, other, calloc(1, TAG_CHUNK));
	assert_int_equal(one->bytes[0], 7);
	tags_let_go(&tags, one);
	tags_let_go(&tags, other);
}

static void what_could_not_be_read_is_not_kept(void **state)
{
	(void)state;
	tags_let_go(&tags, tags_hold(&tags, 0));
	assert_int_equal(tags.count, 0);
}

static void put_one(uint64_t offset, uint8_t value)
{
	struct tag_chunk *chunk[2] = { hold_read(offset), NULL };
	uint8_t tag[28];

	memset(tag, value, sizeof(tag));
	tags_put(&tags, chunk, offset, 1, tag);
	tags_let_go(&tags, chunk[0]);
}

/* While a page is written it may become dirty anew; if that fails it is dirty still. */
static void dirty_pages_are_taken_in_runs(void **state)
{
	uint8_t buf[TAG_CHUNK];
	struct tag_run run, other;

	(void)state;
	put_one(0, 1);
	put_one(150 * 4096, 2); /* in the next page */
	put_one(600 * 4096, 3); /* in the fifth */
	assert_int_equal(tags_dirty_pages(&tags), 3);
	assert_true(tags_take_dirty(&tags, &run, buf));
	assert_int_equal(run.first, 0);
	assert_int_equal(run.count, 2);
	assert_int_equal(buf[0], 1);
	assert_int_equal(buf[150 * 28], 2);
	/* Of a chunk no two are on their way. */
	assert_false(tags_take_dirty(&tags, &other, buf));
	put_one(0, 4);
	tags_wrote(&tags, &run, false);
	assert_int_equal(tags_dirty_pages(&tags), 2);
	assert_true(tags_take_dirty(&tags, &run, buf));
	assert_int_equal(run.count, 1);
	assert_int_equal(buf[0], 4);
	tags_wrote(&tags, &run, true);
	assert_int_equal(tags_dirty_pages(&tags), 2);
	assert_true(tags_take_dirty(&tags, &run, buf));
	assert_int_equal(run.first, 0);
	tags_wrote(&tags, &run, false);
	assert_true(tags_take_dirty(&tags, &run, buf));
	assert_int_equal(run.first, 4);
	tags_wrote(&tags, &run, false);
	assert_false(tags_take_dirty(&tags, &run, buf));
}

/* Who goes on making chunks dirty keeps nobody at it. */
static void a_turn_is_of_what_was_dirty_before(void **state)
{
	uint8_t buf[TAG_CHUNK];
	struct tag_run run;
	uint64_t turn;

	(void)state;
	put_one(0, 1);
	put_one(16 * MIB, 1);
	put_one(16 * MIB + 600 * 4096, 2);
	turn = tags_next_turn(&tags);
	put_one(32 * MIB, 1);
	assert_true(tags_take_chunk(&tags, turn, &run, buf));
	put_one(0, 2);
	tags_wrote(&tags, &run, false);
	assert_true(tags_take_chunk(&tags, turn, &run, buf));
	assert_int_equal(run.count, 5);
	tags_wrote(&tags, &run, false);
	assert_false(tags_take_chunk(&tags, turn, &run, buf));
	turn = tags_next_turn(&tags);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(tags_take_chunk(&tags, turn, &run, buf));
		tags_wrote(&tags, &run, false);
	}
	assert_false(tags_take_chunk(&tags, turn, &run, buf));
	assert_int_equal(tags_dirty_pages(&tags), 0);
}

/* More than may be are kept only as long as they are dirty or held. */
static void what_is_clean_makes_room(void **state)
{
	struct tag_chunk *held = hold_read(0);
	uint8_t buf[TAG_CHUNK];
	struct tag_run run;

	(void)state;
	for (uint64_t area = 1; area < 10; area++)
		put_one(area * 16 * MIB, area);
	assert_int_equal(tags.count, 10);
	while (tags_take_dirty(&tags, &run, buf))
		tags_wrote(&tags, &run, false);
	assert_int_equal(tags.count, 4);
	assert_true(tags_is_valid(&tags, held));
	tags_let_go(&tags, held);
}

#define TAGS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TAGS_TEST(a_chunk_is_of_one_area),
		TAGS_TEST(a_tag_lies_in_two_chunks),
		TAGS_TEST(whoever_comes_later_fills_nothing),
		TAGS_TEST(what_could_not_be_read_is_not_kept),
		TAGS_TEST(dirty_pages_are_taken_in_runs),
		TAGS_TEST(a_turn_is_of_what_was_dirty_before),
		TAGS_TEST(what_is_clean_makes_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
