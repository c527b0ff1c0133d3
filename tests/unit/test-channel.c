/* What a channel does to the target and to the caller's memory, against a flat model. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/align.h"
#include "engine/bounce.h"
#include "engine/channel.h"
#include "fake-target.h"

#define VOLUME_SIZE (256u << 10)
#define PIECES      3
#define PIECE_LEN   (16u << 10)
#define ROUNDS      700 /* of random requests, on each kind of volume */
#define TOGETHER    6   /* requests in one channel at once */
#define MAX_IOVECS  20
#define GAP         96 /* bytes between two iovecs at the most */
#define FREED       0x5c

static const struct kind {
	const char *name;
	struct fake_options options;
} kinds[] = {
	{ "raw, align 1", { .align = 1 } },
	{ "raw, align 512", { .align = 512, .mem_align = 4 } },
	{ "raw, align 4096", { .align = 4096, .mem_align = 512 } },
	{ "raw, short pieces at the most", { .align = 512, .max_len = 8192 } },
	{ "xts, sector 512, align 1", { .cipher = "aes-xts-plain64", .sector = 512, .align = 1 } },
	{ "xts, sector 512, align 512",
	  { .cipher = "aes-xts-plain64", .sector = 512, .align = 512, .mem_align = 512 } },
	{ "xts, sector 512, align 4096",
	  { .cipher = "aes-xts-plain64", .sector = 512, .align = 4096, .mem_align = 4096 } },
	{ "xts, sector 4096, align 4096",
	  { .cipher = "aes-xts-plain64", .sector = 4096, .align = 4096, .mem_align = 512 } },
	{ "xts, sector 4096, align 512",
	  { .cipher = "aes-xts-plain64", .sector = 4096, .align = 512, .mem_align = 4 } },
	{ "xts, short pieces at the most",
	  { .cipher = "aes-xts-plain64", .sector = 512, .align = 512, .max_len = 8192 } },
	{ "essiv, sector 512, align 512",
	  { .cipher = "aes-cbc-essiv:sha256", .sector = 512, .align = 512, .mem_align = 512 } },
	{ "essiv, sector 512, align 4096",
	  { .cipher = "aes-cbc-essiv:sha256", .sector = 512, .align = 4096, .mem_align = 16 } },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const struct fake_options raw = { .align = 512, .mem_align = 512 };
static const struct fake_options xts = {
	.cipher = "aes-xts-plain64", .sector = 512, .align = 512, .mem_align = 512
};
static const struct fake_options xts_4k = {
	.cipher = "aes-xts-plain64", .sector = 512, .align = 4096, .mem_align = 512
};

static struct volume *volume;
static struct fake_target *fake;
static struct channel *channel;
static struct bounce bounce;
static uint8_t *model; /* what the volume should hold */
static unsigned seed;

static void set_up(const struct fake_options *options, unsigned pieces)
{
	struct fake_options all = *options;
	struct channel_options channel_options = { .pieces = pieces, .piece_len = PIECE_LEN };

	seed = 1;
	all.size = VOLUME_SIZE;
	all.data_offset = 32768;
	all.iv_offset = options->cipher ? 12345 : 0;
	volume = fake_volume(&all, &fake);
	fake->secret = volume->encrypted;
	assert_int_equal(bounce_init(&bounce, channel_bounce_len(&channel_options), false, NULL),
			 0);
	assert_int_equal(channel_open(volume, &channel_options, bounce.area, &channel, NULL), 0);
	model = malloc(VOLUME_SIZE);
	assert_non_null(model);
	fake_noise(model, VOLUME_SIZE, &seed);
	fake_fill(volume, model);
}

static void tear_down(void)
{
	fake_assert_holds(volume, model);
	fake_assert_obeyed(fake);
	assert_int_equal(stat_get(&volume->stats, in_flight), 0);
	channel_close(channel);
	bounce_destroy(&bounce);
	fake_assert_obeyed(fake);
	volume_close(volume);
	free(model);
}

/* ---- a job: a request, the memory it is for, and what should come of it ---- */

struct job {
	enum op op;
	uint64_t start, len;
	struct ndio_request *request;
	struct iovec iov[MAX_IOVECS];
	unsigned iov_count;
	uint8_t *memory;   /* where the iovecs are, with gaps before, between and after them */
	uint8_t *expected; /* of the memory, when it is done */
	size_t memory_len;
	unsigned done;
	bool may_fail;
};

/* Cuts len bytes into runs: of any length, of whole blocks, or one; anywhere or aligned. */
static void make_iovecs(struct job *job)
{
	static const uint64_t units[] = { 1, 1, 512, 4096 };
	uint64_t unit = units[rand_r(&seed) % 4], left = job->len;
	bool aligned = rand_r(&seed) % 2;
	unsigned most = 1 + rand_r(&seed) % MAX_IOVECS;
	size_t at = 0;

	job->memory_len = round_up(job->len + (MAX_IOVECS + 1) * (aligned ? 8192 : GAP), 4096);
	job->memory = aligned_alloc(4096, job->memory_len);
	job->expected = malloc(job->memory_len);
	assert_non_null(job->memory);
	assert_non_null(job->expected);
	fake_noise(job->memory, job->memory_len, &seed);
	for (job->iov_count = 0; job->iov_count < most; job->iov_count++) {
		uint64_t len = unit * (rand_r(&seed) % (1 + 2 * job->len / unit / most));

		if (len > left || job->iov_count == most - 1)
			len = left;
		at += rand_r(&seed) % GAP;
		if (aligned)
			at = round_up(at, 512);
		job->iov[job->iov_count] = (struct iovec){ job->memory + at, len };
		at += len;
		left -= len;
	}
	assert_true(at <= job->memory_len);
}

/* What is read goes to the expected memory, and what is written to the model. */
static void expect(struct job *job)
{
	uint8_t *at = model + job->start;

	memcpy(job->expected, job->memory, job->memory_len);
	if (job->op == OP_ZERO)
		memset(at, 0, job->len);
	for (unsigned i = 0; i < job->iov_count; i++) {
		const struct iovec *iov = &job->iov[i];

		if (job->op == OP_WRITE)
			memcpy(at, iov->iov_base, iov->iov_len);
		else
			memcpy(job->expected + ((uint8_t *)iov->iov_base - job->memory), at,
			       iov->iov_len);
		at += iov->iov_len;
	}
}

/* In the channel's callback: nothing may touch the memory any more. */
static void job_done(struct ndio_request *request)
{
	struct job *job = request->opaque;

	assert_ptr_equal(job->request, request);
	assert_int_equal(job->done++, 0);
	assert_int_equal(fake_in_flight(fake, request), 0);
	assert_int_equal(request->nr_outstanding, 0);
	if (!job->may_fail)
		assert_int_equal(request->error, 0);
	if (job->memory && (!request->error || request->op == OP_WRITE))
		fake_assert_same(job->memory, job->expected, job->memory_len);
	if (job->memory)
		memset(job->memory, FREED, job->memory_len);
}

static void never_granted(struct range *range)
{
	abort();
}

static void job_make(struct job *job, enum op op, unsigned flags, uint64_t start, uint64_t len)
{
	bool data = op == OP_READ || op == OP_WRITE;

	*job = (struct job){ .op = op, .start = start, .len = len };
	if (data) {
		make_iovecs(job);
		expect(job);
	} else if (op == OP_ZERO) {
		memset(model + start, 0, len);
	}
	assert_int_equal(request_make(volume, op, flags, start, len, job->iov, job->iov_count,
				      &job->request),
			 0);
	memset(job->iov, FREED, sizeof(job->iov));
	job->request->done = job_done;
	job->request->opaque = job;
	job->request->range.granted = never_granted;
}

/* False: it has to wait for the range of another. */
static bool job_acquire(struct job *job)
{
	struct ndio_request *request = job->request;

	return !request->has_range || range_acquire(&volume->ranges, &request->range);
}

static void job_start(struct job *job)
{
	assert_true(job_acquire(job));
	fake_start(channel, job->request);
	assert_int_equal(job->done, 0);
}

static void job_finish(struct job *job)
{
	assert_int_equal(job->done, 1);
	assert_int_equal(atomic_load(&job->request->ref), 1);
	if (job->memory)
		assert_true(job->memory[0] == FREED &&
			    !memcmp(job->memory, job->memory + 1, job->memory_len - 1));
	request_put(job->request, REF_CALLER);
	free(job->memory);
	free(job->expected);
}

static void job_run(struct job *job)
{
	job_start(job);
	while (!job->done)
		fake_drive(channel, true, -1);
	fake_drive(channel, false, -1);
	if (volume->encrypted)
		assert_false(fake_marker_in_bounce(fake));
	job_finish(job);
}

static void do_job(enum op op, unsigned flags, uint64_t start, uint64_t len)
{
	struct job job;

	job_make(&job, op, flags, start, len);
	job_run(&job);
}

/* ---- random requests ---- */

static uint64_t random_len(uint64_t most)
{
	uint64_t len;

	switch (rand_r(&seed) % 5) {
	case 0:
		len = rand_r(&seed) % 40;
		break;
	case 1:
		len = rand_r(&seed) % 10000;
		break;
	case 2:
		len = 512 * (rand_r(&seed) % 20);
		break;
	case 3:
		len = 4096 * (rand_r(&seed) % 20);
		break;
	default:
		len = rand_r(&seed) % 100000;
	}
	return min_u64(len, most);
}

static uint64_t random_start(uint64_t end)
{
	static const uint64_t units[] = { 1, 512, 4096 };

	return round_down(rand_r(&seed) % (end + 1), units[rand_r(&seed) % 3]);
}

static enum op random_op(void)
{
	static const enum op ops[] = { OP_READ, OP_WRITE, OP_WRITE, OP_ZERO };

	return ops[rand_r(&seed) % 4];
}

static void random_manners(void)
{
	fake->order = rand_r(&seed) % 3;
	fake->linger = rand_r(&seed) % 2;
	fake->shorten = rand_r(&seed) % 2;
}

static void requests_of_any_shape_match_the_model_with(const struct kind *kind, unsigned pieces)
{
	set_up(&kind->options, pieces);
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t start = random_start(VOLUME_SIZE);

		random_manners();
		do_job(random_op(), 0, start, random_len(VOLUME_SIZE - start));
		if (round % 20 == 0) {
			fake_assert_holds(volume, model);
			fake_assert_obeyed(fake);
		}
	}
	assert_true(fake->max_in_flight <= pieces);
	tear_down();
}

