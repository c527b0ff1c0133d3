/* What the kernel says is locked, against what the table of pins promises. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "memory/pin.h"

#define PAGES 64

/* In place of libc's: how often the kernel was asked what is locked. */
static atomic_uint questions;

/* Takes more arguments than most calls have, as the C library's does. */
__attribute__((no_sanitize("address"))) long syscall(long number, ...)
{
	static long (*next)(long, ...);
	long args[6];
	va_list list;

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "syscall");
	va_start(list, number);
	for (unsigned i = 0; i < 6; i++)
		args[i] = va_arg(list, long);
	va_end(list);
	questions += number == SYS_msync;
	return next(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

static size_t page;
static char *area; /* PAGES pages, for each test anew */

/* libc's functions do nothing under a sanitizer. */
static int lock(void *base, size_t len)
{
	return syscall(SYS_mlock, base, len);
}

static int unlock(void *base, size_t len)
{
	return syscall(SYS_munlock, base, len);
}

static int lock_all(int flags)
{
	return syscall(SYS_mlockall, flags);
}

/* Pages of the process that are locked, as the kernel counts them. */
static size_t locked_pages(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	size_t kib = SIZE_MAX;
	char line[256];

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "VmLck: %zu kB", &kib) == 1)
			break;
	if (status)
		fclose(status);
	return kib * 1024 / page;
}

/* Is this very page locked? A locked one can't be told to be cold. */
static bool page_locked(const char *base)
{
	return syscall(SYS_madvise, base, page, MADV_COLD) < 0 && errno == EINVAL;
}

static bool page_resident(char *base)
{
	unsigned char vec;

	return !mincore(base, page, &vec) && (vec & 1);
}

static size_t table_pages(void)
{
	struct pin_stats stats;

	pin_stats(&stats);
	return stats.pages;
}

static uint64_t failures(void)
{
	struct pin_stats stats;

	pin_stats(&stats);
	return stats.failed;
}

static char *map_pages(size_t pages)
{
	char *base = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	return base == MAP_FAILED ? NULL : base;
}

static int set_up(void **state)
{
	(void)state;
	area = map_pages(PAGES);
	return !area || locked_pages() || table_pages();
}

static int tear_down(void **state)
{
	(void)state;
	munmap(area, PAGES * page);
	return locked_pages() || table_pages();
}

/* For what would spoil the process: in a child, which inherits no lock, cmocka can't be used.
 * The line of the first check that failed is the result. */
#define CHECK(truth)                                                                               \
	do {                                                                                       \
		if (!(truth))                                                                      \
			return __LINE__;                                                           \
	} while (0)

static int in_child(int (*body)(void))
{
	int line, status, fds[2];
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_return_code(pid, errno);
	if (!pid) {
		line = body();
		_exit(write(fds[1], &line, sizeof(line)) != sizeof(line));
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &line, sizeof(line)), sizeof(line));
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return line;
}

/* The limit counts from here on, for root too. */
static int limit_locked_memory(size_t pages)
{
	struct rlimit limit = { pages * page, pages * page };

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		return -1;
	return geteuid() ? 0 : setresuid(65534, 65534, 65534);
}

static void page_stays_until_its_last_pin_goes(void **state)
{
	(void)state;
	assert_int_equal(pin_range(area + 10, 100), 0);
	assert_int_equal(pin_range(area + 2000, 5), 0);
	assert_int_equal(locked_pages(), 1);
	assert_int_equal(table_pages(), 1);
	unpin_range(area + 10, 100);
	assert_int_equal(locked_pages(), 1);
	assert_true(page_locked(area));
	unpin_range(area + 2000, 5);
	assert_int_equal(locked_pages(), 0);
}

static void every_page_that_is_touched_is_resident(void **state)
{
	size_t i;

	(void)state;
	assert_int_equal(pin_range(area + 2 * page - 1, 3 * page), 0);
	for (i = 0; i < 8; i++) {
		assert_int_equal(page_locked(area + i * page), i >= 1 && i <= 4);
		assert_int_equal(page_resident(area + i * page), i >= 1 && i <= 4);
	}
	unpin_range(area + 2 * page - 1, 3 * page);
}

