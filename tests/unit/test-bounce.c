#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bounce.h"

#define MIB ((size_t)1 << 20)

/* KiB of a line of /proc/self/smaps, over all mappings that the area touches. */
static unsigned long smaps_sum(const struct bvec *area, const char *field)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start, end, value, sum = 0;
	uintptr_t base = (uintptr_t)area->base;
	int inside = 0;
	char line[512];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start < base + area->len && base < end;
		else if (inside && strncmp(line, field, strlen(field)) == 0 &&
			 sscanf(line + strlen(field), ": %lu", &value) == 1)
			sum += value;
	}
	fclose(file);
	return sum;
}

static void is_zeroes_and_pinned(void **state)
{
	struct bounce bounce;
	const uint8_t *at;

	(void)state;
	assert_int_equal(bounce_init(&bounce, 3 * MIB / 2, NULL), 0);
	at = bounce.area.base;
	assert_int_equal(bounce.area.len, 3 * MIB / 2);
	assert_int_equal((uintptr_t)at % sysconf(_SC_PAGESIZE), 0);
	for (size_t i = 0; i < bounce.area.len; i++)
		assert_int_equal(at[i], 0);
	if (!bounce.pinned)
		skip(); /* so little may be locked here */
	assert_int_equal(smaps_sum(&bounce.area, "Locked"), 1536);
	bounce_destroy(&bounce);
}

static void shares_follow_each_other(void **state)
{
	struct bounce bounce;

	(void)state;
	assert_int_equal(bounce_init(&bounce, 4 * 65536, NULL), 0);
	for (unsigned i = 0; i < 4; i++) {
		struct bvec share = bounce_share(&bounce, i, 65536);

		assert_ptr_equal(share.base, (uint8_t *)bounce.area.base + i * 65536);
		assert_int_equal(share.len, 65536);
		memset(share.base, 'x', share.len);
	}
	bounce_destroy(&bounce);
	assert_null(bounce.area.base);
	bounce_destroy(&bounce);
}

static void much_of_it_is_on_huge_pages(void **state)
{
	FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
	struct bounce bounce;
	char modes[64] = "";

	(void)state;
	if (file) {
		assert_non_null(fgets(modes, sizeof(modes), file));
		fclose(file);
	}
	assert_int_equal(bounce_init(&bounce, 16 * MIB, NULL), 0);
	if (!bounce.pinned)
		memset(bounce.area.base, 0, bounce.area.len);
	if (!file || strstr(modes, "[never]")) {
		bounce_destroy(&bounce);
		skip(); /* the kernel gives none */
	}
	assert_in_range(smaps_sum(&bounce.area, "AnonHugePages"), 8 * 1024, 16 * 1024);
	bounce_destroy(&bounce);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_zeroes_and_pinned),
		cmocka_unit_test(shares_follow_each_other),
		cmocka_unit_test(much_of_it_is_on_huge_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