static void requests_of_any_shape_match_the_model(void **state)
{
	requests_of_any_shape_match_the_model_with(*state, PIECES);
}

/* Then one has to come back before the next can be sent, also of a request that needs several. */
static void one_piece_is_enough_for_any_shape(void **state)
{
	requests_of_any_shape_match_the_model_with(*state, 1);
}

/* Their bytes don't overlap, but they share blocks. */
static void many_requests_at_once_match_the_model(void **state)
{
	const struct kind *kind = *state;

	set_up(&kind->options, PIECES);
	for (unsigned round = 0; round < ROUNDS / TOGETHER; round++) {
		struct job jobs[TOGETHER];
		bool started[TOGETHER] = { false };
		uint64_t at = random_start(VOLUME_SIZE / 2);
		unsigned left = TOGETHER;

		random_manners();
		for (unsigned i = 0; i < TOGETHER; i++) {
			uint64_t len = random_len(VOLUME_SIZE - at);

			job_make(&jobs[i], random_op(), 0, at, len);
			at += len;
		}
		while (left) {
			for (unsigned i = 0; i < TOGETHER; i++) {
				/* Only the first of those that share a block may start. */
				if (!started[i] &&
				    (!i || jobs[i - 1].done || jobs[i].start % 4096 == 0)) {
					started[i] = true;
					job_start(&jobs[i]);
				}
			}
			fake_drive(channel, rand_r(&seed) % 2, -1);
			left = TOGETHER;
			for (unsigned i = 0; i < TOGETHER; i++)
				left -= jobs[i].done;
		}
		assert_int_equal(fake_in_flight(fake, NULL), 0);
		for (unsigned i = 0; i < TOGETHER; i++)
			job_finish(&jobs[i]);
	}
	assert_true(fake->max_in_flight <= PIECES);
	tear_down();
}

