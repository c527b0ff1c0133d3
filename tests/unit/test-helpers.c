/* What helpers encrypt and decrypt, and when they do. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "engine/helpers.h"
#include "fake-target.h"

#define PATIENCE    120   /* seconds; then somebody waits forever */
#define SOON        60000 /* milliseconds in which a helper comes at least once */
#define MAX_LEN     (1024 * 1024u)
#define UNIT        12345
#define THREADS     8
#define TURNS       200
#define MAX_THREADS 64

static const struct fake_options kinds[] = {
	{ .cipher = "aes-xts-plain64", .sector = 512, .align = 512, .size = 65536 },
	{ .cipher = "aes-xts-plain64", .sector = 4096, .align = 512, .size = 65536 },
	{ .cipher = "aes-cbc-essiv:sha256", .sector = 512, .align = 512, .size = 65536 },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct volume *volume;
static struct helpers *helpers;
static uint8_t *plain;
static cpu_set_t cores; /* that the test may use */

/* So many sectors go well, and the next fails; negative: none does. */
static atomic_int until_failure = -1;

/* In place of libcrypto's. */
int EVP_CipherUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *done, const unsigned char *in,
		     int len)
{
	static int (*real)(EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *, int);

	if (!real) /* before any thread is started */
		*(void **)&real = dlsym(RTLD_NEXT, "EVP_CipherUpdate");
	if (until_failure >= 0 && atomic_fetch_sub(&until_failure, 1) == 0)
		return 0;
	return real(ctx, out, done, in, len);
}

static int learn_cores(void **state)
{
	return sched_getaffinity(0, sizeof(cores), &cores);
}

static int give_cores_back(void **state)
{
	return sched_setaffinity(0, sizeof(cores), &cores);
}

static struct cipher *own_cipher(void)
{
	const struct luks *luks = &volume->luks;

	return cipher_new(luks->cipher, luks->key, luks->key_len, luks->sector, NULL);
}

static void open_kind(unsigned kind)
{
	struct fake_target *fake;
	unsigned seed = 5;

	alarm(PATIENCE);
	volume = fake_volume(&kinds[kind], &fake);
	assert_int_equal(helpers_open(volume, &helpers, NULL), 0);
	plain = malloc(MAX_LEN);
	assert_non_null(plain);
	fake_noise(plain, MAX_LEN, &seed);
}

static void close_kind(void)
{
	helpers_close(helpers);
	volume_close(volume);
	free(plain);
	alarm(0);
}

static uint64_t helped(void)
{
	return stat_get(&volume->stats, helped);
}

/* So many bytes, there and back, are what one thread makes of them. Memory of its own length, so
 * that a sanitizer sees what goes beyond. */
static void assert_right(struct cipher *cipher, size_t len)
{
	uint8_t *by_one = malloc(len), *by_some = calloc(1, len);

	assert_non_null(by_one);
	assert_non_null(by_some);
	assert_int_equal(cipher_encrypt(cipher, UNIT, plain, by_one, len, NULL), 0);
	assert_int_equal(
		helpers_crypt(helpers, cipher_encrypt, cipher, UNIT, plain, by_some, len, NULL), 0);
	fake_assert_same(by_one, by_some, len);
	assert_int_equal(
		helpers_crypt(helpers, cipher_decrypt, cipher, UNIT, by_one, by_some, len, NULL),
		0);
	fake_assert_same(plain, by_some, len);
	assert_int_equal(
		helpers_crypt(helpers, cipher_decrypt, cipher, UNIT, by_one, by_one, len, NULL), 0);
	fake_assert_same(plain, by_one, len);
	free(by_one);
	free(by_some);
}

