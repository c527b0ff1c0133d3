#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/bounce.h"
#include "memory/secret.h"

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
	assert_int_equal(bounce_init(&bounce, 3 * MIB / 2, false, NULL), 0);
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
	assert_int_equal(bounce_init(&bounce, 4 * 65536, false, NULL), 0);
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

/* KiB of huge pages that an area has when it is touched. */
static unsigned long huge_kib(const struct bvec *area)
{
	memset(area->base, 0, area->len);
	return smaps_sum(area, "AnonHugePages");
}

/* Does the kernel give any, at this moment, to whoever asks? */
static bool kernel_gives_huge_pages(void)
{
	struct bvec area = { .len = 4 * MIB };
	bool gives;

	area.base =
		mmap(NULL, area.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(area.base != MAP_FAILED);
	madvise(area.base, area.len, MADV_HUGEPAGE);
	gives = huge_kib(&area) > 0;
	munmap(area.base, area.len);
	return gives;
}

static void is_on_huge_pages_where_asked(void **state)
{
	struct bounce bounce;

	(void)state;
	if (!kernel_gives_huge_pages())
		skip();
	assert_int_equal(bounce_init(&bounce, 16 * MIB, true, NULL), 0);
	assert_in_range(huge_kib(&bounce.area), 2 * 1024, 16 * 1024);
	bounce_destroy(&bounce);
	assert_int_equal(bounce_init(&bounce, 16 * MIB, false, NULL), 0);
	assert_int_equal(huge_kib(&bounce.area), 0);
	bounce_destroy(&bounce);
}

/* In a child for which a limit of 1 MiB counts, even as root: 1 where the memory is pinned, and 2 where
 * there is room for a key, too. */
static int under_limit(size_t len)
{
	struct rlimit limit = { MIB, MIB };
	struct bounce bounce;
	int status;
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid) {
		if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 ||
		    (!geteuid() && setresuid(65534, 65534, 65534) < 0) ||
		    bounce_init(&bounce, len, false, NULL) < 0)
			_exit(64);
		_exit(bounce.pinned + 2 * (secret_alloc(BOUNCE_LEAVES, NULL) != NULL));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void leaves_room_for_keys(void **state)
{
	size_t most = MIB - BOUNCE_LEAVES;

	(void)state;
	assert_int_equal(under_limit(most), 1 + 2);
	assert_int_equal(under_limit(most + sysconf(_SC_PAGESIZE)), 2);
	assert_int_equal(under_limit(MIB), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_zeroes_and_pinned),
		cmocka_unit_test(shares_follow_each_other),
		cmocka_unit_test(is_on_huge_pages_where_asked),
		cmocka_unit_test(leaves_room_for_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
