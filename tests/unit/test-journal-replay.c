/* What a journal that is found means: in the states that dm-integrity leaves, and, for rings of any
 * numbers, as a decision that has all of them before it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/journal-replay.h"

#define MAX_SECTIONS 8
#define NONE         8 /* a commit id that fits none */

static struct layout layout;
static uint8_t *section;

static int set_up(void **state)
{
	struct superblock superblock = {
		.tag_size = 112,
		.block = 4096,
		.log2_interleave = 15,
		.journal_sections = MAX_SECTIONS,
		.provided_sectors = 4096,
		.fixed_padding = true,
	};
	struct error err;

	(void)state;
	if (layout_make(&superblock, 64 << 20, "disk", &layout, &err) < 0)
		return -1;
	section = calloc(1, layout.section_len);
	return section ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	free(section);
	return 0;
}

/* A section is told by its numbers: that of most of its sectors, and of one, perhaps. */
struct numbers {
	unsigned most, one;
	bool used;
};

static void make_section(uint32_t number, const struct numbers *numbers)
{
	static const uint8_t zeroes[4096];
	uint8_t other[8];
	uint8_t *at = section + 20 * LAYOUT_SECTOR + 504;

	journal_section_clear(&layout, section, false);
	if (numbers->used)
		journal_section_put(&layout, section, 7, 8 * number, zeroes, zeroes);
	journal_section_seal(&layout, section, number, numbers->one % JOURNAL_SEQS);
	memcpy(other, at, sizeof(other));
	journal_section_seal(&layout, section, number, numbers->most);
	memcpy(at, other, sizeof(other));
	if (numbers->one == NONE)
		at[5] ^= 1;
}

static int decide(const struct numbers *numbers, uint32_t count, struct journal_plan *plan,
		  struct error *err)
{
	struct journal_replay replay;

	layout.sections = count;
	journal_replay_init(&replay, &layout);
	for (uint32_t i = 0; i < count; i++) {
		make_section(i, &numbers[i]);
		journal_replay_see(&replay, section);
	}
	return journal_replay_decide(&replay, "disk", plan, err);
}

/* "2222 1111": numbers, all used; a letter instead: one sector is of the next number; a dot behind it:
 * unused. The plan as text. */
static const char *plan_of(const char *text)
{
	static char said[96];
	char end[16] = "keep";
	struct numbers numbers[MAX_SECTIONS];
	struct journal_plan plan;
	struct error err;
	uint32_t count = 0;

	for (; *text; text++) {
		if (*text == '.')
			numbers[count - 1].used = false;
		else if (*text >= 'a')
			numbers[count++] =
				(struct numbers){ *text - 'a', (*text - 'a' + 1) % 4, true };
		else if (*text != ' ')
			numbers[count++] = (struct numbers){ *text - '0', *text - '0', true };
	}
	assert_int_equal(decide(numbers, count, &plan, &err), 0);
	if (plan.erase)
		snprintf(end, sizeof(end), "erase %u", plan.erase_seq);
	snprintf(said, sizeof(said), "take %u from %u:%u, %s, go on %u:%u", plan.take, plan.start,
		 plan.seq, end, plan.next, plan.next_seq);
	return said;
}

static void one_that_was_just_made(void **state)
{
	(void)state;
	assert_string_equal(plan_of("0.0.0.0."), "take 0 from 0:0, keep, go on 0:1");
	assert_string_equal(plan_of("0."), "take 0 from 0:0, keep, go on 0:1");
}

static void one_that_was_closed(void **state)
{
	(void)state;
	assert_string_equal(plan_of("2.2.1.1."), "take 0 from 2:1, keep, go on 2:2");
	assert_string_equal(plan_of("0.0.3.3."), "take 0 from 2:3, keep, go on 2:0");
}

static void a_ring_that_goes_on(void **state)
{
	(void)state;
	assert_string_equal(plan_of("2221 1111"), "take 8 from 3:1, keep, go on 3:2");
	assert_string_equal(plan_of("0003 3333"), "take 8 from 3:3, keep, go on 3:0");
	assert_string_equal(plan_of("1111 1111"), "take 8 from 0:1, keep, go on 0:2");
	assert_string_equal(plan_of("2"), "take 1 from 0:2, keep, go on 0:3");
}

