/* What flushes and FUA writes are told when one of them fails: the module by itself, and requests in
 * channels and lenders over a target that fails some. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/bounce.h"
#include "engine/channel.h"
#include "engine/lender.h"
#include "engine/syncs.h"
#include "fake-target.h"

#define PATIENCE 60 /* seconds; then somebody waits forever */
#define SIZE     65536
#define CHANNELS 3

/* ---- the module ---- */

struct asker {
	struct sync sync;
	unsigned cleared;
};

static void count_cleared(struct sync *sync)
{
	((struct asker *)sync)->cleared++;
}

static void begin(struct syncs *syncs, struct asker *asker)
{
	*asker = (struct asker){ .sync.cleared = count_cleared };
	sync_begin(syncs, &asker->sync);
}

static void after_one_that_failed_none_succeeds(void **state)
{
	struct syncs syncs = { 0 };
	struct asker a, b;

	begin(&syncs, &a);
	assert_true(sync_end(&syncs, &a.sync, 0, true));
	assert_int_equal(a.sync.error, 0);
	assert_int_equal(syncs_error(&syncs), 0);
	begin(&syncs, &a);
	assert_true(sync_end(&syncs, &a.sync, -ENOSPC, true));
	for (unsigned wait = 0; wait < 2; wait++) {
		begin(&syncs, &b);
		assert_true(sync_end(&syncs, &b.sync, wait ? -EIO : 0, wait));
		assert_int_equal(b.sync.error, -ENOSPC);
	}
	assert_int_equal(syncs_error(&syncs), -ENOSPC);
	syncs_destroy(&syncs);
}

/* The one that was told of the loss is seen last, and fails all that it could have been told to. */
static void success_is_told_when_all_that_were_under_way_are_seen(void **state)
{
	static const int errors[] = { 0, -EIO };

	for (unsigned i = 0; i < 2; i++) {
		struct syncs syncs = { 0 };
		struct asker a, b, c, later, own;

		begin(&syncs, &a);
		begin(&syncs, &b);
		begin(&syncs, &c);
		begin(&syncs, &own);
		assert_false(sync_end(&syncs, &c.sync, 0, true));
		assert_true(sync_end(&syncs, &own.sync, 0, false));
		begin(&syncs, &later);
		assert_true(sync_end(&syncs, &a.sync, errors[i], false));
		assert_int_equal(c.cleared, errors[i] ? 1 : 0);
		assert_true(sync_end(&syncs, &b.sync, 0, false));
		assert_int_equal(c.cleared, 1);
		assert_int_equal(c.sync.error, errors[i]);
		assert_true(sync_end(&syncs, &later.sync, 0, true));
		assert_int_equal(later.sync.error, errors[i]);
		syncs_destroy(&syncs);
	}
}

static void those_that_wait_are_cleared_in_any_order_of_ends(void **state)
{
	enum { COUNT = 12 };
	struct asker askers[COUNT];
	bool ended[COUNT], told[COUNT];
	unsigned seed = 3;

	for (unsigned round = 0; round < 500; round++) {
		struct syncs syncs = { 0 };
		uint64_t until[COUNT]; /* a bit for each that it has to wait for */

		memset(ended, 0, sizeof(ended));
		for (unsigned i = 0; i < COUNT; i++)
			begin(&syncs, &askers[i]);
		for (unsigned left = COUNT; left; left--) {
			unsigned i = rand_r(&seed) % COUNT;

			while (ended[i])
				i = (i + 1) % COUNT;
			ended[i] = true;
			until[i] = 0;
			for (unsigned j = 0; j < COUNT; j++)
				until[i] |= (uint64_t)!ended[j] << j;
			told[i] = sync_end(&syncs, &askers[i].sync, 0, true);
			assert_int_equal(told[i], !until[i]);
			for (unsigned j = 0; j < COUNT; j++) {
				until[j] &= ~(UINT64_C(1) << i);
				if (ended[j] && !told[j])
					assert_int_equal(askers[j].cleared, !until[j]);
			}
		}
		syncs_destroy(&syncs);
	}
}

/* ---- requests ---- */

static struct volume *volume;
static struct fake_target *fake;
static struct channel *channels[CHANNELS];
static struct bounce bounce;

static int set_up(void **state)
{
	const struct fake_options options = { .align = 512, .size = SIZE };
	const struct channel_options channel = { .pieces = 2, .piece_len = 8192 };
	size_t share = channel_bounce_len(&channel);

	alarm(PATIENCE);
	volume = fake_volume(&options, &fake);
	assert_int_equal(bounce_init(&bounce, CHANNELS * share, false, NULL), 0);
	for (unsigned i = 0; i < CHANNELS; i++) {
		assert_int_equal(channel_open(volume, &channel, bounce_share(&bounce, i, share),
					      &channels[i], NULL),
				 0);
	}
	return 0;
}

