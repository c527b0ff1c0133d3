/* Workers on a file: every request that was handed over completes once, whatever ends them, and
 * nobody sleeps while there is something to do. */
#include <errno.h>
#include <pthread.h>
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

#include "engine/request.h"
#include "engine/syncs.h"
#include "engine/worker.h"
#include "open.h"

#define PATIENCE 120 /* seconds; then somebody waits forever */
#define WORKERS  2
#define SIZE     (1024 * 1024)
#define REQUESTS 64
#define THREADS  6

static const struct channel_options channel_options = { .pieces = 4, .piece_len = 16384 };

static char path[64];
static struct volume *volume;
static struct workers *workers;
static atomic_uint done_count, canceled;

static int set_up(void **state)
{
	const struct volume_options options = { .file = path, .direct = DIRECT_AUTO };
	struct error err;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/ndio-test-worker.XXXXXX");
	close(mkstemp(path));
	assert_int_equal(truncate(path, SIZE), 0);
	assert_int_equal(volume_open(&options, &volume, &err), 0);
	atomic_store(&done_count, 0);
	atomic_store(&canceled, 0);
	alarm(PATIENCE);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	alarm(0);
	volume_close(volume);
	return unlink(path);
}

static void open_workers(void)
{
	struct error err;

	assert_int_equal(workers_open(volume, WORKERS, &channel_options, NULL, &workers, &err), 0);
}

static void count_done(struct ndio_request *request)
{
	atomic_fetch_add(&done_count, 1);
	if (request->error == -ECANCELED)
		atomic_fetch_add(&canceled, 1);
	request_put(request, REF_CALLER);
}

static void submit(enum op op, uint64_t start, void *base, size_t len)
{
	const struct iovec iov = { base, len };
	struct ndio_request *request;

	assert_int_equal(request_make(volume, op, 0, start, len, &iov, 1, &request), 0);
	request->done = count_done;
	workers_submit(workers, request);
}

/* An empty request ends without anything's landing: the worker that ends it last mustn't sleep
 * until something does. */
static void test_close_after_empty_requests(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 400; round++) {
		open_workers();
		for (unsigned i = 0; i < round % 5; i++)
			submit(i % 2 ? OP_READ : OP_WRITE, 0, NULL, 0);
		workers_close(workers, round % 3 == 0);
	}
	assert_int_equal(done_count, 400 / 5 * (0 + 1 + 2 + 3 + 4));
}

static atomic_bool ended;
static sem_t told;

static void end_flush(struct ndio_request *request)
{
	atomic_store(&ended, true);
	request_put(request, REF_CALLER);
}

/* As a queue tells a program of what has ended on this thread. */
static void tell(void)
{
	if (atomic_exchange(&ended, false))
		sem_post(&told);
}

static void nobody_waits(struct sync *sync)
{
	fail_msg("sync %p waits", (void *)sync);
}

/* A flush that has to wait for another ends when that has, and nothing else lands: before its worker
 * sleeps again it is told. */
static void test_waiting_flush_is_told(void **state)
{
	struct sync other = { .cleared = nobody_waits };
	struct ndio_request *request;
	struct error err;

	(void)state;
	sem_init(&told, 0, 0);
	assert_int_equal(workers_open(volume, WORKERS, &channel_options, tell, &workers, &err), 0);
	sync_begin(&volume->syncs, &other);
	assert_int_equal(request_make(volume, OP_FLUSH, 0, 0, 0, NULL, 0, &request), 0);
	request->done = end_flush;
	workers_submit(workers, request);
	/* Until it has landed and waits. */
	for (bool waits = false; !waits; usleep(1000)) {
		pthread_mutex_lock(&volume->syncs.lock);
		waits = volume->syncs.first_waiting;
		pthread_mutex_unlock(&volume->syncs.lock);
	}
	usleep(20000); /* and its worker sleeps, most likely */
	assert_true(sync_end(&volume->syncs, &other, 0, true));
	assert_int_equal(sem_wait(&told), 0);
	workers_close(workers, false);
	sem_destroy(&told);
}

/* A flush that a worker has begun and can't send begins anew at another one: once among those that are
 * under way, whatever came between. */