/* The one that was written when it was cut off, and what was written before it all. */
static void sections_that_are_torn(void **state)
{
	(void)state;
	assert_string_equal(plan_of("222b 1111"), "take 7 from 4:1, erase 0, go on 0:1");
	assert_string_equal(plan_of("222b b111"), "take 6 from 5:1, erase 0, go on 0:1");
	assert_string_equal(plan_of("2221 b111"), "take 6 from 5:1, erase 0, go on 0:1");
	assert_string_equal(plan_of("2222 222b"), "take 7 from 0:2, erase 0, go on 0:1");
	/* Going round: the first is there, the last isn't. */
	assert_string_equal(plan_of("2111 1110"), "take 6 from 1:1, erase 0, go on 0:1");
	assert_string_equal(plan_of("b"), "take 0 from 0:2, erase 0, go on 0:1");
}

/* Interrupted, at the beginning and at the end. */
static void one_that_is_being_erased(void **state)
{
	(void)state;
	assert_string_equal(plan_of("2220. 1111"), "take 0 from 3:1, erase 0, go on 0:1");
	assert_string_equal(plan_of("0.0.20. 0.0.0.0."), "take 0 from 3:1, erase 0, go on 0:1");
}

static void numbers_that_no_crash_leaves_are_refused(void **state)
{
	struct numbers numbers[4] = {
		{ 0, 0, true }, { 1, 1, true }, { 2, 2, true }, { 3, 3, true }
	};
	struct journal_plan plan;
	struct error err;

	(void)state;
	assert_int_equal(decide(numbers, 4, &plan, &err), -EIO);
	assert_string_equal(err.text,
			    "disk: integrity: the journal is damaged: its sections have all "
			    "numbers at once");
	numbers[2] = (struct numbers){ 1, NONE, true };
	assert_int_equal(decide(numbers, 3, &plan, &err), -EIO);
	assert_string_equal(err.text,
			    "disk: integrity: the journal is damaged: section 2, sector 20");
}

/* ---- against a decision that looks at all of it at once ---- */

static bool is_whole(const struct numbers *numbers, unsigned seq)
{
	return numbers->most == seq && numbers->one == seq;
}

static void compare(const struct numbers *numbers, uint32_t count)
{
	bool occurs[4] = { false }, empty = true;
	uint32_t highest[4] = { 0 }, at, take = 0;
	struct journal_plan plan;
	struct error err;
	unsigned unused, last, wanted;
	int ret = decide(numbers, count, &plan, &err);

	for (uint32_t i = 0; i < count; i++) {
		occurs[numbers[i].most] = occurs[numbers[i].one] = true;
		highest[numbers[i].most] = highest[numbers[i].one] = i;
		empty = empty && !numbers[i].used;
	}
	if (!occurs[3])
		for (unused = 3; unused > 0 && !occurs[unused - 1];)
			unused--;
	else
		for (unused = 0; unused < 4 && occurs[unused];)
			unused++;
	if (unused == 4) {
		assert_int_equal(ret, -EIO);
		return;
	}
	assert_int_equal(ret, 0);
	last = (unused + 3) % 4;
	wanted = (unused + 2) % 4;
	empty = empty || (!occurs[wanted] && occurs[(unused + 1) % 4]);
	at = highest[last] + 1;
	if (at == count) {
		at = 0;
		wanted = (wanted + 1) % 4;
	}
	assert_int_equal(plan.start, at);
	for (; take < count && is_whole(&numbers[at], wanted); take++)
		if (++at == count) {
			at = 0;
			wanted = (wanted + 1) % 4;
		}
	assert_int_equal(plan.take, empty ? 0 : take);
	assert_int_equal(plan.erase, take < count);
	assert_int_equal(plan.next, take < count ? 0 : at);
	assert_int_equal(plan.next_seq, take < count ? (last + 3) % 4 : wanted);
	for (uint32_t i = 0; i < plan.take; i++) {
		unsigned seq;
		uint32_t section_number = journal_plan_section(&plan, &layout, i, &seq);

		assert_true(is_whole(&numbers[section_number], seq));
	}
}

/* All rings of up to four sections, torn ones too, and empty ones. */
static void any_ring(void **state)
{
	struct numbers numbers[4];

	(void)state;
	for (uint32_t count = 1; count <= 4; count++)
		for (unsigned n = 0; n < 1u << 3 * count; n++) {
			for (uint32_t i = 0; i < count; i++) {
				unsigned of = n >> 3 * i & 7;

				numbers[i] = (struct numbers){ of % 4, (of + of / 4) % 4, n % 3 };
			}
			compare(numbers, count);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_was_just_made),
		cmocka_unit_test(one_that_was_closed),
		cmocka_unit_test(a_ring_that_goes_on),
		cmocka_unit_test(sections_that_are_torn),
		cmocka_unit_test(one_that_is_being_erased),
		cmocka_unit_test(numbers_that_no_crash_leaves_are_refused),
		cmocka_unit_test(any_ring),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
