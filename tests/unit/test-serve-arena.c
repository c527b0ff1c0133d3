/* The arena: pieces never overlap, whatever the order in which they are given back; what is full says so,
 * and takes again what it took before once all has come back; and the limit is kept to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "serve/arena.h"

#define PAGES  64
#define PIECES 16

struct piece {
	uint8_t *base; /* NULL: none */
	size_t len;
	uint8_t mark;
};

static uint32_t random_below(uint32_t *state, uint32_t limit)
{
	*state = *state * 1664525 + 1013904223;
	return (*state >> 8) % limit;
}

static bool is_marked(const struct piece *piece)
{
	for (size_t i = 0; i < piece->len; i++)
		if (piece->base[i] != piece->mark)
			return false;
	return true;
}

static void pieces_never_overlap(void **state)
{
	struct arena arena;
	struct piece pieces[PIECES] = { 0 };
	uint32_t seed = 1;
	unsigned taken = 0;

	(void)state;
	assert_int_equal(arena_init(&arena, PAGES * ARENA_PAGE), 0);
	for (unsigned i = 0; i < 20000; i++) {
		struct piece *piece = &pieces[random_below(&seed, PIECES)];

		if (piece->base) {
			assert_true(is_marked(piece));
			arena_give(&arena, piece->base);
			piece->base = NULL;
			continue;
		}
		piece->len = 1 + random_below(&seed, PAGES * ARENA_PAGE / 4);
		piece->mark = i;
		piece->base = arena_take(&arena, piece->len);
		if (!piece->base)
			continue;
		taken++;
		assert_true(piece->base >= arena.base);
		assert_true(piece->base + piece->len <= arena.base + PAGES * ARENA_PAGE);
		assert_int_equal((piece->base - arena.base) % ARENA_PAGE, 0);
		memset(piece->base, piece->mark, piece->len);
	}
	assert_true(taken > 1000);
	for (unsigned i = 0; i < PIECES; i++)
		if (pieces[i].base)
			arena_give(&arena, pieces[i].base);
	assert_non_null(arena_take(&arena, PAGES * ARENA_PAGE));
	arena_destroy(&arena);
}

static void a_full_one_says_so(void **state)
{
	struct arena arena;
	uint8_t *all, *last;

	(void)state;
	assert_int_equal(arena_init(&arena, PAGES * ARENA_PAGE), 0);
	assert_null(arena_take(&arena, PAGES * ARENA_PAGE + 1));
	all = arena_take(&arena, (PAGES - 1) * ARENA_PAGE);
	last = arena_take(&arena, 1);
	assert_non_null(all);
	assert_non_null(last);
	assert_null(arena_take(&arena, 1));
	/* What was taken before holds it. */
	arena_give(&arena, last);
	assert_null(arena_take(&arena, 1));
	arena_give(&arena, all);
	assert_ptr_equal(arena_take(&arena, PAGES * ARENA_PAGE), all);
	arena_destroy(&arena);
}

/* In the middle, at the seam, and when it has been lowered below what is in use. */
static void it_begins_anew_at_its_limit(void **state)
{
	struct arena arena;
	uint8_t *first, *second;

	(void)state;
	assert_int_equal(arena_init(&arena, PAGES * ARENA_PAGE), 0);
	arena.limit = 8;
	first = arena_take(&arena, 5 * ARENA_PAGE);
	assert_null(arena_take(&arena, 4 * ARENA_PAGE));
	second = arena_take(&arena, 3 * ARENA_PAGE);
	assert_non_null(second);
	arena_give(&arena, first);
	assert_ptr_equal(arena_take(&arena, 4 * ARENA_PAGE), first);
	assert_null(arena_take(&arena, 2 * ARENA_PAGE));
	arena.limit = 2;
	arena_give(&arena, second);
	assert_null(arena_take(&arena, 3 * ARENA_PAGE));
	arena_give(&arena, first);
	assert_null(arena_take(&arena, 3 * ARENA_PAGE));
	assert_ptr_equal(arena_take(&arena, 2 * ARENA_PAGE), first);
	arena_destroy(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_never_overlap),
		cmocka_unit_test(a_full_one_says_so),
		cmocka_unit_test(it_begins_anew_at_its_limit),
	};

	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
