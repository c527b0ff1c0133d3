/* Many threads over few channels: nobody loses a byte, and nobody waits forever. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "engine/lender.h"
#include "engine/request.h"
#include "fake-target.h"

#define PATIENCE  300 /* seconds; then somebody waits forever */
#define THREADS   8
#define CHANNELS  2
#define TURNS     300
#define OWNED     (96 * 1024u) /* each byte of it is one thread's own */
#define COMMON    (32 * 1024u) /* and after it comes what all write */
#define SIZE      (OWNED + COMMON)
#define PIECE_LEN 8192
#define STRIPES   400

static const struct kind {
	const char *name;
	struct fake_options options;
} kinds[] = {
	{ "raw, align 512", { .align = 512, .size = SIZE, .mem_align = 4 } },
	{ "raw, align 4096", { .align = 4096, .size = SIZE, .mem_align = 512 } },
	{ "xts, sector 512, align 512",
	  { .cipher = "aes-xts-plain64", .sector = 512, .align = 512, .size = SIZE } },
	{ "xts, sector 512, align 4096",
	  { .cipher = "aes-xts-plain64", .sector = 512, .align = 4096, .size = SIZE } },
	{ "xts, sector 4096, align 4096",
	  { .cipher = "aes-xts-plain64", .sector = 4096, .align = 4096, .size = SIZE } },
	{ "essiv, sector 512, align 4096",
	  { .cipher = "aes-cbc-essiv:sha256", .sector = 512, .align = 4096, .size = SIZE } },
	/* A sector lands in several parts, and a read may meet it between them. */
	{ "xts, sector 4096, align 512",
	  { .cipher = "aes-xts-plain64", .sector = 4096, .align = 512, .size = SIZE } },
	{ "essiv, sector 512, align 1",
	  { .cipher = "aes-cbc-essiv:sha256", .sector = 512, .align = 1, .size = SIZE } },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static bool sectors_land_whole(const struct kind *kind)
{
	return !kind->options.cipher || kind->options.align >= kind->options.sector;
}

/* A run of bytes that one thread alone writes. Most blocks have several owners. */
struct stripe {
	uint32_t start, len;
	unsigned owner;
};

static struct volume *volume;
static struct fake_target *fake;
static struct lender *lender;
static struct stripe stripes[STRIPES];
static uint8_t model[SIZE]; /* of the owned part: each thread touches only its own bytes */

/* Asserts of cmocka are for its own thread: the others tell what failed. */
struct thread {
	pthread_t id;
	unsigned number, seed;
	unsigned turns;
	bool may_read; /* while others write the same bytes */
	char failure[128];
};

static void make_stripes(void)
{
	unsigned seed = 7, at = 0;

	for (unsigned i = 0; i < STRIPES; i++) {
		unsigned len = i % 10 == 0 ? 8192 : 1 + rand_r(&seed) % 120;

		if (i % 10 == 0) /* whole blocks */
			at = (at + 4095) & ~4095;
		if (at + len > OWNED) /* wraps no owner: the rest are empty */
			len = 0;
		stripes[i] = (struct stripe){ at, len, rand_r(&seed) % THREADS };
		at += len;
	}
}

/* Starts with some wait, so that channels are short. */
static void set_up(const struct fake_options *options)
{
	/* Some reads wait for their turn, and some no longer. */
	const struct lender_options lending = {
		.wide_channels = CHANNELS,
		.wide = { .pieces = 2, .piece_len = PIECE_LEN },
		.turns = { .depth = PIECE_LEN, .patience = 1 },
	};
	unsigned seed = 3;

	alarm(PATIENCE);
	make_stripes();
	volume = fake_volume(options, &fake);
	fake->linger = fake->shorten = fake->yield = true;
	fake->order = FAKE_RANDOM;
	assert_int_equal(lender_open(volume, &lending, &lender, NULL), 0);
	fake_noise(model, OWNED, &seed);
	memset(model + OWNED, 'A', COMMON);
	fake_fill(volume, model);
}

static void tear_down(void)
{
	assert_int_equal(stat_get(&volume->stats, in_flight), 0);
	lender_close(lender);
	fake_assert_obeyed(fake);
	volume_close(volume);
	alarm(0);
}

static int run(enum op op, unsigned flags, uint64_t start, void *memory, size_t len)
{
	/* In two runs, where it can be, so that most memory isn't aligned. */
	size_t first = memory ? len / 3 : 0;
	struct iovec iov[] = { { memory, first },
			       { memory ? (uint8_t *)memory + first : NULL, len - first } };
	struct ndio_request *request;
	int ret;

	ret = request_make(volume, op, flags, start, len, iov, 2, &request);
	if (ret < 0)
		return ret;
	ret = lender_run(lender, request);
	request_put(request, REF_CALLER);
	return ret;
}

static void run_threads(struct thread *threads, const struct kind *kind, void *(*body)(void *))
{
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i] = (struct thread){ .number = i,
					      .seed = i + 1,
					      .may_read = sectors_land_whole(kind) };
		assert_int_equal(pthread_create(&threads[i].id, NULL, body, &threads[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i].id, NULL);
	for (unsigned i = 0; i < THREADS; i++)
		assert_string_equal(threads[i].failure, "");
}

__attribute__((format(printf, 2, 3))) static void *failed(struct thread *thread, const char *fmt,
							  ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(thread->failure, sizeof(thread->failure), fmt, args);
	va_end(args);
	return NULL;
}

/* ---- bytes of one's own, beside those of others ---- */

static const struct stripe *stripe_of(struct thread *thread)
{
	const struct stripe *stripe;

	do
		stripe = &stripes[rand_r(&thread->seed) % STRIPES];
	while (stripe->owner != thread->number || !stripe->len);
	return stripe;
}

static int change(struct thread *thread, uint32_t start, uint32_t len)
{
	if (rand_r(&thread->seed) % 4 == 0) {
		memset(model + start, 0, len);
		return run(OP_ZERO, 0, start, NULL, len);
	}
	fake_noise(model + start, len, &thread->seed);
	return run(OP_WRITE, rand_r(&thread->seed) % 8 ? 0 : REQ_FUA, start, model + start, len);
}

static void *write_ones_own(void *opaque)
{
	struct thread *thread = opaque;
	uint8_t memory[8192];
	int ret;

	for (thread->turns = 0; thread->turns < TURNS; thread->turns++) {
		const struct stripe *stripe = stripe_of(thread);
		bool all = rand_r(&thread->seed) % 2;
		uint32_t skip = all ? 0 : rand_r(&thread->seed) % stripe->len;
		uint32_t len = all ? stripe->len : 1 + rand_r(&thread->seed) % (stripe->len - skip);

		ret = change(thread, stripe->start + skip, len);
		if (ret < 0)
			return failed(thread, "write: %s", strerror(-ret));
		stripe = stripe_of(thread);
		ret = run(OP_READ, 0, stripe->start, memory, stripe->len);
		if (ret < 0)
			return failed(thread, "read: %s", strerror(-ret));
		if (memcmp(memory, model + stripe->start, stripe->len))
			return failed(thread, "turn %u: %u bytes at %u are not what was written",
				      thread->turns, stripe->len, stripe->start);
	}
	return NULL;
}

static void a_neighbours_bytes_are_never_lost(void **state)
{
	const struct kind *kind = *state;
	struct thread threads[THREADS];

	set_up(&kind->options);
	run_threads(threads, kind, write_ones_own);
	fake_assert_holds(volume, model);
	assert_true(fake->max_in_flight <= 2);
	tear_down();
}

/* ---- bytes that all write ---- */

/* Each writes its own letter only: any letter may be found, and nothing else, unless a read
 * that crosses a write meets half a sector of it. */
static void *write_the_same(void *opaque)
{
	struct thread *thread = opaque;
	uint8_t memory[3 * 4096];
	int ret = 0;

	for (thread->turns = 0; thread->turns < TURNS && ret == 0; thread->turns++) {
		uint32_t unit = rand_r(&thread->seed) % 2 ? 4096 : 1;
		uint32_t start = rand_r(&thread->seed) % COMMON / unit * unit;
		uint32_t len = unit * (1 + rand_r(&thread->seed) % (sizeof(memory) / unit));

		if (len > COMMON - start)
			len = COMMON - start;
		memset(memory, 'A' + thread->number, len);
		ret = run(OP_WRITE, 0, OWNED + start, memory, len);
		if (ret == 0 && thread->may_read)
			ret = run(OP_READ, 0, OWNED + start, memory, len);
		for (uint32_t i = 0; ret == 0 && i < len; i++)
			if (memory[i] < 'A' || memory[i] >= 'A' + THREADS)
				return failed(thread, "nobody wrote %02x at %u", memory[i],
					      start + i);
	}
	return ret < 0 ? failed(thread, "%s", strerror(-ret)) : NULL;
}

static void each_byte_is_somebodys(void **state)
{
	const struct kind *kind = *state;
	struct thread threads[THREADS];
	uint8_t *memory = malloc(COMMON);

	assert_non_null(memory);
	set_up(&kind->options);
	run_threads(threads, kind, write_the_same);
	assert_int_equal(run(OP_READ, 0, OWNED, memory, COMMON), 0);
	for (uint32_t i = 0; i < COMMON; i++)
		assert_in_range(memory[i], 'A', 'A' + THREADS - 1);
	memcpy(model + OWNED, memory, COMMON);
	fake_assert_holds(volume, model);
	free(memory);
	tear_down();
}

/* ---- whole blocks beside parts of them ---- */

#define BLOCK  4096u
#define BLOCKS (THREADS / 2) /* few, so that threads meet */
#define EDGE   64            /* bytes at the end of each block that the others poke at */

/* The even ones write their own blocks whole, and find them again but for the edges; the odd
 * ones write into the edges. */
static void *write_whole_or_poke(void *opaque)
{
	struct thread *thread = opaque;
	uint8_t memory[BLOCK], found[BLOCK];
	int ret = 0;

	for (thread->turns = 0; thread->turns < TURNS && ret == 0; thread->turns++) {
		uint64_t at = rand_r(&thread->seed) % BLOCKS * BLOCK;

		memset(memory, rand_r(&thread->seed), BLOCK);
		if (thread->number % 2) {
			ret = run(OP_WRITE, 0, at + BLOCK - EDGE + thread->number, memory, 7);
			continue;
		}
		at = thread->number / 2 * BLOCK;
		ret = run(OP_WRITE, 0, at, memory, BLOCK);
		if (ret == 0)
			ret = run(OP_READ, 0, at, found, BLOCK);
		if (ret == 0 && memcmp(memory, found, BLOCK - EDGE))
			return failed(thread, "turn %u: a block that was written whole is lost",
				      thread->turns);
	}
	return ret < 0 ? failed(thread, "%s", strerror(-ret)) : NULL;
}

static void a_part_never_undoes_the_whole(void **state)
{
	const struct kind *kind = *state;
	struct thread threads[THREADS];

	set_up(&kind->options);
	run_threads(threads, kind, write_whole_or_poke);
	tear_down();
}

/* ---- errors ---- */

static void *move_and_fail(void *opaque)
{
	struct thread *thread = opaque;
	uint8_t memory[5 * PIECE_LEN] = { 0 };

	for (thread->turns = 0; thread->turns < TURNS; thread->turns++) {
		bool read = rand_r(&thread->seed) % 2;
		int ret = run(read ? OP_READ : OP_WRITE, 0, rand_r(&thread->seed) % 50000, memory,
			      1 + rand_r(&thread->seed) % (read ? sizeof(memory) : 5000));

		if (ret < 0 && ret != -EIO && ret != -ENOSPC)
			return failed(thread, "%s", strerror(-ret));
	}
	return NULL;
}

/* A channel, a range or a waiting thread would be lost with it. */
static void errors_leave_channels_and_ranges_free(void **state)
{
	struct thread threads[THREADS];
	uint64_t errors = 0;

	set_up(&kinds[3].options);
	for (unsigned round = 0; round < 10; round++) {
		fake->fail[0] = (struct fake_failure){ 50 + round, -EIO };
		fake->fail[1] = (struct fake_failure){ 60 + 2 * round, -ENOSPC };
		run_threads(threads, &kinds[3], move_and_fail);
		assert_int_equal(fake->fail[0].at, 0);
		assert_true(stat_get(&volume->stats, errors) > errors);
		errors = stat_get(&volume->stats, errors);
	}
	assert_true(range_lock_is_idle(&volume->ranges));
	tear_down();
}

/* ---- turns ---- */

/* Threads that ask for the only channel, one after the other. */
struct asker {
	pthread_t id;
	_Atomic pid_t tid;
};

static sem_t go_on, holds;
static atomic_uint nr_served;
static unsigned served[THREADS];

static int wait_for_go(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	sem_post(&holds);
	sem_wait(&go_on);
	return 0;
}

static void *hold_the_channel(void *opaque)
{
	struct ndio_request *request;

	if (request_make(volume, OP_EXTENTS, 0, 0, 4096, NULL, 0, &request) == 0) {
		request->extent = wait_for_go;
		lender_run(lender, request);
		request_put(request, REF_CALLER);
	}
	return NULL;
}

static void note_turn(struct ndio_request *request)
{
	served[atomic_fetch_add(&nr_served, 1)] = (uintptr_t)request->opaque;
}

static struct asker askers[THREADS];

static void *ask(void *number)
{
	struct ndio_request *request;

	if (request_make(volume, OP_FLUSH, 0, 0, 0, NULL, 0, &request) == 0) {
		request->done = note_turn;
		request->opaque = number;
		atomic_store(&askers[(uintptr_t)number].tid, gettid());
		lender_run(lender, request);
		request_put(request, REF_CALLER);
	}
	return NULL;
}

static bool sleeps(pid_t tid)
{
	char path[64], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		fclose(f);
	}
	return state == 'S';
}

