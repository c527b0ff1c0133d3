/* A request's making, memory and end, on a volume around a target in memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/bounce.h"
#include "engine/channel.h"
#include "engine/request.h"
#include "fake-target.h"
#include "memory/pin.h"

#define VOLUME_SIZE 65536
#define MANY        (3 * REQUEST_INLINE_BVECS)

static struct volume *volume;
static struct fake_target *fake;
static struct channel *channel;
static struct bounce bounce;
static unsigned seed;

static void open_volume(const struct fake_options *options)
{
	const struct channel_options channels = { .pieces = 3, .piece_len = 8192 };

	seed = 1;
	volume = fake_volume(options, &fake);
	assert_int_equal(bounce_init(&bounce, channel_bounce_len(&channels), false, NULL), 0);
	assert_int_equal(channel_open(volume, &channels, bounce.area, &channel, NULL), 0);
}

static int set_up(void **state)
{
	open_volume(&(struct fake_options){ .align = 512, .size = VOLUME_SIZE });
	return 0;
}

static void assert_nothing_left(void)
{
	const struct stats *stats = &volume->stats;

	assert_int_equal(stat_get(stats, in_flight), 0);
	assert_int_equal(stat_get(stats, pins), stat_get(stats, unpins));
	fake_assert_obeyed(fake);
}

static int tear_down(void **state)
{
	assert_nothing_left();
	channel_close(channel);
	bounce_destroy(&bounce);
	volume_close(volume);
	return 0;
}

static int make(enum op op, unsigned flags, uint64_t start, uint64_t len, const struct iovec *iov,
		size_t iov_count, struct ndio_request **request)
{
	return request_make(volume, op, flags, start, len, iov, iov_count, request);
}

/* Makes it of one run of memory, and expects an error, which leaves nothing behind. */
static void assert_refused(enum op op, unsigned flags, uint64_t start, size_t len, int error)
{
	static char memory[VOLUME_SIZE + 1];
	struct iovec iov = { memory, len };
	struct ndio_request *request = (void *)&memory;

	assert_int_equal(make(op, flags, start, len, &iov, 1, &request), error);
	assert_ptr_equal(request, memory);
	assert_nothing_left();
}

/* And here it isn't. */
static void assert_taken(enum op op, unsigned flags, uint64_t start, size_t len)
{
	static char memory[VOLUME_SIZE];
	struct iovec iov = { memory, len };
	struct ndio_request *request;

	assert_int_equal(make(op, flags, start, len, &iov, 1, &request), 0);
	assert_int_equal(request->op, op);
	assert_ptr_equal(request->volume, volume);
	request_put(request, REF_CALLER);
	assert_nothing_left();
}

/* ---- the caller's array ---- */

static void the_array_may_be_overwritten_at_once(void **state)
{
	char written[MANY][100], read[MANY][100];
	struct iovec iov[MANY];
	struct ndio_request *request;

	fake_noise(written, sizeof(written), &seed);
	for (unsigned count = 1; count <= MANY; count++) {
		for (unsigned i = 0; i < count; i++)
			iov[i] = (struct iovec){ written[i], sizeof(written[i]) };
		assert_int_equal(make(OP_WRITE, 0, 1000, 0, iov, count, &request), 0);
		memset(iov, 0xff, sizeof(iov));
		assert_int_equal(fake_run(channel, request), 0);
		request_put(request, REF_CALLER);

		memset(read, 0, sizeof(read));
		for (unsigned i = 0; i < count; i++)
			iov[i] = (struct iovec){ read[i], sizeof(read[i]) };
		assert_int_equal(make(OP_READ, 0, 1000, 0, iov, count, &request), 0);
		memset(iov, 0xff, sizeof(iov));
		assert_int_equal(fake_run(channel, request), 0);
		request_put(request, REF_CALLER);
		assert_memory_equal(read, written, count * sizeof(read[0]));
		for (unsigned i = count * sizeof(read[0]); i < sizeof(read); i++)
			assert_int_equal(((char *)read)[i], 0);
	}
}