static void empty_range_pins_nothing(void **state)
{
	struct pin_stats before, after;

	(void)state;
	pin_stats(&before);
	assert_int_equal(pin_range(NULL, 0), 0);
	assert_int_equal(pin_range(area, 0), 0);
	unpin_range(area, 0);
	unpin_range(NULL, 0);
	pin_stats(&after);
	assert_memory_equal(&before, &after, sizeof(before));
}

static void overlap_splits_and_joins(void **state)
{
	(void)state;
	assert_int_equal(pin_range(area, 8 * page), 0);
	assert_int_equal(pin_range(area + 4 * page, 8 * page), 0);
	assert_int_equal(pin_range(area + 5 * page, page), 0);
	assert_int_equal(table_pages(), 12);
	assert_int_equal(locked_pages(), 12);
	unpin_range(area, 8 * page);
	assert_false(page_locked(area + 3 * page));
	assert_true(page_locked(area + 4 * page));
	assert_int_equal(locked_pages(), 8);
	unpin_range(area + 4 * page, 8 * page);
	assert_int_equal(locked_pages(), 1);
	assert_true(page_locked(area + 5 * page));
	unpin_range(area + 5 * page, page);
}

/* More than the table first has room for, each next to the one before. */
static void neighbours_come_apart_again(void **state)
{
	const size_t pages = 500;
	char *base = map_pages(pages);
	size_t i;

	(void)state;
	for (i = 0; i < pages; i++)
		assert_int_equal(pin_range(base + i * page, page), 0);
	assert_int_equal(locked_pages(), pages);
	for (i = 0; i < pages; i += 2)
		unpin_range(base + i * page, page);
	assert_int_equal(locked_pages(), pages / 2);
	for (i = 0; i < pages; i++)
		assert_int_equal(page_locked(base + i * page), i % 2);
	for (i = 1; i < pages; i += 2)
		unpin_range(base + i * page, page);
	munmap(base, pages * page);
}

static void callers_own_lock_survives(void **state)
{
	(void)state;
	assert_int_equal(lock(area + 2 * page, 2 * page), 0);
	assert_int_equal(lock(area + 6 * page, page), 0);
	assert_int_equal(pin_range(area, 4 * page), 0);
	assert_int_equal(pin_range(area + 3 * page, 5 * page), 0);
	assert_int_equal(locked_pages(), 8);
	unpin_range(area, 4 * page);
	assert_int_equal(locked_pages(), 6);
	unpin_range(area + 3 * page, 5 * page);
	assert_int_equal(locked_pages(), 3);
	assert_true(page_locked(area + 2 * page));
	assert_true(page_locked(area + 3 * page));
	assert_true(page_locked(area + 6 * page));
	assert_int_equal(unlock(area, PAGES * page), 0);
}

static int pin_under_mlockall(void)
{
	size_t locked;
	char *base;

	CHECK(!lock_all(MCL_FUTURE | MCL_ONFAULT));
	base = map_pages(16);
	CHECK(base && page_locked(base) && !page_resident(base + 5 * page));
	locked = locked_pages();
	CHECK(!pin_range(base + 4 * page, 4 * page));
	CHECK(page_resident(base + 4 * page) && page_resident(base + 7 * page));
	unpin_range(base + 4 * page, 4 * page);
	CHECK(page_locked(base + 4 * page) && page_locked(base + 7 * page));
	CHECK(locked_pages() == locked);
	return 0;
}

static void process_under_mlockall_stays_locked(void **state)
{
	(void)state;
	assert_int_equal(in_child(pin_under_mlockall), 0);
}

