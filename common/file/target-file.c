#include "file/target-file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/align.h"
#include "base/clock.h"
#include "base/sysfs.h"
#include "engine/subrequest.h"
#include "file/image-lock.h"
#include "file/pace.h"

#define DEFAULT_ALIGN 4096          /* where nobody tells: no disk's sectors are larger */
#define MAX_ALIGN     65536         /* more is no alignment but nonsense */
#define MAX_LEN       (1024 * 1024) /* a direct read or write larger than this gains nothing */
#define ZERO_CHUNK    (1024 * 1024)
#define RING_WORKERS  4   /* kernel threads a ring may use for what would block */
#define RING_TRIES    100 /* for what may pass, */
#define RING_NAP      10  /* ms apart */
#define RING_FD       0   /* the files that are registered with it */
#define RING_SYNC_FD  1

struct file_target {
	struct target target;
	int fd;
	int sync_fd; /* another open file of the same, for all that syncs: what is found out by a
			write that doesn't is told by this one too */
	int tail_fd; /* another through the page cache, where direct I/O can't reach the end; or -1 */
	uint64_t tail; /* bytes: what is from here on goes that way; the size if nothing does */
	uint64_t least_size; /* see struct target_file_options */
	bool block_device;
	struct notice notice;
	struct image_lock *lock; /* or NULL */
	bool fua_by_sync;        /* RWF_DSYNC is only handed on (FUSE): who knows if it is heeded */
	int write_error;   /* why it was opened read-only though nobody asked for that, or 0 */
	bool noticed_ring; /* said once, not once a queue */
};

struct target_queue {
	struct file_target *file;
	struct io_uring ring;
	bool has_ring;
	bool has_buffers; /* bounce is registered with the ring */
	bool wake_armed;  /* the ring waits for the wake descriptor too */
	struct bvec bounce;
	unsigned in_flight; /* in the ring */
	/* For the ring, once the disk is to have them: oldest first. */
	struct ndio_subrequest *held, **held_end;
	unsigned nr_held;
	struct pace pace;
	unsigned ring_entries;
	unsigned failures; /* of entering the kernel with the ring, one after the other */
	struct landed landed;
};

static struct file_target *to_file(struct target *target)
{
	return (struct file_target *)target;
}

/* ---- reads and writes ---- */

/* result, or the error of the fdatasync that FUA asks for. */
static int64_t sync_if_fua(const struct file_target *file, const struct ndio_subrequest *sub,
			   int64_t result)
{
	return (sub->flags & REQ_FUA) && fdatasync(file->sync_fd) < 0 ? -errno : result;
}

/* Of one that reaches into the tail, what is before it: it is asked for the rest by itself. */
static uint64_t direct_part(const struct file_target *file, const struct ndio_subrequest *sub)
{
	return file->tail_fd < 0 ? sub->len : min_u64(sub->len, file->tail - sub->start);
}

static bool is_in_tail(const struct file_target *file, const struct ndio_subrequest *sub)
{
	return file->tail_fd >= 0 && sub->start >= file->tail;
}

/* Whole blocks, of which the file has the last in part: what it hasn't reads as zeroes, and isn't
 * written. */