static void few_iovecs_need_no_allocation(void **state)
{
	struct iovec iov[REQUEST_INLINE_BVECS + 2];
	struct ndio_request *request;
	char byte[REQUEST_INLINE_BVECS + 1];

	for (unsigned i = 0; i <= REQUEST_INLINE_BVECS; i++)
		iov[i] = (struct iovec){ &byte[i], 1 };
	iov[REQUEST_INLINE_BVECS + 1] = (struct iovec){ NULL, 0 };

	assert_int_equal(make(OP_READ, 0, 0, 0, iov, REQUEST_INLINE_BVECS, &request), 0);
	assert_ptr_equal(request->direct_bv, request->inline_bv);
	assert_int_equal(request->direct_bv_count, REQUEST_INLINE_BVECS);
	request_put(request, REF_CALLER);

	/* An empty one takes no place. */
	assert_int_equal(make(OP_READ, 0, 0, 0, iov + 1, REQUEST_INLINE_BVECS + 1, &request), 0);
	assert_ptr_equal(request->direct_bv, request->inline_bv);
	assert_int_equal(request->len, REQUEST_INLINE_BVECS);
	request_put(request, REF_CALLER);

	assert_int_equal(make(OP_READ, 0, 0, 0, iov, REQUEST_INLINE_BVECS + 1, &request), 0);
	assert_ptr_not_equal(request->direct_bv, request->inline_bv);
	assert_int_equal(request->direct_bv_count, REQUEST_INLINE_BVECS + 1);
	request_put(request, REF_CALLER);
}

static void the_length_is_that_of_the_array(void **state)
{
	char memory[300];
	struct iovec iov[] = { { memory, 100 }, { NULL, 0 }, { memory + 100, 200 } };
	struct ndio_request *request;

	assert_int_equal(make(OP_WRITE, 0, 7, 12345, iov, 3, &request), 0);
	assert_int_equal(request->start, 7);
	assert_int_equal(request->len, 300);
	assert_int_equal(request->direct_bv_count, 2);
	request_put(request, REF_CALLER);
}

static void a_request_may_have_no_bytes(void **state)
{
	static const enum op ops[] = { OP_READ, OP_WRITE, OP_ZERO, OP_TRIM };
	struct iovec iov = { NULL, 0 };
	struct ndio_request *request;

	for (unsigned i = 0; i < 4; i++) {
		for (unsigned count = 0; count < 2; count++) {
			assert_int_equal(
				make(ops[i], REQ_PIN, VOLUME_SIZE, 0, &iov, count, &request), 0);
			assert_int_equal(request->len, 0);
			assert_int_equal(fake_run(channel, request), 0);
			request_put(request, REF_CALLER);
		}
	}
	assert_int_equal(fake->issued, 0);
}

/* ---- what is refused ---- */

static void beyond_the_end_is_refused(void **state)
{
	static const enum op changes[] = { OP_WRITE, OP_ZERO, OP_TRIM };
	static const enum op looks[] = { OP_READ, OP_CACHE, OP_EXTENTS };

	for (unsigned i = 0; i < 3; i++) {
		assert_taken(changes[i], 0, VOLUME_SIZE - 100, 100);
		assert_taken(looks[i], 0, VOLUME_SIZE - 100, 100);
		assert_refused(changes[i], 0, VOLUME_SIZE - 100, 101, -ENOSPC);
		assert_refused(looks[i], 0, VOLUME_SIZE - 100, 101, -EINVAL);
		assert_refused(changes[i], 0, 0, VOLUME_SIZE + 1, -ENOSPC);
		assert_refused(looks[i], 0, 0, VOLUME_SIZE + 1, -EINVAL);
		assert_refused(changes[i], 0, VOLUME_SIZE + 1, 0, -ENOSPC);
		assert_refused(looks[i], 0, VOLUME_SIZE + 1, 0, -EINVAL);
	}
}