static void wait_until_it_sleeps(const struct asker *asker)
{
	for (unsigned seen = 0; seen < 5;) {
		pid_t tid = atomic_load(&asker->tid);

		seen = tid && sleeps(tid) ? seen + 1 : 0;
		usleep(1000);
	}
}

static void channels_are_lent_in_the_order_of_asking(void **state)
{
	const struct lender_options lending = {
		.wide_channels = 1,
		.wide = { .pieces = 1, .piece_len = PIECE_LEN },
	};
	pthread_t holder;

	alarm(PATIENCE);
	volume = fake_volume(&kinds[0].options, &fake);
	assert_int_equal(lender_open(volume, &lending, &lender, NULL), 0);
	sem_init(&go_on, 0, 0);
	sem_init(&holds, 0, 0);
	assert_int_equal(pthread_create(&holder, NULL, hold_the_channel, NULL), 0);
	sem_wait(&holds);
	for (uintptr_t i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_create(&askers[i].id, NULL, ask, (void *)i), 0);
		wait_until_it_sleeps(&askers[i]);
	}
	assert_int_equal(nr_served, 0);
	sem_post(&go_on);
	pthread_join(holder, NULL);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(askers[i].id, NULL);
	assert_int_equal(nr_served, THREADS);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(served[i], i);
	sem_destroy(&go_on);
	sem_destroy(&holds);
	tear_down();
}