static int64_t transfer_tail(const struct file_target *file, const struct ndio_subrequest *sub)
{
	size_t len = min_u64(sub->len, file->target.size - sub->start);
	ssize_t n;

	do {
		if (sub->op == OP_READ)
			n = pread(file->tail_fd, sub->io_base, len, sub->start);
		else
			n = pwrite(file->tail_fd, sub->io_base, len, sub->start);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if ((size_t)n < len)
		return n; /* the file is shorter than it was */
	if (sub->op == OP_READ)
		memset((uint8_t *)sub->io_base + len, 0, sub->len - len);
	return sub->op == OP_WRITE ? sync_if_fua(file, sub, sub->len) : (int64_t)sub->len;
}

/* Blocks until it is done, for a part of it at least. */
static int64_t transfer(const struct file_target *file, const struct ndio_subrequest *sub)
{
	const struct iovec iov = { sub->io_base, direct_part(file, sub) };
	ssize_t n;

	if (is_in_tail(file, sub))
		return transfer_tail(file, sub);
	do {
		if (sub->op == OP_READ)
			n = pread(file->fd, sub->io_base, iov.iov_len, sub->start);
		else if (sub->flags & REQ_FUA)
			n = pwritev2(file->sync_fd, &iov, 1, sub->start, RWF_DSYNC);
		else
			n = pwrite(file->fd, sub->io_base, iov.iov_len, sub->start);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return sub->op == OP_WRITE && file->fua_by_sync ? sync_if_fua(file, sub, n) : n;
}

static bool in_bounce(const struct target_queue *queue, const void *base)
{
	const uint8_t *at = base, *area = queue->bounce.base;

	return at >= area && at < area + queue->bounce.len;
}

static void ring_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring);
	bool fixed = queue->has_buffers && in_bounce(queue, sub->io_base);
	bool fua = sub->op == OP_WRITE && (sub->flags & REQ_FUA);
	int fd = fua ? RING_SYNC_FD : RING_FD;
	unsigned len = direct_part(queue->file, sub);

	assert(sqe); /* the ring is as deep as the channel has subrequests */
	if (sub->op == OP_READ && fixed)
		io_uring_prep_read_fixed(sqe, fd, sub->io_base, len, sub->start, 0);
	else if (sub->op == OP_READ)
		io_uring_prep_read(sqe, fd, sub->io_base, len, sub->start);
	else if (fixed)
		io_uring_prep_write_fixed(sqe, fd, sub->io_base, len, sub->start, 0);
	else
		io_uring_prep_write(sqe, fd, sub->io_base, len, sub->start);
	if (fua)
		sqe->rw_flags = RWF_DSYNC;
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, sub);
	queue->in_flight++;
}

/* ---- everything else, by blocking system calls ---- */

static int allocate(const struct file_target *file, int mode, const struct ndio_subrequest *sub)
{
	int ret;

	do
		ret = fallocate(file->fd, mode, sub->start, sub->len);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

static int punch(const struct file_target *file, const struct ndio_subrequest *sub)
{
	return allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, sub);
}

static uint32_t logical_block(const struct file_target *file)
{
	int size;

	return ioctl(file->fd, BLKSSZGET, &size) == 0 ? size : DEFAULT_ALIGN;
}

/* The whole logical blocks of a device inside: its own operations take nothing less, even where
 * the page cache takes any byte. All of it for a file. */
static struct ndio_subrequest whole_blocks(const struct file_target *file,
					   const struct ndio_subrequest *sub)
{
	uint64_t block = file->block_device ? logical_block(file) : 1;
	uint64_t end = round_down(sub->start + sub->len, block);
	struct ndio_subrequest whole = *sub;

	whole.start = round_up(sub->start, block);
	whole.len = end > whole.start ? end - whole.start : 0;
	return whole;
}