static void sums_that_overflow_are_refused(void **state)
{
	struct ndio_request *request;
	char byte;
	struct iovec iov[] = { { &byte, SIZE_MAX / 2 }, { &byte, SIZE_MAX / 2 }, { &byte, 3 } };

	assert_refused(OP_READ, 0, UINT64_MAX, 1, -EINVAL);
	assert_refused(OP_WRITE, 0, UINT64_MAX, 1, -ENOSPC);
	assert_refused(OP_WRITE, 0, UINT64_MAX - 511, 512, -ENOSPC);
	assert_refused(OP_ZERO, 0, 512, UINT64_MAX, -ENOSPC);
	assert_refused(OP_TRIM, 0, UINT64_MAX - 100, 101, -ENOSPC);
	assert_refused(OP_EXTENTS, 0, 1, UINT64_MAX, -EINVAL);
	assert_int_equal(make(OP_READ, 0, 0, 0, iov, 3, &request), -EINVAL);
	assert_int_equal(make(OP_WRITE, 0, 0, 0, iov, 3, &request), -EINVAL);
	assert_nothing_left();
}

static void a_read_only_volume_takes_no_changes(void **state)
{
	volume->readonly = true;
	assert_refused(OP_WRITE, 0, 0, 512, -EROFS);
	assert_refused(OP_ZERO, 0, 0, 512, -EROFS);
	assert_refused(OP_TRIM, 0, 0, 512, -EROFS);
	assert_taken(OP_READ, 0, 0, 512);
	assert_taken(OP_FLUSH, 0, 0, 0);
	assert_taken(OP_EXTENTS, 0, 0, 512);
}

static void what_a_volume_cannot_do_is_refused(void **state)
{
	volume->can_fast_zero = false;
	assert_taken(OP_ZERO, 0, 0, 512);
	assert_refused(OP_ZERO, REQ_FAST_ZERO, 0, 512, -EOPNOTSUPP);
	volume->can_trim = volume->target->can_cache = volume->can_extents = false;
	assert_refused(OP_TRIM, 0, 0, 512, -EOPNOTSUPP);
	assert_refused(OP_CACHE, 0, 0, 512, -EOPNOTSUPP);
	assert_refused(OP_EXTENTS, 0, 0, 512, -EOPNOTSUPP);
	assert_taken(OP_READ, 0, 0, 512);
	assert_taken(OP_WRITE, 0, 0, 512);
}

/* ---- what it becomes ---- */

static void assert_trimmed_to(uint64_t start, uint64_t len, uint64_t want_start, uint64_t want_len)
{
	struct ndio_request *request;

	assert_int_equal(make(OP_TRIM, 0, start, len, NULL, 0, &request), 0);
	assert_int_equal(request->len, want_len);
	if (want_len)
		assert_int_equal(request->start, want_start);
	request_put(request, REF_CALLER);
}

static void a_trim_keeps_to_whole_blocks(void **state)
{
	assert_trimmed_to(0, 512, 0, 512);
	assert_trimmed_to(512, 1024, 512, 1024);
	assert_trimmed_to(1, 512, 0, 0);
	assert_trimmed_to(1, 1022, 0, 0);
	assert_trimmed_to(1, 1023, 512, 512);
	assert_trimmed_to(511, 1026, 512, 1024);
	assert_trimmed_to(0, 511, 0, 0);
	assert_trimmed_to(513, 1, 0, 0);
	assert_trimmed_to(VOLUME_SIZE - 1, 1, 0, 0);
	assert_trimmed_to(VOLUME_SIZE, 0, 0, 0);
	assert_trimmed_to(1, VOLUME_SIZE - 1, 512, VOLUME_SIZE - 512);
}

static void assert_range(enum op op, uint64_t start, size_t len, enum range_mode mode,
			 uint64_t range_start, uint64_t range_end)
{
	static char memory[VOLUME_SIZE];
	struct iovec iov = { memory, len };
	struct ndio_request *request;

	assert_int_equal(make(op, 0, start, len, &iov, 1, &request), 0);
	assert_true(request->has_range);
	assert_int_equal(request->range.mode, mode);
	assert_int_equal(request->range.start, range_start);
	assert_int_equal(request->range.end, range_end);
	request_put(request, REF_CALLER);
}

static void assert_no_range(enum op op, uint64_t start, size_t len)
{
	static char memory[VOLUME_SIZE];
	struct iovec iov = { memory, len };
	struct ndio_request *request;

	assert_int_equal(make(op, 0, start, len, &iov, 1, &request), 0);
	assert_false(request->has_range);
	request_put(request, REF_CALLER);
}

