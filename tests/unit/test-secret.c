/* Where a secret lives, as the kernel tells it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "memory/pin.h"
#include "memory/secret.h"

static size_t page;

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

/* The flags of the mapping that an address is in: "rd wr ... dd ", after a space. */
static bool mapping_flags(const void *address, char *flags, size_t len)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	uintptr_t start, end, at = (uintptr_t)address;
	bool inside = false, found = false;
	char line[512];

	while (smaps && !found && fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%zx-%zx ", &start, &end) == 2)
			inside = start <= at && at < end;
		else if (inside && !strncmp(line, "VmFlags:", 8))
			found = snprintf(flags, len, "%s", line + 8) > 0;
	}
	if (smaps)
		fclose(smaps);
	return found;
}

static bool mapped(void *address)
{
	unsigned char vec;

	return !mincore(address, page, &vec);
}

static void is_zeroed_and_locked_while_it_lives(void **state)
{
	size_t before = locked_pages(), size = page + 1, i;
	struct error err = { "" };
	unsigned char *secret = secret_alloc(size, &err);

	(void)state;
	assert_non_null(secret);
	assert_string_equal(err.text, "");
	assert_int_equal(locked_pages(), before + 2);
	for (i = 0; i < size; i++)
		assert_int_equal(secret[i], 0);
	memset(secret, 'k', size);
	assert_true(mapped(secret));
	secret_free(secret, size);
	assert_int_equal(locked_pages(), before);
	assert_false(mapped(secret));
	assert_false(mapped(secret + page));
}

static void is_kept_out_of_core_dumps(void **state)
{
	void *secret = secret_alloc(32, NULL);
	char flags[256];

	(void)state;
	assert_non_null(secret);
	assert_true(mapping_flags(secret, flags, sizeof(flags)));
	assert_non_null(strstr(flags, " dd"));
	assert_non_null(strstr(flags, " lo"));
	secret_free(secret, 32);
}

static void so_are_buffers(void **state)
{
	size_t before = locked_pages(), size = 3 * page;
	struct secret_buffers buffers;
	struct error err = { "" };
	char flags[256];
	void *base;

	(void)state;
	assert_int_equal(secret_buffers_make(&buffers, size, &err), 0);
	assert_true(buffers.locked);
	assert_string_equal(err.text, "");
	assert_int_equal(locked_pages(), before + 3);
	assert_true(mapping_flags(buffers.base, flags, sizeof(flags)));
	assert_non_null(strstr(flags, " dd"));
	assert_non_null(strstr(flags, " lo"));
	base = memset(buffers.base, 'x', size);
	secret_buffers_free(&buffers);
	secret_buffers_free(&buffers);
	assert_int_equal(locked_pages(), before);
	assert_false(mapped(base));
	assert_int_equal(secret_buffers_make(&buffers, SIZE_MAX, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "cannot allocate memory for buffers: "));
	secret_buffers_free(&buffers);
}

static void two_never_share_a_page(void **state)
{
	char *a = secret_alloc(1, NULL), *b = secret_alloc(1, NULL);

	(void)state;
	assert_non_null(a);
	assert_non_null(b);
	assert_true((uintptr_t)a / page != (uintptr_t)b / page);
	secret_free(a, 1);
	assert_true(mapped(b));
	secret_free(b, 1);
}

static void freeing_none_is_harmless(void **state)
{
	(void)state;
	secret_free(NULL, 32);
}

static void impossible_size_is_an_error(void **state)
{
	const char *message = "cannot allocate memory for the key: ";
	struct error err = { "" };

	(void)state;
	assert_null(secret_alloc(SIZE_MAX, &err));
	assert_memory_equal(err.text, message, strlen(message));
}

struct refusal {
	bool refused, nothing_left, buffers_without_lock;
	struct error err, buffers_err;
};

/* In a child that has a limit, and for which it counts even as root. */
static struct refusal alloc_under_limit(size_t limit, size_t size)
{
	struct rlimit memlock = { limit, limit };
	struct secret_buffers buffers;
	struct refusal r = { 0 };
	int status, fds[2];
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_return_code(pid, errno);
	if (!pid) {
		if (setrlimit(RLIMIT_MEMLOCK, &memlock) < 0 ||
		    (!geteuid() && setresuid(65534, 65534, 65534) < 0))
			_exit(1);
		r.buffers_without_lock =
			!secret_buffers_make(&buffers, size, &r.buffers_err) && !buffers.locked;
		r.refused = !secret_alloc(size, &r.err);
		r.nothing_left = locked_pages() == 0;
		_exit(write(fds[1], &r, sizeof(r)) != sizeof(r));
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &r, sizeof(r)), sizeof(r));
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return r;
}