static int trim(const struct file_target *file, const struct ndio_subrequest *sub)
{
	struct ndio_subrequest whole = whole_blocks(file, sub);
	uint64_t range[2] = { whole.start, whole.len };
	int ret;

	if (whole.len == 0)
		return 0;
	if (file->block_device)
		ret = ioctl(file->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	else
		ret = punch(file, &whole);
	if (ret == -EOPNOTSUPP)
		ret = 0; /* a trim is advice */
	return ret;
}

static int write_zeroes(const struct file_target *file, const struct ndio_subrequest *sub)
{
	size_t chunk = min_u64(sub->len, ZERO_CHUNK);
	struct ndio_subrequest part = { .op = OP_WRITE, .start = sub->start };
	uint64_t end = sub->start + sub->len;
	int64_t n = 0;

	part.io_base = aligned_alloc(MAX_ALIGN, round_up(chunk, MAX_ALIGN));
	if (!part.io_base)
		return -ENOMEM;
	memset(part.io_base, 0, chunk);
	while (part.start < end) {
		part.len = min_u64(chunk, end - part.start);
		n = transfer(file, &part);
		if (n <= 0)
			break;
		part.start += n;
	}
	free(part.io_base);
	return part.start < end ? (n < 0 ? n : -EIO) : 0;
}

/* On a block device only a hole is known to be fast: the kernel doesn't fall back to writing
 * for that call, as it does for BLKZEROOUT. */
static int zero_whole(const struct file_target *file, const struct ndio_subrequest *sub)
{
	bool fast = sub->flags & REQ_FAST_ZERO;
	uint64_t range[2] = { sub->start, sub->len };
	int ret = -EOPNOTSUPP;

	if (sub->flags & REQ_MAY_TRIM)
		ret = punch(file, sub);
	if (ret != -EOPNOTSUPP)
		return ret;
	if (file->block_device)
		return fast ? ret : ioctl(file->fd, BLKZEROOUT, range) < 0 ? -errno : 0;
	ret = allocate(file, FALLOC_FL_ZERO_RANGE, sub);
	return ret == -EOPNOTSUPP && !fast ? write_zeroes(file, sub) : ret;
}

static int zero(const struct file_target *file, const struct ndio_subrequest *sub)
{
	struct ndio_subrequest whole = whole_blocks(file, sub);
	struct ndio_subrequest head = *sub, tail = *sub;
	int ret;

	if (whole.len == 0)
		return write_zeroes(file, sub);
	head.len = whole.start - sub->start;
	tail.start = whole.start + whole.len;
	tail.len = sub->start + sub->len - tail.start;
	ret = zero_whole(file, &whole);
	if (ret == 0 && head.len)
		ret = write_zeroes(file, &head);
	if (ret == 0 && tail.len)
		ret = write_zeroes(file, &tail);
	return ret;
}

/* SEEK_DATA and SEEK_HOLE take and give absolute places, so threads that share the descriptor's
 * position don't disturb each other. */
static int extents(const struct file_target *file, const struct ndio_subrequest *sub)
{
	uint64_t pos = sub->start, end = sub->start + sub->len;
	int ret = 0;

	while (pos < end && ret == 0) {
		off_t data = lseek(file->fd, pos, SEEK_DATA);
		off_t next;
		bool hole;

		if (data < 0 && errno != ENXIO)
			return -errno;
		hole = data < 0 || (uint64_t)data > pos;
		next = data < 0 ? (off_t)end : data;
		if (!hole) {
			next = lseek(file->fd, pos, SEEK_HOLE);
			if (next < 0)
				return -errno;
		}
		if ((uint64_t)next > end)
			next = end;
		if ((uint64_t)next <= pos)
			return -EIO; /* the file shrinks under us */
		ret = subrequest_tell_extent(sub, pos - sub->start, next - pos,
					     hole ? EXTENT_HOLE | EXTENT_ZERO : 0);
		pos = next;
	}
	return ret;
}

static int without_data(const struct file_target *file, const struct ndio_subrequest *sub)
{
	int ret;

	switch (sub->op) {
	case OP_FLUSH:
		return fdatasync(file->sync_fd) < 0 ? -errno : 0;
	case OP_TRIM:
		ret = trim(file, sub);
		return ret < 0 ? ret : sync_if_fua(file, sub, ret);
	case OP_ZERO:
		ret = zero(file, sub);
		return ret < 0 ? ret : sync_if_fua(file, sub, ret);
	case OP_CACHE:
		return -posix_fadvise(file->fd, sub->start, sub->len, POSIX_FADV_WILLNEED);
	case OP_EXTENTS:
		return extents(file, sub);
	default:
		return -EINVAL;
	}
}

/* ---- the queue ---- */

static void hold_back(struct target_queue *queue, struct ndio_subrequest *sub)
{
	sub->next = NULL;
	*(queue->held ? queue->held_end : &queue->held) = sub;
	queue->held_end = &sub->next;
	queue->nr_held++;
}

/* The ring gets as many as the disk is to have now. */
static void ring_feed(struct target_queue *queue)
{
	unsigned room = pace_room(&queue->pace, queue->in_flight, queue->nr_held, clock_ns());

	for (; room > 0; room--) {
		struct ndio_subrequest *sub = queue->held;

		queue->held = sub->next;
		queue->nr_held--;
		ring_issue(queue, sub);
	}
}

/* By a thread of the kernel's: so a flush that nobody waits for doesn't hold up what else the queue does. */
static void ring_flush(struct target_queue *queue, struct ndio_subrequest *sub)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring);

	assert(sqe);
	io_uring_prep_fsync(sqe, RING_SYNC_FD, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, sub);
	queue->in_flight++;
}