/* ---- what the target is asked ---- */

/* How many events of the kind, of the operation, were there? */
static unsigned count_events(enum fake_event_kind kind, enum op op)
{
	unsigned count = 0;

	for (unsigned i = 0; i < fake->nr_events; i++)
		count += fake->events[i].kind == kind && fake->events[i].op == op;
	return count;
}

/* Runs a request over one run of memory. */
static void run_over(enum op op, unsigned flags, uint64_t start, void *memory, size_t len)
{
	struct iovec iov = { memory, len };
	struct ndio_request *request;

	assert_int_equal(request_make(volume, op, flags, start, 0, &iov, 1, &request), 0);
	assert_int_equal(fake_run(channel, request), 0);
	request_put(request, REF_CALLER);
	if (op == OP_WRITE)
		memcpy(model + start, memory, len);
	else
		fake_assert_same(memory, model + start, len);
}

static uint8_t *aligned_noise(size_t len)
{
	uint8_t *memory = aligned_alloc(4096, round_up(len, 4096));

	assert_non_null(memory);
	fake_noise(memory, len, &seed);
	return memory;
}

static void each_piece_is_submitted_before_the_next_is_issued(void **state)
{
	uint8_t *memory = aligned_noise(4 * PIECE_LEN);

	set_up(&xts, 4);
	run_over(OP_WRITE, 0, 0, memory, 4 * PIECE_LEN);
	assert_true(fake->nr_events > 7);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(fake->events[i].kind, i % 2 ? FAKE_SUBMIT : FAKE_ISSUE);
	free(memory);
	tear_down();
}

/* The target is at it while the next request is encrypted; small ones go together. */
static void what_is_large_goes_out_before_the_next_request_is_encrypted(void **state)
{
	static const uint64_t lens[] = { HELPERS_MIN_LEN, PIECE_LEN };

	for (unsigned i = 0; i < 2; i++) {
		unsigned pieces = 2 * lens[i] / PIECE_LEN;
		struct job jobs[2];

		set_up(&xts, pieces);
		for (unsigned n = 0; n < 2; n++) {
			job_make(&jobs[n], OP_WRITE, 0, n * lens[i], lens[i]);
			job_start(&jobs[n]);
		}
		channel_send(channel, false);
		assert_int_equal(fake->issued, pieces);
		assert_int_equal(fake->nr_events, lens[i] == PIECE_LEN ? pieces : 2 * pieces);
		while (!jobs[0].done || !jobs[1].done) {
			channel_wait(channel, true, -1);
			channel_land(channel);
			channel_send(channel, false);
		}
		job_finish(&jobs[0]);
		job_finish(&jobs[1]);
		tear_down();
	}
}

static void room_is_used_as_it_comes_free(void **state)
{
	uint8_t *memory = aligned_noise(12 * PIECE_LEN);

	set_up(&xts, PIECES);
	fake->linger = true;
	run_over(OP_WRITE, 0, 0, memory, 12 * PIECE_LEN);
	assert_int_equal(fake->max_in_flight, PIECES);
	assert_int_equal(count_events(FAKE_ISSUE, OP_WRITE), 12);
	free(memory);
	tear_down();
}