static void ranges_are_whole_blocks(void **state)
{
	static const enum op changes[] = { OP_WRITE, OP_ZERO };

	for (unsigned i = 0; i < 2; i++) {
		assert_range(changes[i], 512, 1024, RANGE_WRITE, 512, 1536);
		assert_range(changes[i], 513, 1023, RANGE_PARTIAL, 512, 1536);
		assert_range(changes[i], 512, 1023, RANGE_PARTIAL, 512, 1536);
		assert_range(changes[i], 511, 2, RANGE_PARTIAL, 0, 1024);
		assert_range(changes[i], VOLUME_SIZE - 1, 1, RANGE_PARTIAL, VOLUME_SIZE - 512,
			     VOLUME_SIZE);
		assert_no_range(changes[i], 512, 0);
	}
	assert_range(OP_TRIM, 511, 1026, RANGE_WRITE, 512, 1536);
	assert_no_range(OP_TRIM, 511, 2);
	assert_no_range(OP_READ, 1, 1000);
	assert_no_range(OP_FLUSH, 0, 0);
	assert_no_range(OP_EXTENTS, 1, 1000);
	volume->reads_tear = true;
	assert_range(OP_READ, 1, 1000, RANGE_READ, 0, 1024);
	volume->reads_tear = false;
}

/* The target replaces 512 bytes at once here. */
static void reads_tear_where_more_hangs_together_than_is_replaced_at_once(void **state)
{
	struct volume v = { .target = volume->target, .encrypted = true };

	v.luks.sector = 4096;
	snprintf(v.luks.cipher, sizeof(v.luks.cipher), "aes-xts-plain64");
	assert_false(volume_reads_tear(&v));
	volume->target->atomic = 1;
	assert_true(volume_reads_tear(&v));
	volume->target->atomic = 512;
	snprintf(v.luks.cipher, sizeof(v.luks.cipher), "aes-cbc-essiv:sha256");
	assert_true(volume_reads_tear(&v));
	v.luks.sector = 512;
	assert_false(volume_reads_tear(&v));
	v.encrypted = false;
	assert_false(volume_reads_tear(&v));
}

/* ---- references ---- */

static void the_last_reference_frees(void **state)
{
	struct ndio_request *request;

	assert_int_equal(make(OP_FLUSH, 0, 0, 0, NULL, 0, &request), 0);
	assert_int_equal(atomic_load(&request->ref), 1);
	assert_int_equal(stat_get(&volume->stats, in_flight), 1);
	request_get(request, REF_CHANNEL);
	assert_int_equal(atomic_load(&request->ref), 2);
	request_put(request, REF_CALLER);
	assert_int_equal(stat_get(&volume->stats, in_flight), 1);
	request_put(request, REF_CHANNEL);
	assert_int_equal(stat_get(&volume->stats, in_flight), 0);
}

static unsigned done_count;
static const struct ndio_request *done_request;

static void count_done(struct ndio_request *request)
{
	assert_int_equal(request->state, REQUEST_COMPLETED);
	done_count++;
	done_request = request;
}

static void the_channel_keeps_it_until_it_is_done(void **state)
{
	static char memory[20000];
	struct iovec iov = { memory, sizeof(memory) };
	struct ndio_request *request;

	done_count = 0;
	fake->linger = true;
	assert_int_equal(make(OP_READ, 0, 100, 0, &iov, 1, &request), 0);
	request->done = count_done;
	fake_start(channel, request);
	assert_int_equal(atomic_load(&request->ref), 2);
	request_put(request, REF_CALLER);
	while (stat_get(&volume->stats, in_flight)) {
		assert_int_equal(done_count, 0);
		fake_drive(channel, true, -1);
	}
	assert_int_equal(done_count, 1);
	assert_ptr_equal(done_request, request);
}

static void the_first_error_is_kept(void **state)
{
	struct ndio_request *request;

	assert_int_equal(make(OP_ZERO, 0, 0, 512, NULL, 0, &request), 0);
	assert_int_equal(request->error, 0);
	assert_false(request_all_split(request));
	request_fail(request, -ENOSPC);
	request_fail(request, -EIO);
	assert_int_equal(request->error, -ENOSPC);
	assert_true(request_all_split(request));
	request_put(request, REF_CALLER);
}