static void test_flush_begins_anew(void **state)
{
	struct sync other = { .cleared = nobody_waits };
	struct ndio_request *request;

	(void)state;
	assert_int_equal(request_make(volume, OP_FLUSH, 0, 0, 0, NULL, 0, &request), 0);
	request->done = count_done;
	request_get(request, REF_CHANNEL);
	request_begin(request);
	request_unbegin(request);
	assert_null(volume->syncs.first);
	sync_begin(&volume->syncs, &other);
	request_begin(request);
	assert_ptr_equal(volume->syncs.first, &other);
	assert_ptr_equal(volume->syncs.last, &request->sync);
	assert_true(sync_end(&volume->syncs, &other, 0, false));
	request_end(request);
	assert_int_equal(done_count, 1);
	assert_null(volume->syncs.first);
}

/* Requests that wait for the range of others when the end comes, too. */
static void close_in_flight(bool cancel)
{
	static uint8_t memory[REQUESTS][9000];

	for (unsigned round = 1; round <= 20; round++) {
		open_workers();
		for (unsigned i = 0; i < REQUESTS; i++)
			submit(i % 3 ? OP_WRITE : OP_READ, 100 + i % 7 * 300, memory[i],
			       sizeof(memory[i]));
		workers_close(workers, cancel);
		assert_int_equal(done_count, round * REQUESTS);
	}
}

static void test_close_waits(void **state)
{
	(void)state;
	close_in_flight(false);
	assert_int_equal(canceled, 0);
}

static void test_close_cancels(void **state)
{
	(void)state;
	close_in_flight(true);
	assert_true(canceled > 0);
}

static atomic_uint left;
static enum op chain_op;

static void submit_next(void);

static void submit_another(struct ndio_request *request)
{
	bool more = atomic_fetch_sub(&left, 1) > 1;

	request_put(request, REF_CALLER);
	atomic_fetch_add(&done_count, 1);
	if (more)
		submit_next();
}

/* Every third is empty: it ends with nothing in flight. */
static void submit_next(void)
{
	static uint8_t memory[700];
	const struct iovec iov = { memory, left % 3 ? sizeof(memory) : 0 };
	struct ndio_request *request;

	if (request_make(volume, chain_op, 0, left * 31, 0, &iov, 1, &request) < 0)
		abort();
	request->done = submit_another;
	workers_submit(workers, request);
}

static void run_chain(enum op op, unsigned count)
{
	open_workers();
	chain_op = op;
	atomic_store(&left, count);
	submit_next();
	while (atomic_load(&done_count) < count)
		usleep(100);
	workers_close(workers, false);
	assert_int_equal(done_count, count);
}

/* done() may hand over more, to this worker or another, also when nothing else is going on. */
static void test_submits_from_done(void **state)
{
	(void)state;
	run_chain(OP_WRITE, 2000);
}

/* Calls of write() that this process has made; 0 where the kernel doesn't count them. */
static unsigned long writes(void)
{
	FILE *io = fopen("/proc/self/io", "r");
	unsigned long count = 0;

	for (char line[80]; io && fgets(line, sizeof(line), io);)
		if (sscanf(line, "syscw: %lu", &count) == 1)
			break;
	if (io)
		fclose(io);
	return count;
}

/* That would be two calls for each request, to be told what it knows. */
static void test_nobody_wakes_himself(void **state)
{
	unsigned long before = writes();

	(void)state;
	if (before == 0)
		skip();
	run_chain(OP_READ, 2000);
	assert_true(writes() - before < 200);
}

static int run_one(enum op op, uint64_t at, uint8_t *byte)
{
	const struct iovec iov = { byte, 1 };
	struct ndio_request *request;
	int ret = request_make(volume, op, 0, at, 0, &iov, 1, &request);

	if (ret < 0)
		return ret;
	ret = workers_run(workers, request);
	request_put(request, REF_CALLER);
	return ret;
}

/* Each thread owns every THREADS-th byte, so all share each block. */
static void *own_bytes(void *opaque)
{
	uintptr_t number = (uintptr_t)opaque;
	bool wrong = false;

	for (unsigned turn = 0; turn < 150; turn++) {
		uint64_t at = (turn * 97 % 1000) * THREADS + number;
		uint8_t value = turn, back = ~value;

		wrong |= run_one(OP_WRITE, at, &value) < 0;
		wrong |= run_one(OP_READ, at, &back) < 0;
		wrong |= back != value;
	}
	return (void *)(uintptr_t)wrong;
}

static void test_run_from_many_threads(void **state)
{
	pthread_t threads[THREADS];
	void *wrong;

	(void)state;
	open_workers();
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, own_bytes, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	workers_close(workers, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_close_after_empty_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_waiting_flush_is_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flush_begins_anew, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_close_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_close_cancels, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_submits_from_done, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nobody_wakes_himself, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_run_from_many_threads, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