/* Only where that takes longer than to ask. */
static void what_is_read_next_is_asked_for_before_the_rest_is_decrypted(void **state)
{
	static const struct {
		unsigned pieces, ahead;
	} reads[] = { { HELPERS_MIN_LEN / PIECE_LEN, 2 }, { HELPERS_MIN_LEN / PIECE_LEN - 1, 0 } };

	for (unsigned i = 0; i < 2; i++) {
		struct job job;

		set_up(&xts, 2);
		job_make(&job, OP_READ, 0, 0, reads[i].pieces * PIECE_LEN);
		job_start(&job);
		channel_send(channel, false);
		channel_wait(channel, true, -1);
		assert_int_equal(fake->issued, 2);
		channel_land(channel);
		assert_int_equal(fake->issued, 2 + reads[i].ahead);
		if (reads[i].ahead > 0)
			assert_int_equal(fake->events[fake->nr_events - 1].kind, FAKE_SUBMIT);
		while (!job.done) {
			channel_send(channel, false);
			channel_wait(channel, true, -1);
			channel_land(channel);
		}
		assert_int_equal(fake->issued, reads[i].pieces);
		job_finish(&job);
		tear_down();
	}
}

static void aligned_memory_is_not_copied(void **state)
{
	uint8_t *memory = aligned_noise(4 * PIECE_LEN);

	set_up(&raw, PIECES);
	run_over(OP_READ, 0, 512, memory, 4 * PIECE_LEN);
	memory[5]++;
	run_over(OP_WRITE, 0, 512, memory, 4 * PIECE_LEN);
	assert_int_equal(stat_get(&volume->stats, bounced), 0);
	assert_int_equal(stat_get(&volume->stats, zero_copy), fake->issued);
	for (unsigned i = 0; i < fake->nr_events; i++) {
		const struct fake_event *event = &fake->events[i];

		if (event->kind == FAKE_ISSUE)
			assert_ptr_equal(event->io_base,
					 memory + (event->start - volume->data_offset - 512));
	}
	free(memory);
	tear_down();
}

static void aligned_memory_of_a_read_is_decrypted_in_place(void **state)
{
	uint8_t *memory = aligned_noise(4 * PIECE_LEN);

	set_up(&xts_4k, PIECES);
	run_over(OP_READ, 0, 4096, memory, 4 * PIECE_LEN);
	assert_int_equal(stat_get(&volume->stats, bounced), 0);
	assert_int_equal(stat_get(&volume->stats, zero_copy), 4);
	assert_int_equal(count_events(FAKE_ISSUE, OP_READ), 4);
	free(memory);
	tear_down();
}

static void odd_memory_and_encrypted_writes_are_bounced(void **state)
{
	uint8_t *memory = aligned_noise(PIECE_LEN + 1);

	set_up(&raw, PIECES);
	run_over(OP_WRITE, 0, 0, memory + 1, PIECE_LEN);
	assert_int_equal(stat_get(&volume->stats, zero_copy), 0);
	assert_int_equal(stat_get(&volume->stats, bounced), 1);
	tear_down();

	set_up(&xts, PIECES);
	run_over(OP_WRITE, 0, 0, memory, PIECE_LEN);
	assert_int_equal(stat_get(&volume->stats, zero_copy), 0);
	assert_int_equal(stat_get(&volume->stats, bounced), 1);
	tear_down();
	free(memory);
}

static void blocks_written_in_part_are_counted_and_read_first(void **state)
{
	uint8_t *memory = aligned_noise(3 * 4096);

	set_up(&xts_4k, PIECES);
	run_over(OP_WRITE, 0, 4096 - 100, memory, 4096 + 200);
	assert_int_equal(stat_get(&volume->stats, partial), 2);
	assert_int_equal(count_events(FAKE_ISSUE, OP_READ), 2);
	assert_int_equal(count_events(FAKE_ISSUE, OP_WRITE), 3);
	fake_forget(fake);
	run_over(OP_WRITE, 0, 8192, memory, 4096);
	assert_int_equal(stat_get(&volume->stats, partial), 2);
	assert_int_equal(count_events(FAKE_ISSUE, OP_READ), 0);
	free(memory);
	tear_down();
}

static void reads_write_nothing(void **state)
{
	uint8_t *memory = aligned_noise(50000);

	set_up(&xts_4k, PIECES);
	run_over(OP_READ, 0, 777, memory, 50000);
	assert_int_equal(fake->writes, 0);
	free(memory);
	tear_down();
}

static void fua_reaches_every_write(void **state)
{
	const struct fake_options *options[] = { &raw, &xts, &xts_4k };
	uint8_t *memory = aligned_noise(5 * PIECE_LEN);

	for (unsigned i = 0; i < 3; i++) {
		set_up(options[i], PIECES);
		fake->shorten = true;
		run_over(OP_WRITE, REQ_FUA, 100, memory, 5 * PIECE_LEN);
		do_job(OP_ZERO, REQ_FUA, 1000, 3 * PIECE_LEN);
		assert_true(fake->writes > 5);
		assert_int_equal(fake->fua_writes, fake->writes);
		for (unsigned e = 0; e < fake->nr_events; e++)
			if (fake->events[e].kind == FAKE_ISSUE && fake->events[e].op == OP_ZERO)
				assert_int_equal(fake->events[e].flags & REQ_FUA, REQ_FUA);
		fake_forget(fake);
		run_over(OP_WRITE, 0, 100, memory, 5 * PIECE_LEN);
		assert_true(fake->writes > 5);
		assert_int_equal(fake->fua_writes, 0);
		tear_down();
	}
	free(memory);
}