/* ---- reads that wait for each other ---- */

static void *read_much(void *opaque)
{
	struct thread *thread = opaque;
	uint8_t memory[2 * PIECE_LEN];
	int ret = 0;

	for (thread->turns = 0; thread->turns < TURNS && ret == 0; thread->turns++) {
		uint32_t start = rand_r(&thread->seed) % (OWNED - sizeof(memory));

		ret = run(OP_READ, 0, start, memory, sizeof(memory));
		if (ret == 0 && memcmp(memory, model + start, sizeof(memory)))
			return failed(thread, "not what is there at %u", start);
	}
	return ret < 0 ? failed(thread, "%s", strerror(-ret)) : NULL;
}

static void set_up_reading(const struct lender_options *lending)
{
	unsigned seed = 3;

	alarm(PATIENCE);
	volume = fake_volume(&kinds[2].options, &fake);
	fake->linger = fake->yield = true;
	assert_int_equal(lender_open(volume, lending, &lender, NULL), 0);
	fake_noise(model, SIZE, &seed);
	fake_fill(volume, model);
	fake_forget(fake);
}

static const struct lender_options one_read_at_a_time = {
	.wide_channels = CHANNELS,
	.wide = { .pieces = 2, .piece_len = PIECE_LEN },
	.turns = { .depth = 2 * PIECE_LEN, .patience = PATIENCE * 1000 },
};