static void hole_leaves_all_as_before(void **state)
{
	uint64_t failed = failures();

	(void)state;
	assert_int_equal(munmap(area + 6 * page, page), 0);
	assert_int_equal(lock(area + page, page), 0);
	assert_int_equal(pin_range(area + 3 * page, page), 0);

	assert_int_equal(pin_range(area, 10 * page), -ENOMEM);
	assert_int_equal(failures(), failed + 1);
	assert_int_equal(table_pages(), 1);
	assert_int_equal(locked_pages(), 2);
	assert_true(page_locked(area + page));
	assert_true(page_locked(area + 3 * page));

	unpin_range(area + 3 * page, page);
	assert_int_equal(locked_pages(), 1);
	assert_int_equal(unlock(area + page, page), 0);
}

static void memory_that_cannot_be_touched_is_refused(void **state)
{
	(void)state;
	assert_int_equal(mprotect(area + 4 * page, page, PROT_NONE), 0);
	assert_int_equal(pin_range(area, 8 * page), -ENOMEM);
	assert_int_equal(locked_pages(), 0);
	assert_int_equal(table_pages(), 0);
}

static void range_past_the_address_space_is_refused(void **state)
{
	uint64_t failed = failures();

	(void)state;
	assert_int_equal(pin_range(area, SIZE_MAX), -ENOMEM);
	assert_int_equal(pin_range((void *)UINTPTR_MAX, 1), -ENOMEM);
	assert_int_equal(pin_range((void *)(UINTPTR_MAX - 10), 5), -ENOMEM);
	assert_int_equal(failures(), failed + 3);
	assert_int_equal(table_pages(), 0);
}

static int pin_over_the_limit(void)
{
	CHECK(!limit_locked_memory(4));
	CHECK(!pin_range(area, 3 * page));
	CHECK(pin_range(area + 2 * page, 3 * page) == -ENOMEM);
	CHECK(locked_pages() == 3 && table_pages() == 3);
	CHECK(!pin_range(area + 2 * page, 2 * page));
	CHECK(locked_pages() == 4);
	unpin_range(area, 3 * page);
	CHECK(locked_pages() == 2);
	unpin_range(area + 2 * page, 2 * page);
	CHECK(locked_pages() == 0 && table_pages() == 0);
	return 0;
}

static void limit_on_locked_memory_is_obeyed(void **state)
{
	(void)state;
	assert_int_equal(in_child(pin_over_the_limit), 0);
}

static int pin_without_a_limit_to_lock(void)
{
	CHECK(!limit_locked_memory(0));
	CHECK(pin_range(area, page) == -EPERM);
	CHECK(table_pages() == 0);
	return 0;
}

static void no_locked_memory_allowed_is_told_apart(void **state)
{
	(void)state;
	assert_int_equal(in_child(pin_without_a_limit_to_lock), 0);
}

/* A daemon that locked its memory as root and dropped its privileges. */
static int pin_locked_memory_over_the_limit(void)
{
	CHECK(!lock(area, 4 * page));
	CHECK(!limit_locked_memory(0));
	CHECK(!pin_range(area + page, 2 * page));
	CHECK(pin_range(area + 3 * page, 2 * page) == -EPERM);
	unpin_range(area + page, 2 * page);
	CHECK(locked_pages() == 4 && table_pages() == 0);
	return 0;
}

static void memory_locked_before_the_limit_can_be_pinned(void **state)
{
	(void)state;
	assert_int_equal(in_child(pin_locked_memory_over_the_limit), 0);
}

/* Page 2 was the parent's own: its lock is gone with the others, and ours to undo. */
static int lock_again_after_fork(void)
{
	CHECK(locked_pages() == 0 && table_pages() == 5);
	CHECK(!pin_after_fork());
	CHECK(locked_pages() == 5);
	CHECK(!pin_after_fork());
	unpin_range(area + 8 * page, 2 * page);
	CHECK(locked_pages() == 3);
	unpin_range(area, 3 * page);
	CHECK(locked_pages() == 0 && table_pages() == 0);
	return 0;
}

static int lock_own_again_after_fork(void)
{
	CHECK(!lock(area + 2 * page, page));
	CHECK(!pin_after_fork());
	CHECK(locked_pages() == 5);
	unpin_range(area, 3 * page);
	unpin_range(area + 8 * page, 2 * page);
	CHECK(locked_pages() == 1 && page_locked(area + 2 * page));
	return 0;
}