static void a_flush_is_one_flush(void **state)
{
	struct job job;

	set_up(&xts, PIECES);
	job_make(&job, OP_FLUSH, 0, 0, 0);
	job_run(&job);
	assert_int_equal(fake->issued, 1);
	assert_int_equal(fake->flushes, 1);

	fake->fail[0] = (struct fake_failure){ 1, -EIO };
	job_make(&job, OP_FLUSH, 0, 0, 0);
	job.may_fail = true;
	job_start(&job);
	while (!job.done)
		fake_drive(channel, true, -1);
	assert_int_equal(job.request->error, -EIO);
	job_finish(&job);
	assert_int_equal(fake->issued, 2);
	tear_down();
}

/* Whoever drives it can let others use the target while this thread decrypts. */
static void a_channel_tells_that_all_is_read_before_it_decrypts(void **state)
{
	unsigned waits = 0;
	struct job job;

	set_up(&xts, 2);
	fake->linger = true;
	job_make(&job, OP_READ, 0, 0, 5 * PIECE_LEN);
	job_start(&job);
	while (!job.done) {
		bool landed;

		channel_send(channel, false);
		channel_wait(channel, true, -1);
		waits++;
		landed = channel_all_read(channel);
		assert_false(job.done);
		assert_int_equal(landed, fake->issued == 5 && fake_in_flight(fake, NULL) == 0);
		channel_land(channel);
		assert_int_equal(job.done, landed);
	}
	assert_true(waits > 2);
	job_finish(&job);
	tear_down();
}

/* Also where nothing lands in the round that ends it. */
static void a_channel_tells_that_all_is_read_when_a_read_fails(void **state)
{
	for (unsigned i = 0; i < 10; i++) {
		bool all_read = false;
		struct job job;

		set_up(&xts, 2);
		fake->linger = i % 2;
		fake->fail[0] = (struct fake_failure){ 1 + i / 2, -EIO };
		job_make(&job, OP_READ, 0, 0, 5 * PIECE_LEN);
		job.may_fail = true;
		job_start(&job);
		while (!job.done) {
			channel_send(channel, false);
			channel_wait(channel, true, -1);
			all_read = channel_all_read(channel);
			channel_land(channel);
		}
		assert_int_equal(job.request->error, -EIO);
		assert_true(all_read);
		job_finish(&job);
		tear_down();
	}
}

static void nothing_to_do_asks_nothing(void **state)
{
	static const enum op ops[] = { OP_READ, OP_WRITE, OP_ZERO, OP_TRIM, OP_CACHE, OP_EXTENTS };

	set_up(&raw, PIECES);
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		do_job(ops[i], 0, 333, 0);
		do_job(ops[i], 0, VOLUME_SIZE, 0);
	}
	do_job(OP_TRIM, 0, 10, 900);
	assert_int_equal(fake->issued, 0);
	tear_down();
}

static void zeroes_in_the_middle_are_the_targets_without_a_key(void **state)
{
	const struct fake_event *event;

	set_up(&raw, PIECES);
	do_job(OP_ZERO, REQ_MAY_TRIM, 1024, 8192);
	event = fake->events;
	assert_int_equal(fake->issued, 1);
	assert_int_equal(event->op, OP_ZERO);
	assert_int_equal(event->flags & REQ_MAY_TRIM, REQ_MAY_TRIM);
	assert_int_equal(event->start, volume->data_offset + 1024);
	assert_int_equal(event->len, 8192);

	fake_forget(fake);
	do_job(OP_ZERO, 0, 1000, 8192);
	assert_int_equal(count_events(FAKE_ISSUE, OP_ZERO), 1);
	assert_int_equal(count_events(FAKE_ISSUE, OP_WRITE), 2);
	tear_down();
}

/* A hole decrypts to noise. */
static void zeroes_of_an_encrypted_volume_are_written(void **state)
{
	set_up(&xts, PIECES);
	do_job(OP_ZERO, REQ_MAY_TRIM, 1000, 50000);
	assert_int_equal(count_events(FAKE_ISSUE, OP_ZERO), 0);
	assert_true(fake->writes >= 50000 / PIECE_LEN);
	tear_down();
}

static void zeroes_are_written_where_the_target_has_no_such_operation(void **state)
{
	set_up(&raw, PIECES);
	fake->target.can_zero = false;
	do_job(OP_ZERO, REQ_MAY_TRIM, 1000, 50000);
	assert_int_equal(count_events(FAKE_ISSUE, OP_ZERO), 0);
	tear_down();
}