/* No piece is issued while those of another request are under way. */
static void reads_beyond_the_depth_wait_for_their_turn(void **state)
{
	struct thread threads[THREADS];
	const struct ndio_request *reading = NULL;
	unsigned in_flight = 0, landings = 0;

	set_up_reading(&one_read_at_a_time);
	run_threads(threads, &kinds[2], read_much);
	for (unsigned i = 0; i < fake->nr_events; i++) {
		const struct fake_event *event = &fake->events[i];

		if (event->kind == FAKE_ISSUE) {
			assert_true(in_flight == 0 || event->request == reading);
			reading = event->request;
			in_flight++;
		} else if (event->kind == FAKE_LAND) {
			in_flight--;
			landings++;
		}
	}
	assert_true(landings > 100);
	tear_down();
}

static bool on_one_core(void)
{
	cpu_set_t cores;

	assert_int_equal(sched_getaffinity(0, sizeof(cores), &cores), 0);
	return CPU_COUNT(&cores) == 1;
}

/* Pieces large enough for helpers. */
static const struct fake_options encrypted = {
	.cipher = "aes-xts-plain64",
	.sector = 512,
	.align = 512,
	.size = 1 << 21,
};
static const struct lender_options with_help = {
	.wide_channels = 1,
	.wide = { .pieces = 2, .piece_len = 1 << 18 },
};