static void file_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	if (queue->has_ring && sub->op == OP_FLUSH && (sub->flags & REQ_ASIDE)) {
		ring_flush(queue, sub);
	} else if (!op_carries_data(sub->op)) {
		sub->result = without_data(queue->file, sub);
		landed_add(&queue->landed, sub);
	} else if (queue->has_ring && !is_in_tail(queue->file, sub)) {
		hold_back(queue, sub);
	} else {
		sub->result = transfer(queue->file, sub);
		landed_add(&queue->landed, sub);
	}
}

static void file_submit(struct target_queue *queue)
{
	/* What couldn't be submitted now goes with the next submit() or poll(): see ring_enter(). */
	if (queue->has_ring) {
		ring_feed(queue);
		io_uring_submit(&queue->ring);
	}
}

static void ring_reap(struct target_queue *queue)
{
	const unsigned in_flight = queue->in_flight;
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(&queue->ring, head, cqe)
	{
		struct ndio_subrequest *sub = io_uring_cqe_get_data(cqe);

		seen++;
		if (!sub) {
			queue->wake_armed = false;
			continue;
		}
		queue->in_flight--;
		sub->result = cqe->res;
		/* The ring couldn't do it without blocking, or was disturbed: this thread can. */
		if (sub->result == -EAGAIN || sub->result == -EINTR)
			sub->result = op_carries_data(sub->op) ? transfer(queue->file, sub) :
								 without_data(queue->file, sub);
		else if (sub->result > 0 && sub->op == OP_WRITE && queue->file->fua_by_sync)
			sub->result = sync_if_fua(queue->file, sub, sub->result);
		landed_add(&queue->landed, sub);
	}
	io_uring_cq_advance(&queue->ring, seen);
	pace_landed(&queue->pace, in_flight - queue->in_flight, in_flight, clock_ns());
}

/* What the kernel hasn't taken lands with the error, and the ring forgets it: the kernel looks at
 * the queue only when it is entered, which no other thread does. */
static void ring_withdraw(struct target_queue *queue, int error)
{
	struct io_uring_sq *sq = &queue->ring.sq;
	unsigned count = io_uring_sq_ready(&queue->ring);

	sq->sqe_tail -= count;
	for (unsigned i = 0; i < count; i++) {
		const struct io_uring_sqe *sqe =
			&sq->sqes[(sq->sqe_tail + i) & (queue->ring_entries - 1)];
		struct ndio_subrequest *sub = (struct ndio_subrequest *)(uintptr_t)sqe->user_data;

		if (!sub) {
			queue->wake_armed = false;
			continue;
		}
		queue->in_flight--;
		sub->result = error;
		landed_add(&queue->landed, sub);
	}
	sq->sqe_head = sq->sqe_tail;
	io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
}

/* Sends what is queued, and with wait sleeps until something has landed, or for a nap if the kernel
 * refuses to be entered. For what may pass (it is short of memory) it is tried for a second. */