static void a_trim_takes_the_whole_blocks_inside(void **state)
{
	uint8_t *memory;

	set_up(&xts_4k, PIECES);
	do_job(OP_TRIM, 0, 4095, 2 * 4096 + 2);
	assert_int_equal(fake->issued, 1);
	assert_int_equal(fake->events[0].op, OP_TRIM);
	assert_int_equal(fake->events[0].start, volume->data_offset + 4096);
	assert_int_equal(fake->events[0].len, 2 * 4096);
	/* What is there now is anybody's guess. */
	memory = aligned_noise(2 * 4096);
	run_over(OP_WRITE, 0, 4096, memory, 2 * 4096);
	free(memory);
	tear_down();
}

struct found {
	unsigned count;
	uint64_t offset, len;
	int error;
};

static int extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct found *found = opaque;

	found->count++;
	found->offset = offset;
	found->len = len;
	return found->error;
}

static void extents_are_told_by_their_place_on_the_volume(void **state)
{
	struct ndio_request *request;
	struct found found = { 0 };

	set_up(&raw, PIECES);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(request_make(volume, OP_EXTENTS, 0, 5000, 7777, NULL, 0, &request),
				 0);
		request->extent = extent;
		request->extent_opaque = &found;
		assert_int_equal(fake_run(channel, request), found.error);
		request_put(request, REF_CALLER);
		assert_int_equal(found.count, i + 1);
		assert_int_equal(found.offset, 5000);
		assert_int_equal(found.len, 7777);
		found.error = -ENOMEM;
	}
	tear_down();
}

/* The blocks around it: the target takes no others. */
static void a_cache_takes_whole_blocks(void **state)
{
	set_up(&raw, PIECES);
	do_job(OP_CACHE, 0, 1000, 100);
	assert_int_equal(fake->issued, 1);
	assert_int_equal(fake->events[0].start, volume->data_offset + 512);
	assert_int_equal(fake->events[0].len, 1024);
	tear_down();
}

/* Where an answer came from, and whether it followed the one before. */
struct row {
	uint64_t at;
	unsigned count;
	bool in_order;
};

static int next_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct row *row = opaque;

	row->in_order = row->in_order && offset == row->at;
	row->at = offset + len;
	row->count++;
	return 0;
}

/* The target takes less at a time, and answers the second question first. */
static void extents_are_told_in_order(void **state)
{
	struct row row = { .at = 4096, .in_order = true };
	struct ndio_request *request;

	set_up(&raw, PIECES);
	fake->target.max_other = 8192;
	fake->order = FAKE_REVERSED;
	assert_int_equal(request_make(volume, OP_EXTENTS, 0, 4096, 50000, NULL, 0, &request), 0);
	request->extent = next_extent;
	request->extent_opaque = &row;
	assert_int_equal(fake_run(channel, request), 0);
	request_put(request, REF_CALLER);
	assert_true(row.count >= 50000 / 8192);
	assert_true(row.in_order);
	assert_int_equal(row.at, 4096 + 50000);
	tear_down();
}

static void large_zeroes_and_trims_are_split_as_the_target_needs(void **state)
{
	uint8_t *memory = aligned_noise(100000);

	set_up(&raw, PIECES);
	fake->target.max_other = 8192;
	fake->order = FAKE_RANDOM;
	do_job(OP_ZERO, REQ_FUA, 1000, 100000);
	assert_true(count_events(FAKE_ISSUE, OP_ZERO) > 10);
	do_job(OP_TRIM, 0, 1000, 100000);
	assert_true(count_events(FAKE_ISSUE, OP_TRIM) > 10);
	do_job(OP_CACHE, 0, 1024, 99840);
	run_over(OP_WRITE, 0, 1000, memory, 100000);
	free(memory);
	tear_down();
}

/* ---- errors ---- */

/* What went wrong may have been written or not: reads the model from the target again. */
static void forget_model(void)
{
	struct iovec iov = { model, VOLUME_SIZE };
	struct ndio_request *request;

	assert_int_equal(request_make(volume, OP_READ, 0, 0, 0, &iov, 1, &request), 0);
	assert_int_equal(fake_run(channel, request), 0);
	request_put(request, REF_CALLER);
}

/* The error of the first subrequest to land with one, by what the target remembers. */
static int first_error_landed(void)
{
	for (unsigned i = 0; i < fake->nr_events; i++)
		if (fake->events[i].kind == FAKE_LAND && fake->events[i].result < 0)
			return fake->events[i].result;
	return 0;
}

/* Bytes outside a request that failed are as they were. */
static void assert_neighbours(const uint8_t *before, const struct job *job)
{
	fake_assert_same(model, before, job->start);
	fake_assert_same(model + job->start + job->len, before + job->start + job->len,
			 VOLUME_SIZE - job->start - job->len);
}