/* Written and read as a whole until somebody has helped. */
static void large_pieces_are_helped_with(void **state)
{
	uint8_t *plain = malloc(encrypted.size), *read = malloc(encrypted.size);
	const int64_t deadline = clock_ms() + 60000;
	unsigned seed = 3;

	assert_non_null(plain);
	assert_non_null(read);
	alarm(PATIENCE);
	volume = fake_volume(&encrypted, &fake);
	assert_int_equal(lender_open(volume, &with_help, &lender, NULL), 0);
	do {
		fake_noise(plain, encrypted.size, &seed);
		assert_int_equal(run(OP_WRITE, 0, 0, plain, encrypted.size), 0);
		fake_assert_holds(volume, plain);
		memset(read, 0, encrypted.size);
		assert_int_equal(run(OP_READ, 0, 0, read, encrypted.size), 0);
		fake_assert_same(plain, read, encrypted.size);
	} while (stat_get(&volume->stats, helped) == 0 && !on_one_core() && clock_ms() < deadline);
	assert_true(stat_get(&volume->stats, helped) > 0 || on_one_core());
	tear_down();
	free(plain);
	free(read);
}

/* One whose halves are the same it refuses. The helpers are the first who would use it, and where
 * there is one core the channel. */
static void a_lender_needs_a_key_that_openssl_takes(void **state)
{
	struct error err;

	volume = fake_volume(&encrypted, &fake);
	memset(volume->luks.key, 7, volume->luks.key_len);
	assert_int_equal(lender_open(volume, &with_help, &lender, &err), -EINVAL);
	assert_non_null(strstr(err.text, "OpenSSL refuses"));
	volume_close(volume);
}

static sem_t stays, others_have_read;

static void wait_for_others(struct ndio_request *request)
{
	sem_post(&stays);
	sem_wait(&others_have_read);
}

static void *read_and_stay(void *len)
{
	static uint8_t memory[2 * PIECE_LEN];
	const struct iovec iov = { memory, *(size_t *)len };
	struct ndio_request *request;

	if (request_make(volume, OP_READ, 0, 0, 0, &iov, 1, &request) == 0) {
		request->done = wait_for_others;
		lender_run(lender, request);
		request_put(request, REF_CALLER);
	}
	return NULL;
}

/* It is decrypted meanwhile, or, here, doesn't end. */
static void a_read_that_has_landed_makes_room_for_the_next(void **state)
{
	struct thread other = { .seed = 1 };
	size_t len = 2 * PIECE_LEN;
	pthread_t thread;

	set_up_reading(&one_read_at_a_time);
	sem_init(&stays, 0, 0);
	sem_init(&others_have_read, 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, read_and_stay, &len), 0);
	sem_wait(&stays);
	read_much(&other);
	sem_post(&others_have_read);
	pthread_join(thread, NULL);
	assert_string_equal(other.failure, "");
	sem_destroy(&others_have_read);
	sem_destroy(&stays);
	tear_down();
}

static atomic_uint polls;

static void hold_the_first(void)
{
	if (atomic_fetch_add(&polls, 1) == 0)
		wait_for_others(NULL);
}

