/* A file as a target: real files in a folder of their own, by direct I/O where the file system
 * has it, and through the page cache. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/align.h"
#include "engine/bounce.h"
#include "engine/request.h"
#include "engine/subrequest.h"
#include "fake-target.h"
#include "file/target-file.h"

#define FILE_SIZE  (1u << 20)
#define DEPTH      4
#define BOUNCE_LEN (64u << 10) /* of one subrequest */

/* Of the calls that enter the kernel with a ring, so many fail with this, and none is made. */
static unsigned ring_failures, ring_calls;
static int ring_error;

static bool ring_fails(void)
{
	ring_calls++;
	return ring_failures && ring_failures-- > 0;
}

/* As of a disk that answers all that it has together. */
static bool answers_together;
static unsigned with_disk; /* then: what it has been given, and hasn't answered */

static int count_given(int ret)
{
	with_disk += ret > 0 ? ret : 0;
	return ret;
}

int io_uring_submit(struct io_uring *ring)
{
	int (*next)(struct io_uring *) = dlsym(RTLD_NEXT, "io_uring_submit");

	return ring_fails() ? ring_error : count_given(next(ring));
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
	int (*next)(struct io_uring *, unsigned) = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");

	if (ring_fails())
		return ring_error;
	if (answers_together)
		wait = with_disk + io_uring_sq_ready(ring);
	return count_given(next(ring, wait));
}

/* It takes no time for that, however busy the machine is. */
int clock_gettime(clockid_t id, struct timespec *now)
{
	if (!answers_together)
		return syscall(SYS_clock_gettime, id, now);
	*now = (struct timespec){ .tv_sec = 1 };
	return 0;
}

/* Those that this process calls itself. */
static unsigned syncs;

int fdatasync(int fd)
{
	syncs++;
	return syscall(SYS_fdatasync, fd);
}

static char folder[4096], path[4352];
static unsigned notices, ring_notices;
static char last_notice[512];

static struct target *target;
static struct target_queue *queue;
static uint8_t *bounce; /* DEPTH times BOUNCE_LEN */
static uint8_t *model;  /* what the file should hold */

static void hear(void *opaque, const char *message)
{
	notices++;
	ring_notices += strstr(message, "io_uring") != NULL;
	snprintf(last_notice, sizeof(last_notice), "%s", message);
}

static const struct notice notice = { .tell = hear };

static int make_folder(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/ndio-files-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/disk", folder);
	bounce = aligned_alloc(65536, DEPTH * BOUNCE_LEN);
	model = malloc(FILE_SIZE);
	return bounce && model ? 0 : -1;
}

static int remove_folder(void **state)
{
	free(bounce);
	free(model);
	unlink(path);
	return rmdir(folder);
}