static void message_names_the_limit(void **state)
{
	struct refusal r = alloc_under_limit(65536, 65537);

	(void)state;
	assert_true(r.refused);
	assert_true(r.nothing_left);
	assert_true(r.buffers_without_lock);
	assert_string_equal(r.buffers_err.text,
			    "cannot lock memory for buffers: "
			    "the locked-memory limit is 65536 bytes (raise it with ulimit -l)");
	assert_string_equal(r.err.text,
			    "cannot lock memory for the key: "
			    "the locked-memory limit is 65536 bytes (raise it with ulimit -l)");
}

static void message_names_a_limit_of_nothing(void **state)
{
	struct refusal r = alloc_under_limit(0, 32);

	(void)state;
	assert_true(r.refused);
	assert_string_equal(r.err.text,
			    "cannot lock memory for the key: "
			    "the locked-memory limit is 0 bytes (raise it with ulimit -l)");
}

static void child_of_a_fork_locks_it_again(void **state)
{
	size_t before = locked_pages();
	char *secret = secret_alloc(32, NULL);
	int status;
	pid_t pid;

	(void)state;
	assert_non_null(secret);
	strcpy(secret, "key");
	pid = fork();
	assert_return_code(pid, errno);
	if (!pid) {
		bool ok = locked_pages() == 0 && !pin_after_fork() && locked_pages() == 1 &&
			  !strcmp(secret, "key");

		secret_free(secret, 32);
		_exit(!ok || locked_pages() != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	secret_free(secret, 32);
	assert_int_equal(locked_pages(), before);
}

static void a_key_locks_little_more_than_it_is(void **state)
{
	size_t before = locked_pages(), pages;
	struct error err = { "" };
	struct key key;
	void *place;

	(void)state;
	assert_int_equal(key_make(&key, 8 << 20, &err), 0);
	assert_int_equal(locked_pages(), before + 1);
	place = key.data;
	memset(key.data, 'k', page);
	for (pages = 1; key.locked < 5 << 20; pages = key.locked / page) {
		size_t was = key.locked;

		assert_int_equal(key_grow(&key, &err), 0);
		assert_int_equal(locked_pages(), before + key.locked / page);
		assert_true(key.locked - was <= 65536);
		assert_true(key.locked - was <= page || key.locked - was <= was / 4);
		memset((char *)key.data + was, 'k', key.locked - was);
	}
	assert_ptr_equal(key.data, place);
	key.len = 3 * page + 1;
	key_fit(&key);
	assert_true(key.locked >= key.len && key.locked < key.len + page + key.len / 4);
	assert_int_equal(locked_pages(), before + key.locked / page);
	for (size_t i = 0; i < pages * page; i++)
		assert_int_equal(((char *)key.data)[i], i < key.locked ? 'k' : 0);
	key_clear(&key);
	assert_int_equal(locked_pages(), before);
	assert_false(mapped(place));
}

static void a_key_has_no_more_than_its_room(void **state)
{
	struct error err = { "" };
	struct key key;

	(void)state;
	assert_int_equal(key_make(&key, page + 1, &err), 0);
	assert_int_equal(key_grow(&key, &err), 0);
	assert_int_equal(key.locked, 2 * page);
	assert_int_equal(key_grow(&key, &err), -ENOBUFS);
	key_clear(&key);
	key_clear(&key);
	assert_int_equal(key_set(&key, "", 0, &err), 0);
	assert_non_null(key.data);
	key_clear(&key);
	assert_int_equal(key_set(&key, "abc", 3, &err), 0);
	assert_memory_equal(key.data, "abc", 3);
	assert_int_equal(key.len, 3);
	key_clear(&key);
}

static void core_dumps_of_the_process_can_be_turned_off(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	assert_return_code(pid, errno);
	if (!pid) {
		secret_no_dumps();
		secret_no_dumps();
		_exit(prctl(PR_GET_DUMPABLE) != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_zeroed_and_locked_while_it_lives),
		cmocka_unit_test(is_kept_out_of_core_dumps),
		cmocka_unit_test(so_are_buffers),
		cmocka_unit_test(two_never_share_a_page),
		cmocka_unit_test(freeing_none_is_harmless),
		cmocka_unit_test(impossible_size_is_an_error),
		cmocka_unit_test(message_names_the_limit),
		cmocka_unit_test(message_names_a_limit_of_nothing),
		cmocka_unit_test(child_of_a_fork_locks_it_again),
		cmocka_unit_test(a_key_locks_little_more_than_it_is),
		cmocka_unit_test(a_key_has_no_more_than_its_room),
		cmocka_unit_test(core_dumps_of_the_process_can_be_turned_off),
	};

	page = sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