static void small_reads_do_not_wait_for_large_ones(void **state)
{
	struct lender_options lending = one_read_at_a_time;
	struct thread large = { .seed = 1 };
	uint8_t memory[512];
	pthread_t thread;

	lending.turns.small = sizeof(memory);
	set_up_reading(&lending);
	sem_init(&stays, 0, 0);
	sem_init(&others_have_read, 0, 0);
	fake->in_poll = hold_the_first;
	assert_int_equal(pthread_create(&thread, NULL, read_much, &large), 0);
	sem_wait(&stays);
	assert_int_equal(run(OP_READ, 0, 512, memory, sizeof(memory)), 0);
	sem_post(&others_have_read);
	pthread_join(thread, NULL);
	assert_string_equal(large.failure, "");
	sem_destroy(&others_have_read);
	sem_destroy(&stays);
	tear_down();
}

/* ---- two kinds of channel ---- */

static const struct lender_options one_of_each_kind = {
	.wide_channels = 1,
	.wide = { .pieces = 2, .piece_len = PIECE_LEN },
	.narrow_channels = 1,
	.narrow = { .pieces = 1, .piece_len = 4096 },
};

/* One of held bytes keeps its channel; another of read bytes gets one. */
static void read_beside(size_t held, size_t read)
{
	uint8_t memory[2 * PIECE_LEN];
	pthread_t holder;

	set_up_reading(&one_of_each_kind);
	sem_init(&stays, 0, 0);
	sem_init(&others_have_read, 0, 0);
	assert_int_equal(pthread_create(&holder, NULL, read_and_stay, &held), 0);
	sem_wait(&stays);
	assert_int_equal(run(OP_READ, 0, 512, memory, read), 0);
	fake_assert_same(memory, model + 512, read);
	sem_post(&others_have_read);
	pthread_join(holder, NULL);
	sem_destroy(&others_have_read);
	sem_destroy(&stays);
	tear_down();
}

static void large_requests_do_not_wait_for_a_narrow_channel(void **state)
{
	read_beside(4096, 2 * PIECE_LEN);
}

static void small_requests_do_not_wait_for_a_wide_channel(void **state)
{
	read_beside(2 * PIECE_LEN, 4096);
}

/* ---- opening ---- */

static void a_lender_that_cannot_open_says_why(void **state)
{
	const struct lender_options lending = {
		.wide_channels = 2,
		.wide = { .pieces = 2, .piece_len = PIECE_LEN },
	};
	struct error err = { "" };

	volume = fake_volume(&kinds[3].options, &fake);
	strcpy(volume->luks.cipher, "rot-13");
	assert_true(lender_open(volume, &lending, &lender, &err) < 0);
	assert_non_null(strstr(err.text, "rot-13"));
	volume_close(volume);
}

int main(void)
{
	static const struct {
		const char *name;
		CMUnitTestFunction test;
	} every[] = {
		{ "a_neighbours_bytes_are_never_lost", a_neighbours_bytes_are_never_lost },
		{ "each_byte_is_somebodys", each_byte_is_somebodys },
		{ "a_part_never_undoes_the_whole", a_part_never_undoes_the_whole },
	};
	enum { EVERY = 3 };
	enum { OTHERS = 10 };
	static struct CMUnitTest tests[EVERY * KINDS + OTHERS] = {
		cmocka_unit_test(errors_leave_channels_and_ranges_free),
		cmocka_unit_test(channels_are_lent_in_the_order_of_asking),
		cmocka_unit_test(large_pieces_are_helped_with),
		cmocka_unit_test(a_lender_needs_a_key_that_openssl_takes),
		cmocka_unit_test(reads_beyond_the_depth_wait_for_their_turn),
		cmocka_unit_test(a_read_that_has_landed_makes_room_for_the_next),
		cmocka_unit_test(small_reads_do_not_wait_for_large_ones),
		cmocka_unit_test(large_requests_do_not_wait_for_a_narrow_channel),
		cmocka_unit_test(small_requests_do_not_wait_for_a_wide_channel),
		cmocka_unit_test(a_lender_that_cannot_open_says_why),
	};
	static char names[EVERY * KINDS][128];

	for (unsigned i = 0; i < EVERY * KINDS; i++) {
		const struct kind *kind = &kinds[i / EVERY];

		snprintf(names[i], sizeof(names[i]), "%s (%s)", every[i % EVERY].name, kind->name);
		tests[OTHERS + i] = (struct CMUnitTest){
			.name = names[i],
			.test_func = every[i % EVERY].test,
			.initial_state = (void *)kind,
		};
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