static void ids_count_up(void **state)
{
	struct ndio_request *a, *b;

	assert_int_equal(make(OP_FLUSH, 0, 0, 0, NULL, 0, &a), 0);
	assert_int_equal(make(OP_FLUSH, 0, 0, 0, NULL, 0, &b), 0);
	assert_int_equal(a->debug_id, 1);
	assert_int_equal(b->debug_id, 2);
	request_put(a, REF_CALLER);
	request_put(b, REF_CALLER);
	assert_int_equal(make(OP_FLUSH, 0, 0, 0, NULL, 0, &a), 0);
	assert_int_equal(a->debug_id, 3);
	request_put(a, REF_CALLER);
}

static void freed_requests_are_used_again(void **state)
{
	enum { COUNT = 1000 };
	static struct ndio_request *requests[COUNT];
	struct ndio_request *request;

	assert_int_equal(make(OP_FLUSH, 0, 0, 0, NULL, 0, &request), 0);
	request_fail(request, -EIO);
	request->opaque = requests;
	request_put(request, REF_CALLER);
	assert_int_equal(volume->requests.count, 1);
	assert_int_equal(make(OP_ZERO, 0, 0, 512, NULL, 0, &requests[0]), 0);
	assert_ptr_equal(requests[0], request);
	assert_int_equal(volume->requests.count, 0);
	assert_int_equal(request->error, 0);
	assert_null(request->opaque);
	assert_null(request->done);
	request_put(request, REF_CALLER);

	/* But not without limit. */
	for (unsigned i = 0; i < COUNT; i++)
		assert_int_equal(make(OP_FLUSH, 0, 0, 0, NULL, 0, &requests[i]), 0);
	assert_int_equal(volume->requests.count, 0);
	for (unsigned i = 0; i < COUNT; i++)
		request_put(requests[i], REF_CALLER);
	assert_in_range(volume->requests.count, 1, COUNT - 1);
}

/* ---- pins ---- */

static size_t page;

/* Kibibytes of the process that are locked, as the kernel counts them. */
static size_t locked(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	size_t kib = SIZE_MAX;
	char line[256];

	assert_non_null(status);
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "VmLck: %zu kB", &kib) == 1)
			break;
	fclose(status);
	assert_int_not_equal(kib, SIZE_MAX);
	return kib;
}

static char *map_pages(size_t pages)
{
	char *base = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	assert_true(base != MAP_FAILED);
	return base;
}

static void pins_last_until_the_last_reference(void **state)
{
	char *memory = map_pages(4);
	struct iovec iov[] = { { memory, page }, { memory + 2 * page, 2 * page } };
	struct ndio_request *request;
	size_t before = locked();

	assert_int_equal(make(OP_READ, REQ_PIN, 0, 0, iov, 2, &request), 0);
	assert_true(request->direct_bv_unpin);
	assert_int_equal(locked(), before + 3 * page / 1024);
	assert_int_equal(stat_get(&volume->stats, pins), 1);
	assert_int_equal(fake_run(channel, request), 0);
	assert_int_equal(locked(), before + 3 * page / 1024);
	request_put(request, REF_CALLER);
	assert_int_equal(locked(), before);
	assert_int_equal(stat_get(&volume->stats, unpins), 1);
	munmap(memory, 4 * page);
}

static void without_the_flag_nothing_is_pinned(void **state)
{
	char *memory = map_pages(1);
	struct iovec iov = { memory, page };
	struct ndio_request *request;
	size_t before = locked();

	assert_int_equal(make(OP_READ, 0, 0, 0, &iov, 1, &request), 0);
	assert_false(request->direct_bv_unpin);
	assert_int_equal(locked(), before);
	assert_int_equal(fake_run(channel, request), 0);
	request_put(request, REF_CALLER);
	assert_int_equal(stat_get(&volume->stats, pins), 0);
	munmap(memory, page);
}

static void a_request_that_fails_unpins_too(void **state)
{
	char *memory = map_pages(2);
	struct iovec iov = { memory, 2 * page };
	struct ndio_request *request;
	size_t before = locked();

	fake->fail[0] = (struct fake_failure){ 1, -EIO };
	assert_int_equal(make(OP_WRITE, REQ_PIN, 0, 0, &iov, 1, &request), 0);
	assert_int_equal(fake_run(channel, request), -EIO);
	request_put(request, REF_CALLER);
	assert_int_equal(locked(), before);
	assert_int_equal(stat_get(&volume->stats, errors), 1);
	munmap(memory, 2 * page);
}