static int lock_again_over_the_limit(void)
{
	CHECK(!limit_locked_memory(3));
	CHECK(pin_after_fork() == -ENOMEM);
	return 0;
}

static void child_of_a_fork_locks_again(void **state)
{
	(void)state;
	assert_int_equal(lock(area + 2 * page, page), 0);
	assert_int_equal(pin_range(area, 3 * page), 0);
	assert_int_equal(pin_range(area + 8 * page, 2 * page), 0);
	assert_int_equal(in_child(lock_again_after_fork), 0);
	assert_int_equal(in_child(lock_own_again_after_fork), 0);
	assert_int_equal(in_child(lock_again_over_the_limit), 0);
	unpin_range(area + 8 * page, 2 * page);
	unpin_range(area, 3 * page);
	assert_int_equal(locked_pages(), 1);
	assert_int_equal(unlock(area + 2 * page, page), 0);
}

/* Under mlockall(): by whoever says so, a page each where nobody does. */
static void where_all_is_locked_no_page_is_asked_for(void **state)
{
	/* On fault: a sanitizer has terabytes of addresses. */
	if (lock_all(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		skip();
	questions = 0;
	assert_int_equal(pin_range(area, PAGES * page), 0);
	unpin_range(area, PAGES * page);
	assert_true(questions >= PAGES);
	pin_all_is_locked();
	questions = 0;
	assert_int_equal(pin_range(area, PAGES * page), 0);
	assert_true(page_resident(area + (PAGES - 1) * page));
	unpin_range(area, PAGES * page);
	assert_int_equal(questions, 0);
	assert_true(page_locked(area)); /* it wasn't the pin's */
	syscall(SYS_munlockall);
	assert_int_equal(pin_after_fork(), 0);
	assert_int_equal(pin_range(area, page), 0);
	assert_true(page_locked(area));
	unpin_range(area, page);
	assert_false(page_locked(area));
}

static void stats_count_ranges(void **state)
{
	struct pin_stats before, after;

	(void)state;
	pin_stats(&before);
	assert_int_equal(pin_range(area, page), 0);
	assert_int_equal(pin_range(NULL, 0), 0);
	assert_int_equal(pin_range(area, page), 0);
	unpin_range(area, page);
	assert_int_equal(pin_range((void *)page, page), -ENOMEM);
	pin_stats(&after);
	assert_int_equal(after.pinned - before.pinned, 2);
	assert_int_equal(after.unpinned - before.unpinned, 1);
	assert_int_equal(after.failed - before.failed, 1);
	assert_int_equal(after.pages, 1);
	unpin_range(area, page);
}

struct range {
	size_t first, pages;
};

static struct range random_range(unsigned *seed)
{
	struct range range;

	range.first = rand_r(seed) % PAGES;
	range.pages = 1 + rand_r(seed) % (rand_r(seed) % 4 ? 4 : PAGES);
	if (range.pages > PAGES - range.first)
		range.pages = PAGES - range.first;
	return range;
}

/* Some pages are locked by the caller, one isn't there, and the pins are as they come. */
static void random_pins_match_a_count_for_each_page(void **state)
{
	enum { HELD = 20, HOLE = 40 };
	struct range held[HELD] = { 0 };
	size_t count[PAGES] = { 0 };
	bool foreign[PAGES] = { 0 };
	unsigned seed = 3, round;
	size_t i, p;

	(void)state;
	for (i = 0; i < 6; i++) {
		p = rand_r(&seed) % (HOLE - 1);
		foreign[p] = true;
		assert_int_equal(lock(area + p * page, page), 0);
	}
	assert_int_equal(munmap(area + HOLE * page, page), 0);

	for (round = 0; round < 4000; round++) {
		struct range *range = &held[rand_r(&seed) % HELD];
		size_t pinned = 0, locked = 0;

		if (range->pages) {
			unpin_range(area + range->first * page, range->pages * page);
			for (i = 0; i < range->pages; i++)
				count[range->first + i]--;
			range->pages = 0;
		} else {
			struct range r = random_range(&seed);
			bool hole = r.first <= HOLE && r.first + r.pages > HOLE;

			assert_int_equal(pin_range(area + r.first * page, r.pages * page),
					 hole ? -ENOMEM : 0);
			if (!hole) {
				for (i = 0; i < r.pages; i++)
					count[r.first + i]++;
				*range = r;
			}
		}
		for (p = 0; p < PAGES; p++) {
			pinned += count[p] > 0;
			locked += count[p] > 0 || foreign[p];
		}
		assert_int_equal(table_pages(), pinned);
		assert_int_equal(locked_pages(), locked);
		p = rand_r(&seed) % PAGES;
		if (p != HOLE)
			assert_int_equal(page_locked(area + p * page), count[p] || foreign[p]);
	}
	for (i = 0; i < HELD; i++)
		if (held[i].pages)
			unpin_range(area + held[i].first * page, held[i].pages * page);
	for (p = 0; p < PAGES; p++)
		if (foreign[p])
			assert_int_equal(unlock(area + p * page, page), 0);
}

enum { HOLE_OF_THREADS = PAGES / 2 };

/* How many things were wrong. */
static void *hammer(void *arg)
{
	unsigned seed = (uintptr_t)arg, round;
	struct range held[4] = { 0 };
	uintptr_t wrong = 0;

	for (round = 0; round < 2000; round++) {
		struct range *range = &held[round % 4];
		char *base = area + range->first * page;
		bool hole;

		if (range->pages) {
			wrong += !page_locked(base);
			wrong += !page_locked(base + (range->pages - 1) * page);
			unpin_range(base, range->pages * page);
		}
		*range = random_range(&seed);
		hole = range->first <= HOLE_OF_THREADS &&
		       range->first + range->pages > HOLE_OF_THREADS;
		base = area + range->first * page;
		wrong += pin_range(base, range->pages * page) != (hole ? -ENOMEM : 0);
		if (hole)
			range->pages = 0;
		else
			wrong += !page_resident(base + rand_r(&seed) % range->pages * page);
	}
	for (round = 0; round < 4; round++)
		unpin_range(area + held[round].first * page, held[round].pages * page);
	return (void *)wrong;
}

static void threads_over_the_same_pages_leave_nothing(void **state)
{
	pthread_t thread[4];
	void *wrong;
	size_t i;

	(void)state;
	/* A hole that no thread's allocation can be put into. */
	assert_int_equal(mprotect(area + HOLE_OF_THREADS * page, page, PROT_NONE), 0);
	assert_int_equal(lock(area + 5 * page, page), 0);
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, hammer, (void *)(i + 1)), 0);
	for (i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(thread[i], &wrong), 0);
		assert_null(wrong);
	}
	assert_int_equal(table_pages(), 0);
	assert_int_equal(locked_pages(), 1);
	assert_int_equal(unlock(area + 5 * page, page), 0);
}

#define pin_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		pin_test(page_stays_until_its_last_pin_goes),
		pin_test(every_page_that_is_touched_is_resident),
		pin_test(empty_range_pins_nothing),
		pin_test(overlap_splits_and_joins),
		pin_test(neighbours_come_apart_again),
		pin_test(callers_own_lock_survives),
		pin_test(process_under_mlockall_stays_locked),
		pin_test(hole_leaves_all_as_before),
		pin_test(memory_that_cannot_be_touched_is_refused),
		pin_test(range_past_the_address_space_is_refused),
		pin_test(limit_on_locked_memory_is_obeyed),
		pin_test(no_locked_memory_allowed_is_told_apart),
		pin_test(memory_locked_before_the_limit_can_be_pinned),
		pin_test(child_of_a_fork_locks_again),
		pin_test(where_all_is_locked_no_page_is_asked_for),
		pin_test(stats_count_ranges),
		pin_test(random_pins_match_a_count_for_each_page),
		pin_test(threads_over_the_same_pages_leave_nothing),
	};

	page = sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