static int tear_down(void **state)
{
	fake_assert_obeyed(fake);
	for (unsigned i = 0; i < CHANNELS; i++)
		channel_close(channels[i]);
	bounce_destroy(&bounce);
	volume_close(volume);
	alarm(0);
	return 0;
}

static struct ndio_request *make(enum op op, unsigned flags, uint64_t start, uint64_t len)
{
	static uint8_t memory[SIZE];
	struct iovec iov = { memory, len };
	struct ndio_request *request;

	assert_int_equal(request_make(volume, op, flags, start, len, &iov, 1, &request), 0);
	return request;
}

static int run(unsigned channel, enum op op, unsigned flags, uint64_t start, uint64_t len)
{
	struct ndio_request *request = make(op, flags, start, len);
	int ret = fake_run(channels[channel], request);

	request_put(request, REF_CALLER);
	return ret;
}

static void fail_next(unsigned nth, int error)
{
	fake->fail[0] = (struct fake_failure){ nth, error };
}

static void assert_none_succeeds(int error)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		assert_int_equal(run(i, OP_FLUSH, 0, 0, 0), error);
		assert_int_equal(run(i, OP_WRITE, REQ_FUA, 0, 512), error);
		assert_int_equal(run(i, OP_WRITE, REQ_FUA, 100, 30000), error);
		assert_int_equal(run(i, OP_ZERO, REQ_FUA, 0, 1000), error);
		assert_int_equal(run(i, OP_TRIM, REQ_FUA, 0, 4096), error);
		assert_int_equal(run(i, OP_WRITE, 0, 0, 512), 0);
		assert_int_equal(run(i, OP_READ, 0, 0, 512), 0);
	}
}

/* Whatever it was that failed, and in whichever channel. A write of parts of blocks is a read, a
 * write, one of whole blocks, a read, a write. */
static void every_way_to_sync_counts(void **state)
{
	static const struct {
		enum op op;
		unsigned flags;
		uint64_t start, len;
		unsigned nth;
	} ways[] = {
		{ OP_FLUSH, 0, 0, 0, 1 },           { OP_WRITE, REQ_FUA, 0, 512, 1 },
		{ OP_WRITE, REQ_FUA, 0, 30000, 3 }, { OP_WRITE, REQ_FUA, 100, 30, 2 },
		{ OP_ZERO, REQ_FUA, 512, 8192, 1 }, { OP_ZERO, REQ_FUA, 100, 30, 2 },
		{ OP_TRIM, REQ_FUA, 512, 8192, 1 },
	};

	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		if (i)
			set_up(state);
		fail_next(ways[i].nth, -EIO);
		assert_int_equal(
			run(i % CHANNELS, ways[i].op, ways[i].flags, ways[i].start, ways[i].len),
			-EIO);
		assert_none_succeeds(-EIO);
		if (i + 1 < sizeof(ways) / sizeof(ways[0]))
			tear_down(state);
	}
}

static void the_first_errno_is_what_all_say(void **state)
{
	fail_next(1, -ENOSPC);
	assert_int_equal(run(0, OP_WRITE, REQ_FUA, 0, 512), -ENOSPC);
	fail_next(1, -EIO);
	assert_int_equal(run(1, OP_FLUSH, 0, 0, 0), -EIO);
	assert_none_succeeds(-ENOSPC);
}

/* What told nobody that data are safe, and what was never tried. */
static void other_errors_do_not_count(void **state)
{
	fail_next(1, -EIO);
	assert_int_equal(run(0, OP_WRITE, 0, 0, 512), -EIO);
	fail_next(1, -EIO);
	assert_int_equal(run(0, OP_READ, 0, 0, 512), -EIO);
	fail_next(1, -EIO); /* the read of the block that it is a part of */
	assert_int_equal(run(0, OP_WRITE, REQ_FUA, 100, 30), -EIO);
	fail_next(1, -EOPNOTSUPP);
	assert_int_equal(run(0, OP_ZERO, REQ_FUA | REQ_FAST_ZERO, 0, 512), -EOPNOTSUPP);
	assert_none_succeeds(0);
}

static void start(unsigned channel, struct ndio_request *request)
{
	if (request->has_range)
		assert_true(range_acquire(&volume->ranges, &request->range));
	fake_start(channels[channel], request);
}

/* Sends what the first channel has, and lands nothing: the target is given a seed by which it
 * lingers. */