static void ring_enter(struct target_queue *queue, bool wait, int wake_fd)
{
	struct pollfd wake = { .fd = wake_fd, .events = POLLIN };
	int ret = io_uring_submit_and_wait(&queue->ring, wait);
	bool passes = ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM;

	if (ret >= 0 || ret == -EINTR) {
		queue->failures = 0;
		return;
	}
	if (io_uring_cq_ready(&queue->ring))
		return; /* these first */
	if (!passes || ++queue->failures >= RING_TRIES) {
		ring_withdraw(queue, ret);
		queue->failures = 0;
	}
	/* What the kernel has lands by itself. */
	if (wait && !queue->landed.first)
		poll(&wake, 1, queue->in_flight ? RING_NAP : -1);
}

/* Puts the descriptor among what the ring waits for, once until it was seen. */
static void arm_wake(struct target_queue *queue, int wake_fd)
{
	struct io_uring_sqe *sqe;

	if (queue->wake_armed)
		return;
	sqe = io_uring_get_sqe(&queue->ring);
	assert(sqe);
	io_uring_prep_poll_add(sqe, wake_fd, POLLIN);
	io_uring_sqe_set_data(sqe, NULL);
	queue->wake_armed = true;
}

static struct ndio_subrequest *file_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	wait = wait && !queue->landed.first;
	if (queue->has_ring)
		ring_feed(queue);
	if (queue->has_ring && (queue->in_flight || wake_fd >= 0)) {
		if (wait && wake_fd >= 0)
			arm_wake(queue, wake_fd);
		ring_enter(queue, wait, wake_fd);
		ring_reap(queue);
		/* The disk is at these while the caller is at what has landed. */
		if (queue->held)
			file_submit(queue);
	} else if (wait && wake_fd >= 0) {
		poll(&(struct pollfd){ .fd = wake_fd, .events = POLLIN }, 1, -1);
	}
	return landed_take(&queue->landed);
}

/* A disk answers by itself. */
static void file_cancel(struct target_queue *queue)
{
	(void)queue;
}

static int ring_open(struct target_queue *queue, unsigned depth)
{
	struct io_uring_params params = { .flags = IORING_SETUP_COOP_TASKRUN };
	unsigned workers[2] = { RING_WORKERS, RING_WORKERS };
	const int fds[] = { [RING_FD] = queue->file->fd, [RING_SYNC_FD] = queue->file->sync_fd };
	int ret;

	depth += 1; /* for the wake descriptor */
	ret = io_uring_queue_init_params(depth, &queue->ring, &params);
	if (ret == -EINVAL) { /* before Linux 5.19 */
		params.flags = 0;
		ret = io_uring_queue_init_params(depth, &queue->ring, &params);
	}
	if (ret < 0)
		return ret;
	queue->ring_entries = params.sq_entries;
	ret = io_uring_register_files(&queue->ring, fds, 2);
	if (ret < 0) {
		io_uring_queue_exit(&queue->ring);
		return ret;
	}
	io_uring_register_iowq_max_workers(&queue->ring, workers);
	return 0;
}

static void set_up_ring(struct target_queue *queue, unsigned depth)
{
	struct file_target *file = queue->file;
	struct iovec area = { queue->bounce.base, queue->bounce.len };
	int ret = ring_open(queue, depth);

	queue->has_ring = ret == 0;
	if (ret < 0) {
		if (!file->noticed_ring)
			notice_tell(&file->notice,
				    "%s: io_uring is refused (%s): using preadv and pwritev",
				    file->target.name, strerror(-ret));
		file->noticed_ring = true;
		return;
	}
	/* Refused where the locked-memory limit is low, which costs some percent of CPU time. */
	queue->has_buffers =
		area.iov_len > 0 && io_uring_register_buffers(&queue->ring, &area, 1) == 0;
}

static struct target_queue *file_queue_open(struct target *target, unsigned depth,
					    struct bvec bounce, struct error *err)
{
	struct target_queue *queue = calloc(1, sizeof(*queue));

	if (!queue) {
		error_set(err, ENOMEM, "%s: no memory for a queue", target->name);
		return NULL;
	}
	queue->file = to_file(target);
	queue->bounce = bounce;
	/* One subrequest at a time is a plain system call: the ring would put its result aside and
	 * wake the thread for it. And buffered I/O would only be handed to a kernel thread. */
	if (target->direct && depth > 1)
		set_up_ring(queue, depth);
	return queue;
}