static void run_into_error(enum op op, unsigned at, unsigned manners)
{
	uint8_t *before = malloc(VOLUME_SIZE);
	struct job job;

	assert_non_null(before);
	memcpy(before, model, VOLUME_SIZE);
	fake->order = manners % 3;
	fake->linger = manners & 4;
	fake->shorten = manners & 8;
	job_make(&job, op, 0, 1000, 5 * PIECE_LEN + 3000);
	job.may_fail = true;
	fake_forget(fake);
	fake->fail[0] = (struct fake_failure){ at, -EIO };
	fake->fail[1] = (struct fake_failure){ at + 1, -ENOSPC };
	job_start(&job);
	while (!job.done) {
		uint64_t split = job.request->split;
		bool failed = job.request->error;

		fake_drive(channel, true, -1);
		/* Once it has failed, what is left of it isn't sent. */
		assert_true(!failed || job.request->split == split);
	}
	assert_int_equal(job.request->error, first_error_landed());
	fake->fail[0].at = fake->fail[1].at = 0;
	for (unsigned i = 0; i < 5; i++)
		fake_drive(channel, true, -1);
	if (volume->encrypted)
		assert_false(fake_marker_in_bounce(fake));
	forget_model();
	if (op == OP_READ)
		fake_assert_same(model, before, VOLUME_SIZE);
	else
		assert_neighbours(before, &job);
	job_finish(&job);
	free(before);
}

static void errors_end_a_request_once_and_for_all(void **state)
{
	static const enum op ops[] = { OP_READ, OP_WRITE, OP_ZERO };
	const struct kind *kind = *state;

	set_up(&kind->options, PIECES);
	for (unsigned op = 0; op < 3; op++)
		for (unsigned at = 1; at < 12; at++)
			for (unsigned manners = 0; manners < 12; manners++)
				run_into_error(ops[op], at, manners);
	do_job(OP_WRITE, 0, 10, 100000);
	do_job(OP_READ, 0, 0, VOLUME_SIZE);
	tear_down();
}

static void one_requests_error_is_not_the_others(void **state)
{
	struct job jobs[3];

	set_up(&xts, PIECES);
	fake->order = FAKE_RANDOM;
	fake->linger = true;
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 3; i++)
			job_make(&jobs[i], OP_READ, 0, i * 50000, 50000);
		jobs[1].may_fail = true;
		for (unsigned i = 0; i < 3; i++)
			job_start(&jobs[i]);
		while (jobs[1].request->split == 0)
			fake_drive(channel, true, -1);
		/* The next to be issued is of the second job, until all of it is split off. */
		if (!request_all_split(jobs[1].request))
			fake->fail[0] = (struct fake_failure){ 1, -EIO };
		while (!jobs[0].done || !jobs[1].done || !jobs[2].done)
			fake_drive(channel, true, -1);
		assert_int_equal(jobs[0].request->error, 0);
		assert_int_equal(jobs[2].request->error, 0);
		for (unsigned i = 0; i < 3; i++)
			job_finish(&jobs[i]);
	}
	tear_down();
}

/* The file has become shorter: its end can't be had by asking again. */
static void a_target_that_ends_early_is_an_error(void **state)
{
	struct ndio_request *request;
	uint8_t *memory = aligned_noise(4096);
	struct iovec iov = { memory, 4096 };

	set_up(&raw, PIECES);
	fake->fail[0] = (struct fake_failure){ 1, 100 }; /* no error: 100 bytes, no whole block */
	assert_int_equal(request_make(volume, OP_READ, 0, 0, 0, &iov, 1, &request), 0);
	assert_int_equal(fake_run(channel, request), -EIO);
	request_put(request, REF_CALLER);
	free(memory);
	tear_down();
}

/* ---- memory ---- */

/* While pieces are in flight as well as afterwards. */
static void bounce_memory_never_holds_plaintext_between_calls(void **state)
{
	const struct fake_options *options[] = { &xts, &xts_4k };

	for (unsigned i = 0; i < 2; i++) {
		set_up(options[i], PIECES);
		fake->linger = true;
		fake->order = FAKE_RANDOM;
		for (unsigned round = 0; round < 100; round++) {
			uint64_t start = random_start(VOLUME_SIZE);
			struct job job;

			job_make(&job, round % 2 ? OP_READ : OP_WRITE, 0, start,
				 random_len(VOLUME_SIZE - start));
			job_start(&job);
			while (!job.done) {
				fake_drive(channel, true, -1);
				assert_false(fake_marker_in_bounce(fake));
			}
			job_finish(&job);
		}
		tear_down();
	}
}

struct chain {
	unsigned left;
	uint64_t start;
	uint8_t *memory;
};

/* Starts the next request from the callback of the one before, whose memory it may get. */
static void chain_next(struct ndio_request *previous)
{
	struct chain *chain = previous->opaque;
	struct iovec iov = { chain->memory, 40000 };
	struct ndio_request *request;

	assert_int_equal(previous->error, 0);
	if (chain->left--) {
		assert_int_equal(
			request_make(volume, OP_READ, 0, chain->start += 100, 0, &iov, 1, &request),
			0);
		request->done = chain_next;
		request->opaque = chain;
		request->range.granted = never_granted;
		if (request->has_range)
			assert_true(range_acquire(&volume->ranges, &request->range));
		fake_start(channel, request);
		request_put(request, REF_CALLER);
	}
}

static void a_callback_may_start_the_next_request(void **state)
{
	struct chain chain = { .left = 200, .memory = aligned_noise(40000) };

	set_up(&xts, PIECES);
	fake->order = FAKE_RANDOM;
	fake->linger = true;
	chain_next(&(struct ndio_request){ .opaque = &chain });
	while (stat_get(&volume->stats, in_flight))
		fake_drive(channel, true, -1);
	assert_int_equal(chain.left, UINT_MAX);
	fake_assert_same(chain.memory, model + chain.start, 40000);
	free(chain.memory);
	tear_down();
}