static void it_is_what_one_thread_would_make_of_it(void **state)
{
	for (unsigned kind = 0; kind < KINDS; kind++) {
		size_t sector = kinds[kind].sector;
		const size_t lens[] = {
			sector,
			HELPERS_MIN_LEN - sector,
			HELPERS_MIN_LEN,
			HELPERS_MIN_LEN + sector,
			5 * 65536 + sector,
			MAX_LEN,
		};
		struct cipher *cipher;

		open_kind(kind);
		cipher = own_cipher();
		for (unsigned turn = 0; turn < 20; turn++)
			for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
				assert_right(cipher, lens[i]);
		cipher_free(cipher);
		close_kind();
	}
}

static void another_core_does_a_part(void **state)
{
	const int64_t deadline = clock_ms() + SOON;
	struct cipher *cipher;

	if (CPU_COUNT(&cores) < 2)
		skip();
	open_kind(0);
	cipher = own_cipher();
	/* At first they may still be on their way to sleep. */
	for (unsigned turn = 0; turn < 2; turn++) {
		uint64_t before = helped();

		usleep(turn * 100000);
		while (helped() == before && clock_ms() < deadline)
			assert_right(cipher, MAX_LEN);
		assert_int_not_equal(helped(), before);
	}
	cipher_free(cipher);
	close_kind();
}

static void nobody_helps_with_little(void **state)
{
	struct cipher *cipher;

	open_kind(0);
	cipher = own_cipher();
	for (unsigned i = 0; i < 100; i++)
		assert_right(cipher, HELPERS_MIN_LEN - kinds[0].sector);
	assert_int_equal(helped(), 0);
	cipher_free(cipher);
	close_kind();
}

static void on_one_core_there_are_none(void **state)
{
	struct cipher *cipher;
	cpu_set_t one, others = cores;
	int cpu = 0;

	while (!CPU_ISSET(cpu, &cores))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	open_kind(0);
	/* One that was there would be asked by a caller on another core. */
	if (CPU_COUNT(&cores) > 1)
		CPU_CLR(cpu, &others);
	assert_int_equal(sched_setaffinity(0, sizeof(others), &others), 0);
	cipher = own_cipher();
	for (unsigned i = 0; i < 100; i++)
		assert_right(cipher, MAX_LEN);
	assert_int_equal(helped(), 0);
	cipher_free(cipher);
	close_kind();
}

/* Threads of this process. */
static unsigned all_threads(pid_t *tids, unsigned max)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned count = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && count < max)
			tids[count++] = atoi(entry->d_name);
	closedir(dir);
	return count;
}

/* The process's first thread, and those that were started since there were these: a sanitizer may have
 * one of its own. */
static unsigned own_threads(pid_t *tids, const pid_t *before, unsigned nr_before)
{
	unsigned count = 0, nr_now = all_threads(tids, MAX_THREADS);

	for (unsigned i = 0; i < nr_now; i++) {
		bool other = false;

		for (unsigned j = 0; j < nr_before; j++)
			other |= tids[i] == before[j] && tids[i] != getpid();
		if (!other)
			tids[count++] = tids[i];
	}
	return count;
}

static bool all_run_on(const pid_t *tids, unsigned count, const cpu_set_t *set)
{
	for (unsigned i = 0; i < count; i++) {
		cpu_set_t own;

		if (sched_getaffinity(tids[i], sizeof(own), &own) < 0 || !CPU_EQUAL(&own, set))
			return false;
	}
	return true;
}