static void send_only(void)
{
	unsigned seed = 0, first;

	do {
		fake->random = ++seed;
		first = seed;
	} while (rand_r(&first) % 3 == 0);
	fake->linger = true;
	fake_drive(channels[0], false, -1);
	fake->linger = false;
}

/* Two at once in different channels, of which the one that fails lands last. */
static void race(enum op op, unsigned flags, int error, bool waits)
{
	struct ndio_request *failing = make(OP_FLUSH, 0, 0, 0), *other = make(op, flags, 0, 4096);

	fail_next(error ? 1 : 0, error);
	start(0, failing);
	send_only();
	assert_int_equal(failing->state, REQUEST_RUNNING);
	start(1, other);
	fake_drive(channels[1], true, -1);
	assert_int_equal(other->state, waits ? REQUEST_ENDED : REQUEST_COMPLETED);
	fake_drive(channels[0], true, -1);
	assert_int_equal(failing->error, error);
	assert_int_equal(other->state, REQUEST_COMPLETED);
	assert_int_equal(other->error, waits ? error : 0);
	request_put(failing, REF_CALLER);
	request_put(other, REF_CALLER);
}

static void a_flush_waits_for_one_under_way(void **state)
{
	race(OP_FLUSH, 0, 0, true);
	race(OP_FLUSH, 0, -EIO, true);
}

static void a_fua_write_waits_where_its_error_may_be_told_to_another(void **state)
{
	race(OP_WRITE, REQ_FUA, -EIO, true);
}

static void a_fua_write_does_not_wait_where_it_is_told_its_own(void **state)
{
	fake->target.fua_is_own = true;
	race(OP_WRITE, REQ_FUA, -EIO, false);
	assert_none_succeeds(-EIO);
}

static void a_fua_zero_waits_even_there(void **state)
{
	fake->target.fua_is_own = true;
	race(OP_ZERO, REQ_FUA, -EIO, true);
}

/* ---- threads that borrow channels ---- */

static sem_t in_poll, go_on;
static _Thread_local bool is_late;

static void late_in_poll(void)
{
	if (!is_late)
		return;
	is_late = false;
	sem_post(&in_poll);
	sem_wait(&go_on);
}

struct thread {
	struct lender *lender;
	bool late;
	int ret;
	atomic_bool ended;
};

static void *flush(void *opaque)
{
	struct thread *thread = opaque;
	struct ndio_request *request = make(OP_FLUSH, 0, 0, 0);

	is_late = thread->late;
	thread->ret = lender_run(thread->lender, request);
	request_put(request, REF_CALLER);
	atomic_store(&thread->ended, true);
	return NULL;
}

static bool somebody_waits(void)
{
	bool waits;

	pthread_mutex_lock(&volume->syncs.lock);
	waits = volume->syncs.first_waiting;
	pthread_mutex_unlock(&volume->syncs.lock);
	return waits;
}

static void threads_wait_for_each_other_too(void **state)
{
	static const struct lender_options options = {
		.wide_channels = 2,
		.wide = { .pieces = 1, .piece_len = 8192 },
	};
	struct thread late = { .late = true }, other = { .lender = NULL };
	pthread_t late_id, other_id;
	struct lender *lender;

	assert_int_equal(lender_open(volume, &options, &lender, NULL), 0);
	late.lender = other.lender = lender;
	sem_init(&in_poll, 0, 0);
	sem_init(&go_on, 0, 0);
	fake->in_poll = late_in_poll;
	fail_next(1, -EIO);
	assert_int_equal(pthread_create(&late_id, NULL, flush, &late), 0);
	sem_wait(&in_poll);
	assert_int_equal(pthread_create(&other_id, NULL, flush, &other), 0);
	while (!somebody_waits() && !atomic_load(&other.ended))
		sched_yield();
	sem_post(&go_on);
	pthread_join(late_id, NULL);
	pthread_join(other_id, NULL);
	assert_int_equal(late.ret, -EIO);
	assert_int_equal(other.ret, -EIO);
	fake->in_poll = NULL;
	lender_close(lender);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_one_that_failed_none_succeeds),
		cmocka_unit_test(success_is_told_when_all_that_were_under_way_are_seen),
		cmocka_unit_test(those_that_wait_are_cleared_in_any_order_of_ends),
		TEST(every_way_to_sync_counts),
		TEST(the_first_errno_is_what_all_say),
		TEST(other_errors_do_not_count),
		TEST(a_flush_waits_for_one_under_way),
		TEST(a_fua_write_waits_where_its_error_may_be_told_to_another),
		TEST(a_fua_write_does_not_wait_where_it_is_told_its_own),
		TEST(a_fua_zero_waits_even_there),
		TEST(threads_wait_for_each_other_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