static void one_piece_is_one_subrequest(void **state)
{
	unsigned pieces[2] = { 0 };

	set_up(&xts, PIECES);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t start = random_start(VOLUME_SIZE);
		uint64_t split =
			stat_get(&volume->stats, bounced) + stat_get(&volume->stats, zero_copy);
		struct job job;
		bool one;

		job_make(&job, random_op(), 0, start, random_len(VOLUME_SIZE - start));
		one = channel_one_piece(job.request, PIECE_LEN);
		job_run(&job);
		split = stat_get(&volume->stats, bounced) + stat_get(&volume->stats, zero_copy) -
			split;
		assert_int_equal(one, split <= 1);
		pieces[one]++;
	}
	assert_true(pieces[0] > 100 && pieces[1] > 100);
	tear_down();
}

static void what_fails_where_a_cancel_is_expected_was_canceled(void **state)
{
	struct job job;

	set_up(&raw, PIECES);
	for (unsigned expected = 0; expected < 2; expected++) {
		fake->fail[0] = (struct fake_failure){ 1, -ENOTCONN };
		job_make(&job, OP_FLUSH, 0, 0, 0);
		job.may_fail = true;
		job_start(&job);
		if (expected)
			channel_expect_cancel(channel);
		while (!job.done)
			fake_drive(channel, true, -1);
		assert_int_equal(job.request->error, expected ? -ECANCELED : -ENOTCONN);
		job_finish(&job);
	}
	tear_down();
}

int main(void)
{
	static const struct CMUnitTest single[] = {
		cmocka_unit_test(each_piece_is_submitted_before_the_next_is_issued),
		cmocka_unit_test(what_is_large_goes_out_before_the_next_request_is_encrypted),
		cmocka_unit_test(room_is_used_as_it_comes_free),
		cmocka_unit_test(what_is_read_next_is_asked_for_before_the_rest_is_decrypted),
		cmocka_unit_test(aligned_memory_is_not_copied),
		cmocka_unit_test(aligned_memory_of_a_read_is_decrypted_in_place),
		cmocka_unit_test(odd_memory_and_encrypted_writes_are_bounced),
		cmocka_unit_test(blocks_written_in_part_are_counted_and_read_first),
		cmocka_unit_test(reads_write_nothing),
		cmocka_unit_test(fua_reaches_every_write),
		cmocka_unit_test(a_flush_is_one_flush),
		cmocka_unit_test(a_channel_tells_that_all_is_read_before_it_decrypts),
		cmocka_unit_test(a_channel_tells_that_all_is_read_when_a_read_fails),
		cmocka_unit_test(nothing_to_do_asks_nothing),
		cmocka_unit_test(zeroes_in_the_middle_are_the_targets_without_a_key),
		cmocka_unit_test(zeroes_of_an_encrypted_volume_are_written),
		cmocka_unit_test(zeroes_are_written_where_the_target_has_no_such_operation),
		cmocka_unit_test(a_trim_takes_the_whole_blocks_inside),
		cmocka_unit_test(extents_are_told_by_their_place_on_the_volume),
		cmocka_unit_test(a_cache_takes_whole_blocks),
		cmocka_unit_test(extents_are_told_in_order),
		cmocka_unit_test(large_zeroes_and_trims_are_split_as_the_target_needs),
		cmocka_unit_test(one_requests_error_is_not_the_others),
		cmocka_unit_test(a_target_that_ends_early_is_an_error),
		cmocka_unit_test(bounce_memory_never_holds_plaintext_between_calls),
		cmocka_unit_test(a_callback_may_start_the_next_request),
		cmocka_unit_test(one_piece_is_one_subrequest),
		cmocka_unit_test(what_fails_where_a_cancel_is_expected_was_canceled),
	};
	static const struct {
		const char *name;
		CMUnitTestFunction test;
	} every[] = {
		{ "requests_of_any_shape_match_the_model", requests_of_any_shape_match_the_model },
		{ "one_piece_is_enough_for_any_shape", one_piece_is_enough_for_any_shape },
		{ "many_requests_at_once_match_the_model", many_requests_at_once_match_the_model },
		{ "errors_end_a_request_once_and_for_all", errors_end_a_request_once_and_for_all },
	};
	enum { SINGLE = sizeof(single) / sizeof(single[0]), EVERY = 4 };
	static struct CMUnitTest tests[SINGLE + EVERY * KINDS];
	static char names[EVERY * KINDS][128];

	memcpy(tests, single, sizeof(single));
	for (unsigned i = 0; i < EVERY * KINDS; i++) {
		const struct kind *kind = &kinds[i / EVERY];

		snprintf(names[i], sizeof(names[i]), "%s (%s)", every[i % EVERY].name, kind->name);
		tests[SINGLE + i] = (struct CMUnitTest){
			.name = names[i],
			.test_func = every[i % EVERY].test,
			.initial_state = (void *)kind,
		};
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