static void file_queue_close(struct target_queue *queue)
{
	assert(queue->in_flight == 0 && !queue->held && !queue->landed.first);
	/* The kernel takes a ring down some time later; until then its buffers would count
	 * against the locked-memory limit. */
	if (queue->has_buffers)
		io_uring_unregister_buffers(&queue->ring);
	if (queue->has_ring) {
		io_uring_unregister_files(&queue->ring); /* likewise, the file would stay open */
		io_uring_queue_exit(&queue->ring);
	}
	free(queue);
}

/* ---- opening ---- */

static int64_t file_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	const struct ndio_subrequest part = {
		.op = OP_READ,
		.start = offset,
		.len = len,
		.io_base = buf,
	};

	int64_t n;

	if (offset >= target->size)
		return 0;
	n = transfer(to_file(target), &part);
	return n < 0 ? n : (int64_t)min_u64(n, target->size - offset);
}

static void close_fds(struct file_target *file)
{
	if (file->tail_fd >= 0)
		close(file->tail_fd);
	if (file->sync_fd >= 0 && file->sync_fd != file->fd)
		close(file->sync_fd);
	if (file->fd >= 0)
		close(file->fd);
	file->fd = file->sync_fd = file->tail_fd = -1;
}

static void file_close(struct target *target)
{
	struct file_target *file = to_file(target);

	image_lock_release(file->lock);
	close_fds(file);
	free(target->name);
	free(file);
}

static const struct target_ops file_ops = {
	.read = file_read,
	.queue_open = file_queue_open,
	.queue_close = file_queue_close,
	.issue = file_issue,
	.submit = file_submit,
	.poll = file_poll,
	.cancel = file_cancel,
	.close = file_close,
};

/* Opens for writing, or else for reading. O_DIRECT if asked: -EINVAL where it is refused. */
static int open_fd(struct file_target *file, bool readonly, bool direct)
{
	int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (direct ? O_DIRECT : 0);

	file->fd = -1;
	if (!readonly)
		file->fd = open(file->target.name, flags | O_RDWR);
	if (file->fd < 0 && (readonly || errno == EACCES || errno == EROFS || errno == EPERM)) {
		file->write_error = readonly ? 0 : errno;
		file->fd = open(file->target.name, flags | O_RDONLY);
		file->target.readonly = true;
	}
	file->target.direct = direct;
	if (file->fd < 0)
		return -errno;
	/* A FIFO must not hold the open up; but the ring must not give up instead of waiting. */
	return fcntl(file->fd, F_SETFL, direct ? O_DIRECT : 0) < 0 ? -errno : 0;
}

/* The same file once more, through the page cache or not. */
static int open_again(const struct file_target *file, int direct_flag, int *fd, struct error *err)
{
	const char *name = file->target.name;
	int mode = file->target.readonly ? O_RDONLY : O_RDWR;
	struct stat first, second;

	*fd = open(name, O_CLOEXEC | O_NOCTTY | direct_flag | mode);
	if (*fd < 0)
		return error_set(err, errno, "%s: opening it once more: %s", name, strerror(errno));
	if (fstat(file->fd, &first) < 0 || fstat(*fd, &second) < 0)
		return error_set(err, errno, "%s: %s", name, strerror(errno));
	if (first.st_dev != second.st_dev || first.st_ino != second.st_ino)
		return error_set(err, EBUSY, "%s: it was replaced while it was opened", name);
	return 0;
}

/* Who only reads has nothing to sync. */
static int open_sync_fd(struct file_target *file, struct error *err)
{
	file->sync_fd = file->fd;
	if (file->target.readonly)
		return 0;
	return open_again(file, file->target.direct ? O_DIRECT : 0, &file->sync_fd, err);
}

/* Direct I/O is of whole blocks, and the last one may be there in part. It and what else is in its
 * page go through the page cache, so that nothing goes both ways: the kernel keeps both the same
 * only where they don't race for a page. */