/* Makes the file, size bytes of noise, and the model the same. */
static void make_file(size_t size)
{
	unsigned seed = 5;
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fake_noise(model, FILE_SIZE, &seed);
	assert_int_equal(fwrite(model, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

/* A sparse one. */
static void make_hole(size_t size)
{
	make_file(0);
	assert_int_equal(truncate(path, size), 0);
	memset(model, 0, FILE_SIZE);
}

static int open_file(const char *name, enum direct_mode mode, bool readonly, struct target **to,
		     struct error *err)
{
	return target_file_open(name,
				&(struct target_file_options){
					.direct = mode,
					.readonly = readonly,
					.notice = notice,
				},
				to, err);
}

static void open_target_of_depth(enum direct_mode mode, bool readonly, unsigned depth)
{
	struct error err;

	notices = ring_notices = 0;
	assert_int_equal(open_file(path, mode, readonly, &target, &err), 0);
	queue = target->ops->queue_open(target, depth, (struct bvec){ bounce, DEPTH * BOUNCE_LEN },
					&err);
	assert_non_null(queue);
}

static void open_target(enum direct_mode mode, bool readonly)
{
	open_target_of_depth(mode, readonly, DEPTH);
}

static void close_target(void)
{
	target->ops->queue_close(queue);
	target->ops->close(target);
}

/* For a test of the ring itself: one can be had here. */
static void open_target_with_ring(void)
{
	open_target(DIRECT_AUTO, false);
	if (target->direct && ring_notices == 0)
		return;
	close_target();
	skip();
}

/* What the page cache says is in the file. */
static void assert_file_holds_model(size_t size)
{
	uint8_t *content = malloc(FILE_SIZE + 1);
	FILE *file = fopen(path, "r");

	assert_non_null(file);
	assert_non_null(content);
	assert_int_equal(fread(content, 1, FILE_SIZE + 1, file), size);
	fclose(file);
	fake_assert_same(content, model, size);
	free(content);
}

/* ---- subrequests ---- */

static struct ndio_subrequest sub_of(enum op op, unsigned flags, uint64_t start, uint64_t len,
				     void *base)
{
	return (struct ndio_subrequest){ .op = op,
					 .flags = flags,
					 .start = start,
					 .len = len,
					 .offset = start,
					 .io_base = base,
					 .result = INT64_MIN };
}

/* Issues one and waits until it has landed. Its result. */
static int64_t run(enum op op, unsigned flags, uint64_t start, uint64_t len, void *base)
{
	struct ndio_subrequest sub = sub_of(op, flags, start, len, base);

	target->ops->issue(queue, &sub);
	target->ops->submit(queue);
	assert_ptr_equal(target->ops->poll(queue, true, -1), &sub);
	assert_null(sub.next);
	assert_null(target->ops->poll(queue, false, -1));
	assert_null(target->ops->poll(queue, true, -1));
	return sub.result;
}

static enum direct_mode mode_of(void **state)
{
	return *(const enum direct_mode *)*state;
}

/* ---- both ways ---- */

/* From the bounce memory, which may be registered, and from other memory. */
static void bytes_arrive_where_they_should(void **state)
{
	uint8_t *other = aligned_alloc(65536, BOUNCE_LEN);
	unsigned seed = 1;

	assert_non_null(other);
	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_int_equal(target->size, FILE_SIZE);
	for (unsigned round = 0; round < 200; round++) {
		uint8_t *base = round % 2 ? other : bounce + round % DEPTH * BOUNCE_LEN;
		uint64_t start = round_down(rand_r(&seed) % FILE_SIZE, target->align);
		uint64_t len = round_down(1 + rand_r(&seed) % BOUNCE_LEN, target->align);
		unsigned flags = round % 16 ? 0 : REQ_FUA;

		len = min_u64(len ? len : target->align, FILE_SIZE - start);
		if (round % 3) {
			fake_noise(base, len, &seed);
			memcpy(model + start, base, len);
			assert_int_equal(run(OP_WRITE, flags, start, len, base), len);
		} else {
			memset(base, 0, len);
			assert_int_equal(run(OP_READ, flags, start, len, base), len);
			fake_assert_same(base, model + start, len);
		}
	}
	close_target();
	assert_file_holds_model(FILE_SIZE);
	free(other);
}

/* What nobody has submitted before it is waited for, alone. */
static int64_t run_alone(enum op op, unsigned flags, uint64_t start, uint64_t len, void *base)
{
	struct ndio_subrequest sub = sub_of(op, flags, start, len, base);

	target->ops->issue(queue, &sub);
	assert_ptr_equal(target->ops->poll(queue, true, -1), &sub);
	assert_null(sub.next);
	assert_null(target->ops->poll(queue, true, -1));
	return sub.result;
}

static void one_at_a_time_arrives_too(void **state)
{
	unsigned seed = 1;

	make_file(FILE_SIZE);
	open_target_of_depth(mode_of(state), false, 1);
	for (unsigned round = 0; round < 40; round++) {
		uint64_t len = 4096 * (1 + rand_r(&seed) % (BOUNCE_LEN / 4096));
		uint64_t start = rand_r(&seed) % (FILE_SIZE / 65536) * 65536;

		if (round % 2) {
			fake_noise(bounce, len, &seed);
			memcpy(model + start, bounce, len);
			assert_int_equal(run_alone(OP_WRITE, round % 4 == 1 ? REQ_FUA : 0, start,
						   len, bounce),
					 len);
		} else {
			memset(bounce, 0, len);
			assert_int_equal(run_alone(OP_READ, 0, start, len, bounce), len);
			fake_assert_same(bounce, model + start, len);
		}
	}
	close_target();
	assert_file_holds_model(FILE_SIZE);
	open_target_of_depth(mode_of(state), false, 1);
	assert_int_equal(truncate(path, 5000), 0);
	assert_in_range(run_alone(OP_READ, 0, 0, 8192, bounce), 1, 5000);
	assert_int_equal(run_alone(OP_READ, 0, 65536, 8192, bounce), 0);
	close_target();
}

/* With something in flight, and with nothing. */
static void a_wake_descriptor_ends_the_wait(void **state)
{
	struct ndio_subrequest sub = sub_of(OP_READ, 0, 4096, 4096, bounce);
	int wake_fd = eventfd(1, EFD_CLOEXEC);
	struct ndio_subrequest *landed;

	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_true(wake_fd >= 0);
	alarm(60);
	target->ops->issue(queue, &sub);
	landed = target->ops->poll(queue, false, -1);
	while (!landed)
		landed = target->ops->poll(queue, true, wake_fd);
	assert_ptr_equal(landed, &sub);
	assert_int_equal(sub.result, 4096);
	fake_assert_same(bounce, model + 4096, 4096);
	assert_null(target->ops->poll(queue, true, wake_fd));
	alarm(0);
	close_target();
	close(wake_fd);
}

static void many_are_in_flight_at_once_and_each_lands_once(void **state)
{
	struct ndio_subrequest subs[DEPTH], *landed, *next;
	bool seen[DEPTH];

	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	for (unsigned round = 0; round < 50; round++) {
		unsigned count = 0;

		for (unsigned i = 0; i < DEPTH; i++) {
			seen[i] = false;
			subs[i] = sub_of(OP_READ, 0, (round % 4 * DEPTH + i) * BOUNCE_LEN,
					 BOUNCE_LEN, bounce + i * BOUNCE_LEN);
			target->ops->issue(queue, &subs[i]);
			if (i % 2)
				target->ops->submit(queue);
		}
		while (count < DEPTH) {
			landed = target->ops->poll(queue, true, -1);
			assert_non_null(landed);
			for (; landed; landed = next) {
				unsigned i = landed - subs;

				next = landed->next;
				assert_in_range(i, 0, DEPTH - 1);
				assert_false(seen[i]);
				seen[i] = true;
				count++;
				assert_int_equal(landed->result, BOUNCE_LEN);
				fake_assert_same(landed->io_base, model + landed->start,
						 BOUNCE_LEN);
			}
		}
		assert_null(target->ops->poll(queue, true, -1));
	}
	close_target();
}

/* It is given half of what is wanted, and while what has landed is looked at it has the next. */
static void a_disk_that_answers_together_is_given_half(void **state)
{
	enum { MANY = 16, LEN = BOUNCE_LEN * DEPTH / MANY, ROUNDS = 200 };
	struct ndio_subrequest subs[MANY], *landed, *next;
	unsigned count = 0;

	alarm(60);
	make_file(FILE_SIZE);
	open_target_of_depth(DIRECT_AUTO, false, MANY);
	if (!target->direct || ring_notices) {
		close_target();
		skip();
	}
	answers_together = true;
	with_disk = 0;
	for (unsigned i = 0; i < MANY; i++) {
		subs[i] = sub_of(OP_READ, 0, i * LEN, LEN, bounce + i * LEN);
		target->ops->issue(queue, &subs[i]);
	}
	while (count < MANY * ROUNDS) {
		landed = target->ops->poll(queue, true, -1);
		assert_non_null(landed);
		for (unsigned had = 0; landed; landed = next, had++) {
			unsigned i = landed - subs;

			next = landed->next;
			with_disk--;
			assert_int_equal(subs[i].result, LEN);
			fake_assert_same(subs[i].io_base, model + subs[i].start, LEN);
			count++;
			if (count > MANY * ROUNDS / 2 && count <= MANY * (ROUNDS - 1)) {
				assert_true(had < MANY / 2);
				assert_in_range(next ? 1 : with_disk, 1, MANY / 2);
			}
			subs[i] = sub_of(OP_READ, 0, (count * 7 + i) % MANY * LEN, LEN,
					 bounce + i * LEN);
			if (count <= MANY * (ROUNDS - 1))
				target->ops->issue(queue, &subs[i]);
		}
	}
	answers_together = false;
	alarm(0);
	assert_null(target->ops->poll(queue, true, -1));
	close_target();
}

static void a_queue_that_is_idle_does_not_wait(void **state)
{
	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_null(target->ops->poll(queue, true, -1));
	target->ops->submit(queue);
	assert_null(target->ops->poll(queue, true, -1));
	close_target();
}

static void flush_and_fua_succeed(void **state)
{
	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_true(target->can_flush);
	memset(bounce, 'f', 8192);
	memset(model, 'f', 8192);
	assert_int_equal(run(OP_WRITE, REQ_FUA, 0, 8192, bounce), 8192);
	assert_int_equal(run(OP_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(run(OP_FLUSH, REQ_ASIDE, 0, 0, NULL), 0);
	assert_int_equal(run(OP_ZERO, REQ_FUA, 8192, 4096, NULL), 0);
	memset(model + 8192, 0, 4096);
	close_target();
	assert_file_holds_model(FILE_SIZE);
}

/* The page cache doesn't help: the last block may be there in part. */
static void a_file_that_got_shorter_gives_what_is_left(void **state)
{
	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_int_equal(truncate(path, 5000), 0);
	assert_in_range(run(OP_READ, 0, 0, 8192, bounce), 1, 5000);
	assert_memory_equal(bounce, model, 4096);
	assert_int_equal(run(OP_READ, 0, 65536, 8192, bounce), 0);
	close_target();
}

static void a_request_to_a_file_that_got_shorter_fails(void **state)
{
	const struct channel_options options = { .pieces = 3, .piece_len = BOUNCE_LEN };
	struct volume *volume = calloc(1, sizeof(*volume));
	struct iovec iov = { model, FILE_SIZE };
	struct ndio_request *request;
	struct channel *channel;
	struct bounce memory;

	assert_non_null(volume);
	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	target->ops->queue_close(queue);
	volume->target = target;
	volume->sector = volume->block = target->align;
	volume->size = target->size;
	range_lock_init(&volume->ranges);
	request_cache_init(&volume->requests);
	assert_int_equal(bounce_init(&memory, channel_bounce_len(&options), false, NULL), 0);
	assert_int_equal(channel_open(volume, &options, memory.area, &channel, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(request_make(volume, OP_READ, 0, 0, 0, &iov, 1, &request), 0);
		assert_int_equal(fake_run(channel, request), i ? -EIO : 0);
		request_put(request, REF_CALLER);
		assert_int_equal(truncate(path, FILE_SIZE - 100000), 0);
	}
	channel_close(channel);
	bounce_destroy(&memory);
	volume_close(volume);
}

/* Blocks of the file that are allocated. */
static uint64_t allocated(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_blocks * 512;
}

static void zeroes_are_zero(void **state)
{
	static const unsigned flags[] = { 0, REQ_MAY_TRIM, REQ_FUA, REQ_MAY_TRIM | REQ_FUA };

	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_true(target->can_zero);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t start = i * 200000, len = 100000;

		start = round_down(start, target->align);
		len = round_down(len, target->align);
		assert_int_equal(run(OP_ZERO, flags[i], start, len, NULL), 0);
		memset(model + start, 0, len);
	}
	close_target();
	assert_file_holds_model(FILE_SIZE);
}

/* Or says that it can't be fast, and leaves the bytes alone. */
static void a_fast_zero_is_zero_or_refused(void **state)
{
	int64_t ret;

	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	ret = run(OP_ZERO, REQ_FAST_ZERO, 65536, 65536, NULL);
	if (ret == 0)
		memset(model + 65536, 0, 65536);
	else
		assert_int_equal(ret, -EOPNOTSUPP);
	close_target();
	assert_file_holds_model(FILE_SIZE);
}

/* A file system that has no holes leaves the bytes: a trim is advice. */
static void a_trim_frees_or_does_nothing(void **state)
{
	uint64_t before;

	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_true(target->can_trim);
	assert_int_equal(run(OP_FLUSH, 0, 0, 0, NULL), 0);
	before = allocated();
	assert_int_equal(run(OP_TRIM, 0, 131072, 262144, NULL), 0);
	if (allocated() < before)
		memset(model + 131072, 0, 262144);
	close_target();
	assert_file_holds_model(FILE_SIZE);
}

static void zeroes_and_trims_keep_the_size(void **state)
{
	struct stat st;

	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_int_equal(run(OP_ZERO, 0, FILE_SIZE - 65536, 65536, NULL), 0);
	assert_int_equal(run(OP_TRIM, REQ_FUA, FILE_SIZE - 65536, 65536, NULL), 0);
	close_target();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, FILE_SIZE);
}

/* ---- extents ---- */

/* What a walk has told. */
struct walk {
	uint64_t at; /* where the next extent must start */
	unsigned count;
	uint8_t *is_hole; /* of each 4096 bytes */
	int error;        /* to return from the third one on */
};

static int add_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct walk *walk = opaque;

	assert_int_equal(offset, walk->at);
	assert_true(len > 0);
	walk->at += len;
	for (uint64_t i = offset; i < offset + len; i++)
		walk->is_hole[i / 4096] |= type == (EXTENT_HOLE | EXTENT_ZERO) ? 2 : 1;
	return ++walk->count >= 3 ? walk->error : 0;
}

static int64_t walk_over(struct walk *walk, uint64_t start, uint64_t len)
{
	struct ndio_request request = {
		.start = start, .len = len, .extent = add_extent, .extent_opaque = walk
	};
	struct ndio_subrequest sub = sub_of(OP_EXTENTS, 0, start, len, NULL);

	sub.request = &request;
	sub.offset = start;
	walk->at = start;
	target->ops->issue(queue, &sub);
	assert_ptr_equal(target->ops->poll(queue, true, -1), &sub);
	return sub.result;
}

/* A file with data in the blocks 16 and 40 and nothing else. */
static void open_sparse(enum direct_mode mode)
{
	make_hole(FILE_SIZE);
	open_target(mode, false);
	memset(bounce, 'd', 65536);
	assert_int_equal(run(OP_WRITE, 0, 16 * 4096, 4096, bounce), 4096);
	assert_int_equal(run(OP_WRITE, 0, 40 * 4096, 4096, bounce), 4096);
}

static void extents_cover_what_was_asked_for(void **state)
{
	static const struct {
		uint64_t start, len;
	} asked[] = { { 0, FILE_SIZE },
		      { 100, 70000 },
		      { 16 * 4096 + 5, 10 },
		      { FILE_SIZE - 1, 1 },
		      { 17 * 4096, 23 * 4096 } };
	struct walk walk = { .is_hole = calloc(FILE_SIZE / 4096, 1) };

	assert_non_null(walk.is_hole);
	open_sparse(mode_of(state));
	for (unsigned i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
		uint64_t end = asked[i].start + asked[i].len;

		assert_int_equal(walk_over(&walk, asked[i].start, asked[i].len), 0);
		assert_int_equal(walk.at, end);
	}
	/* That data is a hole would be a lie; a hole that is data is not. */
	assert_int_equal(walk.is_hole[16], 1);
	assert_int_equal(walk.is_hole[40], 1);
	close_target();
	free(walk.is_hole);
}

/* Of the file systems that are known to keep holes. */
static void holes_are_found(void **state)
{
	struct walk walk = { .is_hole = calloc(FILE_SIZE / 4096, 1) };
	struct statfs fs;
	bool keeps_holes;

	assert_non_null(walk.is_hole);
	assert_int_equal(statfs(folder, &fs), 0);
	keeps_holes = fs.f_type == 0xef53 /* ext4 */ || fs.f_type == 0x58465342 /* xfs */ ||
		      fs.f_type == 0x01021994 /* tmpfs */;
	open_sparse(mode_of(state));
	assert_int_equal(walk_over(&walk, 0, FILE_SIZE), 0);
	if (keeps_holes) {
		assert_int_equal(walk.count, 5);
		assert_int_equal(walk.is_hole[0], 2);
		assert_int_equal(walk.is_hole[255], 2);
	}
	close_target();
	free(walk.is_hole);
}

static void an_error_ends_the_walk(void **state)
{
	struct walk walk = { .is_hole = calloc(FILE_SIZE / 4096, 1), .error = -ENOMEM };
	int64_t ret;

	assert_non_null(walk.is_hole);
	open_sparse(mode_of(state));
	ret = walk_over(&walk, 0, FILE_SIZE);
	assert_int_equal(ret, walk.count >= 3 ? -ENOMEM : 0);
	assert_true(walk.count <= 3);
	close_target();
	free(walk.is_hole);
}

/* ---- headers ---- */

static void a_header_is_read_from_any_place(void **state)
{
	static const struct {
		uint64_t offset;
		size_t len;
	} reads[] = { { 0, 1 },
		      { 0, 512 },
		      { 1, 1 },
		      { 511, 2 },
		      { 4095, 4098 },
		      { 12345, 6789 },
		      { 0, FILE_SIZE },
		      { FILE_SIZE - 1, 1 },
		      { FILE_SIZE - 5000, 5000 },
		      { 777, FILE_SIZE - 777 },
		      { 9, 0 } };
	uint8_t *memory = malloc(FILE_SIZE + 1);

	assert_non_null(memory);
	make_file(FILE_SIZE);
	open_target(mode_of(state), true);
	for (unsigned i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
		memset(memory, 0x33, FILE_SIZE + 1);
		assert_int_equal(target_read(target, memory, reads[i].len, reads[i].offset), 0);
		fake_assert_same(memory, model + reads[i].offset, reads[i].len);
		assert_int_equal(memory[reads[i].len], 0x33);
	}
	assert_int_equal(target_read(target, memory, 2, FILE_SIZE - 1), -EIO);
	assert_int_equal(target_read(target, memory, 1, FILE_SIZE + 70000), -EIO);
	close_target();
	free(memory);
}

/* Its end is in the middle of a block. */
static void an_odd_file_is_read_to_its_end(void **state)
{
	const size_t size = 123457;
	uint8_t *memory = malloc(size);

	assert_non_null(memory);
	make_file(size);
	open_target(mode_of(state), true);
	assert_int_equal(target->size, size);
	assert_int_equal(target_read(target, memory, size, 0), 0);
	fake_assert_same(memory, model, size);
	assert_int_equal(target_read(target, memory, 1, size - 1), 0);
	assert_int_equal(memory[0], model[size - 1]);
	assert_int_equal(target_read(target, memory, 2, size - 1), -EIO);
	close_target();
	free(memory);
}

/* ---- opening ---- */

static void a_target_that_is_read_only_takes_no_writes(void **state)
{
	make_file(FILE_SIZE);
	open_target(mode_of(state), true);
	assert_true(target->readonly);
	assert_int_equal(run(OP_READ, 0, 0, 4096, bounce), 4096);
	assert_int_equal(run(OP_WRITE, 0, 0, 4096, bounce), -EBADF);
	assert_true(run(OP_ZERO, 0, 0, 4096, NULL) < 0);
	close_target();
	assert_file_holds_model(FILE_SIZE);
}

/* The superuser may write to any file. */
static void a_file_without_write_permission_is_opened_read_only(void **state)
{
	make_file(FILE_SIZE);
	assert_int_equal(chmod(path, 0444), 0);
	open_target(mode_of(state), false);
	assert_int_equal(target->readonly, access(path, W_OK) != 0);
	assert_int_equal(run(OP_READ, 0, 0, 4096, bounce), 4096);
	close_target();
	assert_int_equal(unlink(path), 0);
}

static void assert_refused(const char *name, enum direct_mode mode, bool readonly, int error,
			   const char *text)
{
	struct error err;
	struct target *none = NULL;

	assert_int_equal(open_file(name, mode, readonly, &none, &err), error);
	assert_null(none);
	assert_string_equal(err.text, text);
}

static void what_is_not_there_is_named(void **state)
{
	char name[sizeof(path) + 64], text[sizeof(name) + 64];

	snprintf(name, sizeof(name), "%s/nothing", folder);
	snprintf(text, sizeof(text), "%s: No such file or directory", name);
	assert_refused(name, mode_of(state), false, -ENOENT, text);
	assert_refused(name, mode_of(state), true, -ENOENT, text);
}

static void only_files_and_block_devices_will_do(void **state)
{
	char text[sizeof(folder) + 64];

	assert_refused("/dev/null", mode_of(state), false, -EINVAL,
		       "/dev/null: not a regular file or block device");
	snprintf(text, sizeof(text), "%s: Is a directory", folder);
	assert_refused(folder, mode_of(state), false, -EISDIR, text);
	snprintf(text, sizeof(text), "%s: not a regular file or block device", folder);
	assert_refused(folder, mode_of(state), true, -EINVAL, text);
}

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void nothing_stays_open(void **state)
{
	unsigned before = open_descriptors();
	struct target *none;
	struct error err;

	make_file(FILE_SIZE);
	open_target(mode_of(state), false);
	assert_true(open_descriptors() > before);
	close_target();
	assert_int_equal(open_descriptors(), before);
	assert_true(open_file("/dev/null", mode_of(state), false, &none, &err) < 0);
	assert_int_equal(open_descriptors(), before);
}

/* ---- ways to open ---- */

static void without_direct_io_nothing_need_be_aligned(void **state)
{
	make_file(12345);
	open_target(DIRECT_OFF, false);
	assert_false(target->direct);
	assert_int_equal(target->align, 1);
	assert_int_equal(target->mem_align, 1);
	assert_true(target->can_cache);
	memcpy(bounce + 3, "odd", 3);
	memcpy(model + 12001, "odd", 3);
	assert_int_equal(run(OP_WRITE, 0, 12001, 3, bounce + 3), 3);
	assert_int_equal(run(OP_READ, 0, 7, 999, bounce + 1), 999);
	assert_memory_equal(bounce + 1, model + 7, 999);
	assert_int_equal(run(OP_CACHE, 0, 1, 12000, NULL), 0);
	assert_int_equal(run(OP_ZERO, 0, 1001, 77, NULL), 0);
	memset(model + 1001, 0, 77);
	close_target();
	assert_file_holds_model(12345);
	assert_int_equal(notices, 0);
}

static void direct_io_says_how_it_must_be_aligned(void **state)
{
	make_file(FILE_SIZE);
	open_target(DIRECT_AUTO, false);
	assert_true(is_aligned(target->align, target->align));
	assert_true(is_aligned(target->mem_align, target->mem_align));
	assert_in_range(target->align, 1, 65536);
	assert_in_range(target->mem_align, 1, 65536);
	assert_true(target->max_len >= target->align);
	assert_true(is_aligned(target->max_len, target->align));
	if (target->direct) {
		assert_false(target->can_cache);
		assert_int_equal(
			run(OP_READ, 0, target->align, target->align, bounce + target->mem_align),
			target->align);
		assert_memory_equal(bounce + target->mem_align, model + target->align,
				    target->align);
	} else {
		assert_non_null(strstr(last_notice, path));
	}
	close_target();
}

/* Issues as many reads as there may be, all but the first while the ring is broken. */
static void read_with_broken_ring(int error, unsigned failures, int64_t expected)
{
	struct ndio_subrequest subs[DEPTH], *landed, *next;
	unsigned count = 0;

	for (unsigned i = 0; i < DEPTH; i++) {
		subs[i] = sub_of(OP_READ, 0, i * BOUNCE_LEN, BOUNCE_LEN, bounce + i * BOUNCE_LEN);
		target->ops->issue(queue, &subs[i]);
		if (i == 0)
			target->ops->submit(queue);
		ring_failures = failures;
		ring_error = error;
	}
	ring_calls = 0;
	target->ops->submit(queue);
	while (count < DEPTH)
		for (landed = target->ops->poll(queue, true, -1); landed; landed = next) {
			next = landed->next;
			count++;
			assert_int_equal(landed->result,
					 landed == &subs[0] ? (int64_t)BOUNCE_LEN : expected);
		}
	ring_failures = 0;
	for (unsigned i = 0; i < DEPTH; i++)
		if (subs[i].result > 0)
			fake_assert_same(subs[i].io_base, model + subs[i].start, BOUNCE_LEN);
}

static void what_can_not_be_submitted_fails(void **state)
{
	static const struct {
		int error;
		unsigned failures;
		bool lasts;
	} cases[] = {
		{ -EBADF, UINT_MAX, true },  { -ENOMEM, UINT_MAX, true },
		{ -EAGAIN, UINT_MAX, true }, { -EBUSY, UINT_MAX, true },
		{ -EINTR, 20, false },       { -EAGAIN, 5, false },
		{ -ENOMEM, 5, false },
	};

	make_file(FILE_SIZE);
	open_target_with_ring();
	alarm(60);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		read_with_broken_ring(cases[i].error, cases[i].failures,
				      cases[i].lasts ? cases[i].error : (int64_t)BOUNCE_LEN);
		assert_true(ring_calls < 1000); /* nobody spins */
		/* And the ring is as it was. */
		assert_int_equal(run(OP_READ, 0, 4096, 8192, bounce), 8192);
		fake_assert_same(bounce, model + 4096, 8192);
	}
	alarm(0);
	close_target();
}

/* Where nothing is to be sent but the wake descriptor. */
static void a_broken_ring_can_be_woken(void **state)
{
	int wake_fd;

	make_file(FILE_SIZE);
	open_target_with_ring();
	wake_fd = eventfd(1, EFD_CLOEXEC);
	alarm(60);
	ring_failures = UINT_MAX;
	ring_error = -EBADF;
	assert_null(target->ops->poll(queue, true, wake_fd));
	ring_failures = 0;
	assert_null(target->ops->poll(queue, true, wake_fd));
	alarm(0);
	close_target();
	close(wake_fd);
}

static void a_flush_that_is_aside_is_not_waited_for_when_it_is_issued(void **state)
{
	struct ndio_subrequest flush = sub_of(OP_FLUSH, REQ_ASIDE, 0, 0, NULL);
	struct ndio_subrequest read = sub_of(OP_READ, 0, 4096, 4096, bounce);
	unsigned landed = 0;

	make_file(FILE_SIZE);
	open_target_with_ring();
	syncs = 0;
	target->ops->issue(queue, &flush);
	target->ops->issue(queue, &read);
	while (landed < 2)
		for (struct ndio_subrequest *sub = target->ops->poll(queue, true, -1); sub;
		     sub = sub->next)
			landed++;
	assert_int_equal(flush.result, 0);
	assert_int_equal(read.result, 4096);
	assert_int_equal(syncs, 0);
	assert_int_equal(run(OP_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(syncs, 1);
	close_target();
}

/* A ring needs a descriptor. */
static void without_a_ring_it_works_all_the_same(void **state)
{
	struct rlimit limit, none;

	make_file(FILE_SIZE);
	open_target(DIRECT_AUTO, false);
	target->ops->queue_close(queue);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = (struct rlimit){ 0, limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	for (unsigned i = 0; i < 2; i++) {
		queue = target->ops->queue_open(target, DEPTH, (struct bvec){ bounce, BOUNCE_LEN },
						NULL);
		assert_non_null(queue);
		memset(bounce, 'r', 8192);
		memset(model + 4096, 'r', 8192);
		assert_int_equal(run(OP_WRITE, REQ_FUA, 4096, 8192, bounce), 8192);
		assert_int_equal(run(OP_READ, 0, 8192, 65536, bounce), 65536);
		assert_memory_equal(bounce, model + 8192, 65536);
		if (i == 0)
			target->ops->queue_close(queue);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(ring_notices, target->direct);
	close_target();
	assert_file_holds_model(FILE_SIZE);
}

/* A file in /proc is a regular one, and never takes direct I/O. */
static void where_direct_io_is_refused_it_is_said(void **state)
{
	struct target *proc;
	struct error err;

	notices = 0;
	assert_int_equal(open_file("/proc/version", DIRECT_AUTO, true, &proc, &err), 0);
	assert_int_equal(notices, 1);
	assert_non_null(strstr(last_notice, "/proc/version: "));
	assert_non_null(strstr(last_notice, "direct I/O"));
	assert_false(proc->direct);
	assert_int_equal(proc->align, 1);
	proc->ops->close(proc);

	assert_int_equal(open_file("/proc/version", DIRECT_ON, true, &proc, &err), -EINVAL);
	assert_non_null(strstr(err.text, "/proc/version: "));
	assert_non_null(strstr(err.text, "direct"));
	assert_int_equal(notices, 1);

	assert_int_equal(open_file("/proc/version", DIRECT_OFF, true, &proc, &err), 0);
	assert_int_equal(notices, 1);
	proc->ops->close(proc);
}

int main(void)
{
	static const struct {
		const char *name;
		CMUnitTestFunction test;
	} every[] = {
#define EACH(test) { #test, test }
		EACH(bytes_arrive_where_they_should),
		EACH(one_at_a_time_arrives_too),
		EACH(a_wake_descriptor_ends_the_wait),
		EACH(many_are_in_flight_at_once_and_each_lands_once),
		EACH(a_queue_that_is_idle_does_not_wait),
		EACH(flush_and_fua_succeed),
		EACH(a_file_that_got_shorter_gives_what_is_left),
		EACH(a_request_to_a_file_that_got_shorter_fails),
		EACH(zeroes_are_zero),
		EACH(a_fast_zero_is_zero_or_refused),
		EACH(a_trim_frees_or_does_nothing),
		EACH(zeroes_and_trims_keep_the_size),
		EACH(extents_cover_what_was_asked_for),
		EACH(holes_are_found),
		EACH(an_error_ends_the_walk),
		EACH(a_header_is_read_from_any_place),
		EACH(an_odd_file_is_read_to_its_end),
		EACH(a_target_that_is_read_only_takes_no_writes),
		EACH(a_file_without_write_permission_is_opened_read_only),
		EACH(what_is_not_there_is_named),
		EACH(only_files_and_block_devices_will_do),
		EACH(nothing_stays_open),
#undef EACH
	};
	enum { EVERY = sizeof(every) / sizeof(every[0]) };
	static const enum direct_mode modes[] = { DIRECT_AUTO, DIRECT_OFF };
	enum { SINGLE = 6 };
	static struct CMUnitTest tests[2 * EVERY + SINGLE] = {
		cmocka_unit_test(without_a_ring_it_works_all_the_same),
		cmocka_unit_test(what_can_not_be_submitted_fails),
		cmocka_unit_test(a_broken_ring_can_be_woken),
		cmocka_unit_test(a_disk_that_answers_together_is_given_half),
		cmocka_unit_test(a_flush_that_is_aside_is_not_waited_for_when_it_is_issued),
		cmocka_unit_test(without_direct_io_nothing_need_be_aligned),
		cmocka_unit_test(direct_io_says_how_it_must_be_aligned),
		cmocka_unit_test(where_direct_io_is_refused_it_is_said),
	};
	static char names[2 * EVERY][128];

	for (unsigned i = 0; i < 2 * EVERY; i++) {
		snprintf(names[i], sizeof(names[i]), "%s (%s)", every[i / 2].name,
			 i % 2 ? "buffered" : "direct");
		tests[SINGLE + i] = (struct CMUnitTest){
			.name = names[i],
			.test_func = every[i / 2].test,
			.initial_state = (void *)&modes[i % 2],
		};
	}
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