/* The entry before it was pinned already. */
static void a_pin_that_fails_half_way_is_undone(void **state)
{
	char *memory = map_pages(3);
	struct iovec iov[MANY];
	struct ndio_request *request = NULL;
	size_t before = locked();
	struct pin_stats stats;

	pin_stats(&stats);
	munmap(memory + page, page);
	for (unsigned i = 0; i < MANY; i++)
		iov[i] = (struct iovec){ memory + (i == 1) * page, 512 };
	for (unsigned count = 2; count <= MANY; count++) {
		assert_int_equal(make(OP_WRITE, REQ_PIN, 0, 0, iov, count, &request), -ENOMEM);
		assert_null(request);
		assert_int_equal(locked(), before);
		assert_nothing_left();
	}
	assert_int_equal(fake->issued, 0);
	assert_int_equal(stat_get(&volume->stats, pins), 0);
	assert_int_equal(volume->requests.count, 1);
	munmap(memory, page);
	munmap(memory + 2 * page, page);
}

static void two_requests_share_a_page(void **state)
{
	char *memory = map_pages(1);
	struct iovec iov[] = { { memory, 512 }, { memory + 1024, 512 } };
	struct ndio_request *a, *b;
	size_t before = locked();

	assert_int_equal(make(OP_READ, REQ_PIN, 0, 0, &iov[0], 1, &a), 0);
	assert_int_equal(make(OP_READ, REQ_PIN, 0, 0, &iov[1], 1, &b), 0);
	request_put(a, REF_CALLER);
	assert_int_equal(locked(), before + page / 1024);
	request_put(b, REF_CALLER);
	assert_int_equal(locked(), before);
	munmap(memory, page);
}

/* ---- what is counted ---- */

static void completed_requests_are_counted(void **state)
{
	static char memory[3000];
	struct iovec iov = { memory, sizeof(memory) };
	const struct stats *stats = &volume->stats;
	struct ndio_request *request;

	for (unsigned i = 0; i < 5; i++) {
		enum op op = i < 2 ? OP_READ : i < 4 ? OP_WRITE : OP_FLUSH;

		assert_int_equal(make(op, 0, 0, 0, &iov, 1, &request), 0);
		if (i % 2)
			fake->fail[0] = (struct fake_failure){ 1, -EIO };
		assert_int_equal(fake_run(channel, request), i % 2 ? -EIO : 0);
		request_put(request, REF_CALLER);
	}
	assert_int_equal(stat_get(stats, reads), 2);
	assert_int_equal(stat_get(stats, writes), 2);
	assert_int_equal(stat_get(stats, others), 1);
	assert_int_equal(stat_get(stats, bytes_read), sizeof(memory));
	assert_int_equal(stat_get(stats, bytes_written), sizeof(memory));
	assert_int_equal(stat_get(stats, errors), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_array_may_be_overwritten_at_once),
		TEST(few_iovecs_need_no_allocation),
		TEST(the_length_is_that_of_the_array),
		TEST(a_request_may_have_no_bytes),
		TEST(beyond_the_end_is_refused),
		TEST(sums_that_overflow_are_refused),
		TEST(a_read_only_volume_takes_no_changes),
		TEST(what_a_volume_cannot_do_is_refused),
		TEST(a_trim_keeps_to_whole_blocks),
		TEST(ranges_are_whole_blocks),
		TEST(reads_tear_where_more_hangs_together_than_is_replaced_at_once),
		TEST(the_last_reference_frees),
		TEST(the_channel_keeps_it_until_it_is_done),
		TEST(the_first_error_is_kept),
		TEST(ids_count_up),
		TEST(freed_requests_are_used_again),
		TEST(pins_last_until_the_last_reference),
		TEST(without_the_flag_nothing_is_pinned),
		TEST(a_request_that_fails_unpins_too),
		TEST(a_pin_that_fails_half_way_is_undone),
		TEST(two_requests_share_a_page),
		TEST(completed_requests_are_counted),
	};

	page = sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