static int open_tail(struct file_target *file, struct error *err)
{
	struct target *target = &file->target;
	uint64_t page = sysconf(_SC_PAGESIZE);

	target->any_size = true;
	file->tail = target->size;
	if (is_aligned(target->size, target->align))
		return 0;
	file->tail = round_down(target->size, page > target->align ? page : target->align);
	return open_again(file, 0, &file->tail_fd, err);
}

static int find_kind_and_size(struct file_target *file, struct error *err)
{
	struct target *target = &file->target;
	struct stat st;
	int readonly;

	if (fstat(file->fd, &st) < 0)
		return error_set(err, errno, "%s: %s", target->name, strerror(errno));
	if (S_ISREG(st.st_mode)) {
		target->size = st.st_size;
		if (!target->readonly && target->size < file->least_size)
			target->size = file->least_size;
		return 0;
	}
	if (!S_ISBLK(st.st_mode))
		return error_set(err, EINVAL, "%s: not a regular file or block device",
				 target->name);
	file->block_device = true;
	/* Linux lets a read-only device be opened for writing, and fails each write. */
	if (!target->readonly && ioctl(file->fd, BLKROGET, &readonly) == 0 && readonly) {
		target->readonly = true;
		file->write_error = EROFS;
	}
	if (ioctl(file->fd, BLKGETSIZE64, &target->size) < 0)
		return error_set(err, errno, "%s: can't tell its size: %s", target->name,
				 strerror(errno));
	return 0;
}

/* What direct I/O must be aligned to: as statx reports; else the logical block, else a page.
 * -EINVAL where statx says that there is no direct I/O. */
static int find_alignment(struct file_target *file)
{
	struct target *target = &file->target;
	struct statx stx;

	target->align = target->mem_align = DEFAULT_ALIGN;
	if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN)) {
		if (stx.stx_dio_offset_align == 0)
			return -EINVAL;
		target->align = stx.stx_dio_offset_align;
		target->mem_align = stx.stx_dio_mem_align;
	} else if (file->block_device) {
		target->align = target->mem_align = logical_block(file);
	}
	if (target->align > MAX_ALIGN || !is_aligned(target->align, target->align) ||
	    target->align == 0 || target->mem_align > MAX_ALIGN || target->mem_align == 0)
		return -EINVAL;
	return 0;
}

/* Some file systems take O_DIRECT and then refuse each read. */
static int try_direct(struct file_target *file)
{
	struct ndio_subrequest part = { .op = OP_READ };
	int64_t n;
	int ret = find_alignment(file);

	if (ret < 0)
		return ret;
	part.len = file->target.align;
	part.io_base = aligned_alloc(MAX_ALIGN, MAX_ALIGN);
	if (!part.io_base)
		return 0;
	n = transfer(file, &part); /* there is no tail yet */
	free(part.io_base);
	return n == -EINVAL ? -EINVAL : 0; /* other errors are for the request that meets them */
}

/* Opens, and finds out what it is. -EINVAL without a message: direct I/O is refused. */
static int open_once(struct file_target *file, bool readonly, bool direct, struct error *err)
{
	struct target *target = &file->target;
	int ret = open_fd(file, readonly, direct);

	if (ret == -EINVAL && direct)
		return ret;
	if (ret < 0)
		return error_set(err, -ret, "%s: %s", target->name, strerror(-ret));
	ret = find_kind_and_size(file, err);
	if (ret == 0)
		ret = open_sync_fd(file, err);
	if (ret < 0)
		return ret;
	if (direct) {
		ret = try_direct(file);
		return ret < 0 ? ret : open_tail(file, err);
	}
	target->align = target->mem_align = 1;
	return 0;
}

bool direct_mode_parse(const char *word, enum direct_mode *mode)
{
	static const char *const words[] = {
		[DIRECT_AUTO] = "auto",
		[DIRECT_ON] = "on",
		[DIRECT_OFF] = "off",
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(word, words[i]) == 0) {
			*mode = i;
			return true;
		}
	return false;
}