/* Of all threads, as taskset -a does, or of the process's first one: then helpers follow it. */
static void affinity_that_was_set_stays(void **state)
{
	struct cipher *cipher;
	pid_t tids[MAX_THREADS], before[MAX_THREADS];
	unsigned count, nr_before = all_threads(before, MAX_THREADS);

	if (CPU_COUNT(&cores) < 2)
		skip();
	open_kind(0);
	cipher = own_cipher();
	count = own_threads(tids, before, nr_before);
	assert_true(count > 1);
	for (unsigned turn = 0; turn < 4; turn++) {
		int64_t deadline = clock_ms() + SOON / 4;
		int cpu = -1;
		cpu_set_t one;

		for (unsigned nth = turn % 2 + 1; nth; nth--)
			while (!CPU_ISSET(++cpu, &cores))
				;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		for (unsigned i = 0; i < count; i++)
			if (turn < 2 || tids[i] == getpid())
				assert_int_equal(sched_setaffinity(tids[i], sizeof(one), &one), 0);
		/* Until each has slept and was woken since. */
		while (!all_run_on(tids, count, &one) && clock_ms() < deadline)
			assert_right(cipher, MAX_LEN);
		for (unsigned i = 0; i < 20; i++)
			assert_right(cipher, MAX_LEN);
		assert_true(all_run_on(tids, count, &one));
	}
	cipher_free(cipher);
	close_kind();
}

/* At any sector, so that it is sometimes the caller's own and sometimes a helper's. */
static void whoever_fails_it_is_told(void **state)
{
	uint8_t *out = malloc(MAX_LEN);
	struct cipher *cipher;

	assert_non_null(out);
	open_kind(0);
	cipher = own_cipher();
	for (unsigned sector = 0; sector < MAX_LEN / kinds[0].sector; sector += 7) {
		until_failure = sector;
		assert_int_equal(helpers_crypt(helpers, cipher_encrypt, cipher, UNIT, plain, out,
					       MAX_LEN, NULL),
				 -EIO);
		until_failure = -1;
	}
	assert_right(cipher, MAX_LEN);
	cipher_free(cipher);
	close_kind();
	free(out);
}

/* ---- many callers ---- */

/* Asserts of cmocka are for its own thread: the others tell what failed. */
struct caller {
	pthread_t thread;
	unsigned number;
	bool failed;
};

static void *call(void *opaque)
{
	struct caller *caller = opaque;
	size_t len = HELPERS_MIN_LEN + caller->number * 33 * kinds[0].sector;
	uint8_t *by_one = malloc(len), *by_some = malloc(len);
	struct cipher *cipher = own_cipher();

	caller->failed = !by_one || !by_some || !cipher ||
			 cipher_encrypt(cipher, caller->number, plain, by_one, len, NULL) < 0;
	for (unsigned turn = 0; turn < TURNS && !caller->failed; turn++) {
		memset(by_some, 0, len);
		caller->failed = helpers_crypt(helpers, cipher_encrypt, cipher, caller->number,
					       plain, by_some, len, NULL) < 0 ||
				 memcmp(by_one, by_some, len) ||
				 helpers_crypt(helpers, cipher_decrypt, cipher, caller->number,
					       by_some, by_some, len, NULL) < 0 ||
				 memcmp(plain, by_some, len);
	}
	cipher_free(cipher);
	free(by_one);
	free(by_some);
	return NULL;
}

static void many_callers_each_get_their_own(void **state)
{
	struct caller callers[THREADS];

	open_kind(0);
	for (unsigned i = 0; i < THREADS; i++) {
		callers[i] = (struct caller){ .number = i };
		assert_int_equal(pthread_create(&callers[i].thread, NULL, call, &callers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(callers[i].thread, NULL);
	for (unsigned i = 0; i < THREADS; i++)
		assert_false(callers[i].failed);
	close_kind();
}

static void they_come_and_go(void **state)
{
	for (unsigned i = 0; i < 50; i++) {
		open_kind(0);
		close_kind();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_what_one_thread_would_make_of_it),
		cmocka_unit_test(another_core_does_a_part),
		cmocka_unit_test(nobody_helps_with_little),
		cmocka_unit_test_teardown(on_one_core_there_are_none, give_cores_back),
		cmocka_unit_test(whoever_fails_it_is_told),
		cmocka_unit_test(many_callers_each_get_their_own),
		cmocka_unit_test_teardown(affinity_that_was_set_stays, give_cores_back),
		cmocka_unit_test(they_come_and_go),
	};

	return cmocka_run_group_tests(tests, learn_cores, NULL);
}