static int open_mode(struct file_target *file, enum direct_mode mode, bool readonly,
		     struct error *err)
{
	const char *name = file->target.name;
	int ret;

	if (mode != DIRECT_OFF) {
		ret = open_once(file, readonly, true, err);
		if (ret != -EINVAL || err->text[0])
			return ret;
		close_fds(file);
	}
	ret = open_once(file, readonly, false, err);
	if (ret < 0 || mode == DIRECT_OFF)
		return ret;
	if (mode == DIRECT_ON)
		return error_set(err, EINVAL,
				 "%s: the file system refuses direct I/O (direct=auto "
				 "or direct=off goes through the page cache)",
				 name);
	notice_tell(&file->notice,
		    "%s: the file system refuses direct I/O: going through the page "
		    "cache",
		    name);
	return 0;
}

/* Is this attribute of the device's request queue there and not 0? A partition's queue is its
 * disk's. */
static bool queue_flag(dev_t device, const char *name)
{
	static const char path[] = "/sys/dev/block/%u:%u/%s/%s";
	unsigned major = major(device), minor = minor(device);
	char line[32];

	return (sysfs_line(line, sizeof(line), path, major, minor, "queue", name) ||
		sysfs_line(line, sizeof(line), path, major, minor, "../queue", name)) &&
	       strtoull(line, NULL, 10) > 0;
}

static void find_capabilities(struct file_target *file)
{
	struct target *target = &file->target;
	struct statfs fs;
	struct stat st;

	file->fua_by_sync = fstatfs(file->fd, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC;
	target->atomic = target->direct && file->tail_fd < 0 ? target->align : 1;
	target->max_len = MAX_LEN;
	target->max_other = UINT64_MAX / 2 + 1;
	target->max_queues = UINT_MAX;
	target->can_flush = true;
	target->can_fua = true;
	target->fua_is_own = target->direct && file->tail_fd < 0 && !file->fua_by_sync;
	target->can_zero = true;
	target->can_fast_zero = true;
	target->can_trim = true;
	target->can_cache = !target->direct;
	target->can_extents = !file->block_device && lseek(file->fd, 0, SEEK_HOLE) >= 0;
	if (file->block_device && fstat(file->fd, &st) == 0) {
		target->rotational = queue_flag(st.st_rdev, "rotational");
		target->can_trim = queue_flag(st.st_rdev, "discard_max_bytes");
	}
}

int target_file_lock(struct target *target, struct error *err)
{
	struct file_target *file = to_file(target);

	return file->lock ? 0 :
			    image_lock_take(file->fd, target->name, false, &file->notice,
					    &file->lock, err);
}

static int lock_or_look(struct file_target *file, enum image_locking locking, struct error *err)
{
	if (locking == LOCK_IMAGE && !file->target.readonly)
		return target_file_lock(&file->target, err);
	if (locking != LOCK_IMAGE_OFF)
		image_lock_look(file->fd, file->target.name, &file->notice);
	return 0;
}

int target_file_open(const char *path, const struct target_file_options *options,
		     struct target **target, struct error *err)
{
	struct file_target *file = calloc(1, sizeof(*file));
	int ret;

	if (!file)
		return error_set(err, ENOMEM, "%s: no memory", path);
	file->fd = file->sync_fd = file->tail_fd = -1;
	file->least_size = options->size;
	file->notice = options->notice;
	file->target.ops = &file_ops;
	file->target.name = strdup(path);
	err->text[0] = '\0';
	ret = file->target.name ? open_mode(file, options->direct, options->readonly, err) :
				  error_set(err, ENOMEM, "%s: no memory", path);
	if (ret == 0)
		ret = lock_or_look(file, options->locking, err);
	if (ret < 0) {
		file_close(&file->target);
		return ret;
	}
	if (file->write_error)
		notice_tell(&file->notice, "%s: can't be written (%s): read-only", path,
			    strerror(file->write_error));
	find_capabilities(file);
	*target = &file->target;
	return 0;
}
