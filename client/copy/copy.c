#include "copy/copy.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/align.h"
#include "engine/bounce.h"
#include "base/clock.h"
#include "copy/guard.h"
#include "terminal/interrupt.h"
#include "memory/secret.h"
#include "copy/todo.h"
#include "terminal/say.h"

#define ZERO_BLOCK 4096               /* zeroes keep to its boundaries */
#define ZERO_PLAIN (32 * 1024 * 1024) /* zeroed by one request; encrypted zeroes are data */
#define ZERO_DATA  (1024 * 1024)
#define WINDOW_MAX (1024 * 1024 * 1024) /* bytes whose extents are asked for at a time, */
#define WINDOW_MIN (1024 * 1024)
#define WINDOW_LOW (64 * 1024 * 1024)   /* once fewer than this are known */
#define GRACE_MS   1000 /* for what is in flight when the copy stops; then it is canceled */

/* A buffer, and the piece of the disk that goes through it. */
struct slot {
	struct copy *copy;
	uint8_t *buffer; /* copy->piece bytes */
	uint8_t *check;  /* likewise, for what the destination has, if a copy goes on */
	uint64_t check_len; /* so many bytes of the piece are to be there already */
	uint64_t offset, len;
	bool busy;   /* has a piece that isn't in the destination yet; for ever if that failed */
	bool full;   /* waits for its turn to go to a stream */
	bool failed;
	bool zero;   /* it is all zeroes, which weren't read */
	unsigned outstanding; /* writes of it in flight, and one more while they are made */
};

/* Callbacks of the library's threads and the main thread share this, under the lock. It is held
 * while requests are made, so that once stop is set no more can be on their way to a volume
 * that is about to be closed. */
struct copy {
	struct endpoint *src, *dst;
	const struct copy_options *options;
	int wake_fd;    /* an eventfd: something happened that the main thread waits for */
	struct secret_buffers buffers, checks;
	size_t sparse;  /* bytes; see run_length() */

	pthread_mutex_t lock;
	struct todo todo;      /* what is to be read, from a volume */
	uint64_t asked;        /* extents are known up to here, */
	uint64_t window;       /* this many bytes are asked for next, */
	bool asking;           /* or now */
	uint64_t next;         /* no slot has had what is from here on */
	uint64_t done;         /* bytes */
	unsigned in_flight;    /* requests and slots with the library */
	bool stop;
	int error;             /* why, and the sentence for it */
	struct error message;
	struct slot *slots;
	unsigned nr_slots;
	uint64_t piece; /* bytes */
	bool resuming;
	struct resume resume;

	/* The main thread's own. */
	struct slot *filling;  /* from a stream */
	uint64_t filled;       /* bytes in it */
	bool ended;            /* the stream did */
	uint64_t streamed;     /* bytes written to a stream */
};

/* ---- the main thread's bell ---- */

static void wake(struct copy *copy)
{
	const uint64_t one = 1;

	while (write(copy->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void silence(struct copy *copy)
{
	uint64_t count;
	ssize_t n = read(copy->wake_fd, &count, sizeof(count));

	(void)n; /* nonblocking */
}

/* ---- stopping; the lock is held ---- */

__attribute__((format(printf, 3, 4)))
static void stop(struct copy *copy, int error, const char *fmt, ...)
{
	va_list args;

	if (copy->stop)
		return;
	copy->stop = true;
	copy->error = error;
	va_start(args, fmt);
	vsnprintf(copy->message.text, sizeof(copy->message.text), fmt, args);
	va_end(args);
	wake(copy);
}

static void fail(struct copy *copy, int error, const struct endpoint *where, const char *what,
		 uint64_t offset)
{
	stop(copy, error, "%s: %s at %" PRIu64 ": %s", where->name, what, offset,
	     ndio_reason(where->volume, error));
}

static void leave_flight(struct copy *copy)
{
	assert(copy->in_flight > 0);
	if (--copy->in_flight == 0)
		wake(copy);
}

/* ---- what is to be read; the lock is held ---- */

static void start_slot(struct slot *slot);

static void start_idle_slots(struct copy *copy)
{
	for (unsigned i = 0; i < copy->nr_slots; i++)
		if (!copy->slots[i].busy)
			start_slot(&copy->slots[i]);
}

static int found_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct copy *copy = opaque;
	int ret;

	pthread_mutex_lock(&copy->lock);
	ret = todo_add(&copy->todo, offset, len, type & NDIO_EXTENT_ZERO);
	pthread_mutex_unlock(&copy->lock);
	return ret;
}

/* A server that can't tell, or stops telling: all the rest may be data. */
static void asked_extents(void *opaque, int error)
{
	struct copy *copy = opaque;

	pthread_mutex_lock(&copy->lock);
	copy->asking = false;
	/* Extents that there was no room for were found for nothing. */
	copy->window = error == -ENOBUFS ? copy->todo.end - copy->asked : 2 * copy->window;
	copy->window = min_u64(copy->window, WINDOW_MAX);
	if (copy->window < WINDOW_MIN)
		copy->window = WINDOW_MIN;
	if (copy->todo.end == copy->asked || (error < 0 && error != -ENOBUFS))
		todo_add_rest(&copy->todo);
	copy->asked = copy->todo.end;
	start_idle_slots(copy);
	leave_flight(copy);
	pthread_mutex_unlock(&copy->lock);
}

static void ask_for_extents(struct copy *copy)
{
	const struct ndio_completion completion = { .callback = asked_extents, .opaque = copy };
	uint64_t left = copy->src->size - copy->asked;
	int ret;

	if (copy->stop || copy->asking || left == 0 || copy->asked - copy->next > WINDOW_LOW ||
	    copy->todo.count > TODO_MAX / 2)
		return;
	copy->asking = true;
	copy->in_flight++;
	ret = ndio_aio_extents(copy->src->volume, copy->asked, min_u64(left, copy->window),
			       found_extent, copy, &completion);
	if (ret < 0) {
		copy->asking = false;
		leave_flight(copy);
		fail(copy, ret, copy->src, "asking for extents", copy->asked);
	}
}

/* The next piece that costs a request: what is zero already is done at once. False when there
 * is none now. */
static bool take_piece(struct copy *copy, struct slot *slot, bool *zero)
{
	uint64_t max = copy->dst->kind == ENDPOINT_STREAM ? copy->piece :
		       copy->dst->encrypted ? ZERO_DATA : ZERO_PLAIN;

	if (copy->next < copy->resume.end)
		max = copy->piece; /* compared, in a buffer */
	while (todo_take(&copy->todo, copy->piece, max, &slot->offset, &slot->len, zero)) {
		copy->next = slot->offset + slot->len;
		if (!*zero || !copy->dst->zeroed || slot->offset < copy->resume.end)
			return true;
		copy->done += slot->len;
	}
	return false;
}

/* ---- the way of a piece: read, then written ---- */

static bool is_over(const struct copy *copy)
{
	if (copy->stop)
		return true;
	if (copy->src->kind == ENDPOINT_STREAM ? !copy->ended || copy->filled :
						 copy->next < copy->todo.limit)
		return false;
	return copy->in_flight == 0 && copy->done == copy->next;
}

/* The piece is in the destination. The lock is held. */
static void slot_done(struct slot *slot)
{
	struct copy *copy = slot->copy;

	slot->busy = false;
	slot->full = false;
	copy->done += slot->len;
	if (copy->src->kind == ENDPOINT_VOLUME)
		start_slot(slot);
	else
		wake(copy);
}

/* One write of the piece has ended, or making them has. The lock is held. */
static void slot_put(struct slot *slot)
{
	struct copy *copy = slot->copy;

	if (--slot->outstanding)
		return;
	if (!slot->failed)
		slot_done(slot);
	leave_flight(copy);
}

static void piece_written(void *opaque, int error)
{
	struct slot *slot = opaque;
	struct copy *copy = slot->copy;

	pthread_mutex_lock(&copy->lock);
	if (error < 0) {
		slot->failed = true;
		fail(copy, error, copy->dst, "write", slot->offset);
	}
	slot_put(slot);
	pthread_mutex_unlock(&copy->lock);
}

/* Part of the piece, from its byte start on. The lock is held. */
static void write_part(struct slot *slot, uint64_t start, uint64_t len, bool zero)
{
	struct copy *copy = slot->copy;
	const struct ndio_completion completion = { .callback = piece_written, .opaque = slot };
	const struct iovec iov = { slot->buffer + start, len };
	int ret;

	if (zero && copy->dst->zeroed)
		return;
	if (copy->stop) {
		slot->failed = true;
		return;
	}
	slot->outstanding++;
	if (zero)
		ret = ndio_aio_zero(copy->dst->volume, slot->offset + start, len, NDIO_MAY_TRIM,
				    &completion);
	else
		ret = endpoint_grow(copy->dst, slot->offset + start + len);
	if (!zero && ret == 0)
		ret = ndio_aio_pwritev(copy->dst->volume, &iov, 1, slot->offset + start, 0,
				       &completion);
	if (ret < 0) {
		slot->outstanding--;
		slot->failed = true;
		fail(copy, ret, copy->dst, "write", slot->offset + start);
	}
}

static bool is_zero(const uint8_t *data, size_t len)
{
	return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

/* How many bytes from start on are all zero, or all to be written as data. */
static uint64_t run_length(const struct slot *slot, uint64_t start, size_t sparse, bool *zero)
{
	uint64_t pos = start;

	*zero = false;
	if (sparse == 0)
		return slot->len - start;
	while (pos < slot->len) {
		/* To the next boundary on the disk. */
		uint64_t at = slot->offset + pos;
		uint64_t len = min_u64(round_down(at + sparse, sparse) - at, slot->len - pos);
		bool this = len == sparse && is_zero(slot->buffer + pos, len);

		if (pos == start)
			*zero = this;
		else if (this != *zero)
			break;
		pos += len;
	}
	return pos - start;
}

/* Writes what is in the buffer to a volume. The lock isn't held: looking at the data takes
 * longer than anything else here. */
static void write_piece(struct slot *slot)
{
	struct copy *copy = slot->copy;
	uint64_t end = slot->len; /* once all is written the slot may have another piece */
	uint64_t start, len;
	bool zero;

	slot->outstanding = 1;
	for (start = 0; start < end; start += len) {
		len = run_length(slot, start, copy->sparse, &zero);
		pthread_mutex_lock(&copy->lock);
		write_part(slot, start, len, zero);
		if (start + len == end)
			slot_put(slot);
		pthread_mutex_unlock(&copy->lock);
	}
}

static void write_zeroes(struct slot *slot)
{
	slot->outstanding = 1;
	write_part(slot, 0, slot->len, true);
	slot_put(slot);
}

/* ---- what is there already, where a copy goes on ---- */

/* Is the piece to be written, which differs at this byte? The lock is held. */
static bool accept_difference(struct slot *slot, uint64_t at)
{
	struct copy *copy = slot->copy;

	if (slot->offset >= copy->resume.gate) {
		/* What is there already ends here. */
		copy->resume.end = min_u64(copy->resume.end, slot->offset);
		return true;
	}
	if (copy->resume.sure)
		stop(copy, -EINVAL, "%s: byte %" PRIu64 " isn't that of %s, and everything below %"
		     PRIu64 " should be: it is no copy that was stopped there", copy->dst->name, at,
		     copy->src->name, copy->resume.end);
	else
		stop(copy, -EINVAL, "%s: byte %" PRIu64 " isn't that of %s: there is nothing to go on "
		     "from", copy->dst->name, at, copy->src->name);
	return false;
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t len)
{
	uint64_t at = 0;

	if (memcmp(a, b, len) == 0)
		return len;
	while (a[at] == b[at])
		at++;
	return at;
}

static void piece_checked(void *opaque, int error)
{
	struct slot *slot = opaque;
	struct copy *copy = slot->copy;
	uint64_t same = error ? 0 : first_difference(slot->buffer, slot->check, slot->check_len);
	bool write = false;

	pthread_mutex_lock(&copy->lock);
	if (error < 0)
		fail(copy, error, copy->dst, "read", slot->offset);
	else if (same < slot->check_len)
		write = accept_difference(slot, slot->offset + same);
	else if (slot->check_len < slot->len)
		write = true; /* the file ends in it */
	else
		slot_done(slot);
	if (write && slot->zero)
		write_zeroes(slot);
	else if (!write)
		leave_flight(copy);
	write &= !slot->zero;
	pthread_mutex_unlock(&copy->lock);
	if (write)
		write_piece(slot);
}

/* Reads what the destination has in its place. The lock is held. */
static void check_piece(struct slot *slot)
{
	struct copy *copy = slot->copy;
	const struct ndio_completion completion = { .callback = piece_checked, .opaque = slot };
	const struct iovec iov = { slot->check, slot->check_len };
	int ret;

	ret = copy->stop ? -ECANCELED : ndio_aio_preadv(copy->dst->volume, &iov, 1, slot->offset, 0,
							 &completion);
	if (ret < 0) {
		fail(copy, ret, copy->dst, "read", slot->offset);
		leave_flight(copy);
	}
}

/* The piece waits for its turn at the stream, which the main thread writes. The lock is held. */
static void offer_piece(struct slot *slot)
{
	slot->full = true;
	if (slot->offset == slot->copy->streamed)
		wake(slot->copy);
}

static void piece_read(void *opaque, int error)
{
	struct slot *slot = opaque;
	struct copy *copy = slot->copy;

	if (error == 0 && slot->check_len) {
		pthread_mutex_lock(&copy->lock);
		check_piece(slot);
		pthread_mutex_unlock(&copy->lock);
		return;
	}
	if (error == 0 && copy->dst->kind == ENDPOINT_VOLUME) {
		write_piece(slot);
		return;
	}
	pthread_mutex_lock(&copy->lock);
	if (error < 0)
		fail(copy, error, copy->src, "read", slot->offset);
	else if (copy->dst->kind == ENDPOINT_STREAM)
		offer_piece(slot);
	else
		slot_done(slot);
	leave_flight(copy);
	pthread_mutex_unlock(&copy->lock);
}

static void read_piece(struct slot *slot)
{
	struct copy *copy = slot->copy;
	const struct ndio_completion completion = { .callback = piece_read, .opaque = slot };
	const struct iovec iov = { slot->buffer, slot->len };
	int ret = ndio_aio_preadv(copy->src->volume, &iov, 1, slot->offset, 0, &completion);

	if (ret < 0) {
		fail(copy, ret, copy->src, "read", slot->offset);
		leave_flight(copy);
	}
}

/* Takes the next piece of a source that is a volume, and sends it on its way. The lock is
 * held. */
static void start_slot(struct slot *slot)
{
	struct copy *copy = slot->copy;
	bool zero;

	if (copy->stop)
		return;
	if (!take_piece(copy, slot, &zero)) {
		ask_for_extents(copy);
		if (is_over(copy))
			wake(copy);
		return;
	}
	slot->busy = true;
	slot->zero = zero;
	slot->check_len = slot->offset < copy->resume.end ?
				  min_u64(slot->len, copy->resume.end - slot->offset) : 0;
	copy->in_flight++;
	if (!zero) {
		read_piece(slot);
	} else if (slot->check_len) {
		memset(slot->buffer, 0, slot->len);
		check_piece(slot);
	} else if (copy->dst->kind == ENDPOINT_VOLUME) {
		write_zeroes(slot);
	} else {
		memset(slot->buffer, 0, slot->len);
		offer_piece(slot);
		leave_flight(copy);
	}
	ask_for_extents(copy);
}

/* ---- streams, on the main thread ---- */

/* Not at once: EAGAIN where the descriptor doesn't block. */
static bool is_later(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* The slot to fill next, if one is free. The lock is held. */
static struct slot *slot_to_fill(struct copy *copy)
{
	if (copy->src->kind != ENDPOINT_STREAM || copy->ended)
		return NULL;
	for (unsigned i = 0; i < copy->nr_slots && !copy->filling; i++)
		if (!copy->slots[i].busy)
			copy->filling = &copy->slots[i];
	return copy->filling;
}

/* The slot whose turn it is, if it has been read. The lock is held. */
static struct slot *slot_to_stream(struct copy *copy)
{
	if (copy->dst->kind != ENDPOINT_STREAM)
		return NULL;
	for (unsigned i = 0; i < copy->nr_slots; i++) {
		struct slot *slot = &copy->slots[i];

		if (slot->full && copy->streamed - slot->offset < slot->len)
			return slot;
	}
	return NULL;
}

static void send_filled(struct copy *copy)
{
	struct slot *slot = copy->filling;
	bool volume = copy->dst->kind == ENDPOINT_VOLUME;

	if (copy->next == 0)
		guard_tell(copy->src, copy->dst, slot->buffer, copy->filled);
	pthread_mutex_lock(&copy->lock);
	slot->offset = copy->next;
	slot->len = copy->filled;
	slot->busy = true;
	copy->next += copy->filled;
	copy->filling = NULL;
	copy->filled = 0;
	if (volume)
		copy->in_flight++;
	else if (copy->dst->kind == ENDPOINT_STREAM)
		offer_piece(slot);
	else
		slot_done(slot);
	pthread_mutex_unlock(&copy->lock);
	if (volume)
		write_piece(slot);
}

/* The destination is full. Is there really more? */
static void check_end(struct copy *copy)
{
	char byte;
	ssize_t n = read(copy->src->fd, &byte, 1);

	if (is_later(n))
		return;
	copy->ended = true;
	pthread_mutex_lock(&copy->lock);
	if (n > 0)
		stop(copy, -ENOSPC, "%s: too small: it has %" PRIu64 " bytes, and %s has more",
		     copy->dst->name, copy->dst->size, copy->src->name);
	else if (n < 0)
		fail(copy, -errno, copy->src, "read", copy->next);
	pthread_mutex_unlock(&copy->lock);
}

/* Reads once. Only whole buffers are sent on, so that only the last block can be a partial
 * one. */
static void fill_slot(struct copy *copy)
{
	uint64_t max = copy->piece - copy->filled;
	ssize_t n;

	if (copy->dst->kind == ENDPOINT_VOLUME)
		max = min_u64(max, copy->dst->size - copy->next - copy->filled);
	if (max == 0 && copy->filled == 0) {
		check_end(copy);
		return;
	}
	n = max ? read(copy->src->fd, copy->filling->buffer + copy->filled, max) : 0;
	if (is_later(n))
		return;
	if (n < 0) {
		pthread_mutex_lock(&copy->lock);
		fail(copy, -errno, copy->src, "read", copy->next + copy->filled);
		pthread_mutex_unlock(&copy->lock);
		return;
	}
	copy->filled += n;
	copy->ended = n == 0 && max;
	if (copy->filled && (n == 0 || copy->filled == copy->piece))
		send_filled(copy);
}

/* Writes once, or passes over zeroes. The bytes, or -1 and errno. */
static ssize_t stream_run(struct copy *copy, struct slot *slot, uint64_t start)
{
	uint64_t len = slot->len - start;
	bool zero = false;

	if (copy->dst->holes)
		len = run_length(slot, start, copy->sparse, &zero);
	if (zero && endpoint_skip(copy->dst, len) == 0)
		return len;
	return write(copy->dst->fd, slot->buffer + start, len);
}

static void stream_slot(struct copy *copy, struct slot *slot)
{
	ssize_t n = stream_run(copy, slot, copy->streamed - slot->offset);

	if (is_later(n))
		return;
	pthread_mutex_lock(&copy->lock);
	if (n < 0)
		fail(copy, -errno, copy->dst, "write", copy->streamed);
	else
		copy->streamed += n;
	if (copy->streamed == slot->offset + slot->len)
		slot_done(slot);
	pthread_mutex_unlock(&copy->lock);
}

/* ---- the main thread ---- */

static void check_signal(struct copy *copy)
{
	int number = interrupt_caught();

	if (number)
		stop(copy, -EINTR, "stopped by signal %d (%s)", number, strsignal(number));
}

/* One round: sleeps until there is something to do, for at most timeout_ms, and does it. False
 * when the copy is over. */
static bool run_once(struct copy *copy, struct progress *progress)
{
	struct pollfd fds[3] = { { .fd = copy->wake_fd, .events = POLLIN },
				 { .fd = -1, .events = POLLIN },
				 { .fd = -1, .events = POLLOUT } };
	struct slot *slot;
	uint64_t done;
	bool over;

	pthread_mutex_lock(&copy->lock);
	check_signal(copy);
	over = is_over(copy);
	done = copy->done;
	if (slot_to_fill(copy))
		fds[1].fd = copy->src->fd;
	slot = slot_to_stream(copy);
	if (slot)
		fds[2].fd = copy->dst->fd;
	pthread_mutex_unlock(&copy->lock);
	if (over)
		return false;
	progress_update(progress, done, copy->src->size);
	if (poll(fds, 3, progress_timeout(progress)) <= 0)
		return true;
	if (fds[0].revents)
		silence(copy);
	if (fds[1].revents)
		fill_slot(copy);
	if (fds[2].revents)
		stream_slot(copy, slot);
	return true;
}

static bool is_stopped(struct copy *copy)
{
	bool stopped;

	pthread_mutex_lock(&copy->lock);
	stopped = copy->stop;
	pthread_mutex_unlock(&copy->lock);
	return stopped;
}

static void flushed(void *opaque, int error)
{
	struct copy *copy = opaque;

	pthread_mutex_lock(&copy->lock);
	if (error < 0)
		stop(copy, error, "%s: flush: %s", copy->dst->name, ndio_reason(copy->dst->volume, error));
	leave_flight(copy);
	pthread_mutex_unlock(&copy->lock);
}

/* Makes the request; its end is waited for like that of any other. */
static void start_flush(struct copy *copy)
{
	const struct ndio_completion completion = { .callback = flushed, .opaque = copy };
	int ret;

	pthread_mutex_lock(&copy->lock);
	copy->in_flight++;
	ret = ndio_aio_flush(copy->dst->volume, &completion);
	pthread_mutex_unlock(&copy->lock);
	if (ret < 0)
		flushed(copy, ret);
}

static void flush_stream(struct copy *copy)
{
	int error = endpoint_end(copy->dst);

	/* EINVAL, EROFS: a pipe or a device that has nothing to flush. */
	if (error == 0 && fdatasync(copy->dst->fd) < 0 && errno != EINVAL && errno != EROFS)
		error = -errno;
	pthread_mutex_lock(&copy->lock);
	if (error < 0)
		stop(copy, error, "%s: flush: %s", copy->dst->name, ndio_reason(copy->dst->volume, error));
	pthread_mutex_unlock(&copy->lock);
}

static void flush(struct copy *copy, struct progress *progress)
{
	if (is_stopped(copy))
		return;
	if (copy->dst->kind == ENDPOINT_STREAM)
		flush_stream(copy);
	else if (copy->dst->kind == ENDPOINT_VOLUME && (copy->dst->can & NDIO_CAN_FLUSH))
		start_flush(copy);
	while (run_once(copy, progress))
		;
}

/* Copies up to there, and waits for it. */
static void copy_until(struct copy *copy, struct progress *progress, uint64_t limit)
{
	pthread_mutex_lock(&copy->lock);
	copy->todo.limit = limit;
	if (copy->src->kind == ENDPOINT_VOLUME)
		start_idle_slots(copy);
	pthread_mutex_unlock(&copy->lock);
	while (run_once(copy, progress))
		;
}

/* A plain file changes its length or mark between two rounds. */
static void change_file(struct copy *copy, int ret)
{
	pthread_mutex_lock(&copy->lock);
	if (ret < 0)
		fail(copy, ret, copy->dst, "write", copy->todo.limit);
	pthread_mutex_unlock(&copy->lock);
}

/* A copy that goes on looks at all that must be there before it writes anything. The last piece of a
 * plain file comes when all before it is on stable storage: a file that looks whole is whole, whatever
 * happens. */
static void copy_all(struct copy *copy, struct progress *progress, struct copy_report *report)
{
	if (copy->resuming) {
		copy_until(copy, progress, copy->resume.gate);
		if (is_stopped(copy))
			return;
		report->begun = true;
		change_file(copy, endpoint_accept(copy->dst, &copy->resume));
	}
	if (copy->dst->file >= 0) {
		copy_until(copy, progress, copy->dst->tail);
		flush(copy, progress);
	}
	copy_until(copy, progress, copy->src->size);
	if (!is_stopped(copy))
		change_file(copy, endpoint_finish(copy->dst));
	flush(copy, progress);
}

/* The copy was stopped: lets what is in flight land, but not for long. */
static void wait_for_landing(struct copy *copy)
{
	int64_t end = clock_ms() + GRACE_MS, left;
	bool landed = false;

	while (!landed && (left = end - clock_ms()) > 0) {
		struct pollfd fd = { .fd = copy->wake_fd, .events = POLLIN };

		pthread_mutex_lock(&copy->lock);
		landed = copy->in_flight == 0;
		pthread_mutex_unlock(&copy->lock);
		if (!landed && poll(&fd, 1, left) > 0)
			silence(copy);
	}
}

static void make_report(const struct copy *copy, struct copy_report *report)
{
	report->done = copy->done;
	report->total = copy->src->size;
	report->below = copy->next;
	for (unsigned i = 0; i < copy->nr_slots; i++)
		if (copy->slots[i].busy)
			report->below = min_u64(report->below, copy->slots[i].offset);
	if (copy->dst->kind == ENDPOINT_STREAM)
		report->below = report->done = copy->streamed;
	if (copy->resume.sure && report->below < copy->resume.end)
		report->below = copy->resume.end;
	report->keep = report->below < copy->resume.end;
	/* Not even when it is all there, but couldn't be flushed. */
	if (copy->dst->file >= 0)
		report->below = min_u64(report->below, copy->dst->tail);
}

/* ---- setting up ---- */

static int set_up(struct copy *copy, struct error *err)
{
	int ret;

	copy->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (copy->wake_fd < 0)
		return error_set(err, errno, "no descriptor to wait with: %s", strerror(errno));
	ret = secret_buffers_make(&copy->buffers, (size_t)copy->nr_slots * copy->piece, err);
	if (ret == 0 && copy->options->resume)
		ret = secret_buffers_make(&copy->checks, copy->buffers.size, err);
	if (ret < 0)
		return ret;
	if (!copy->buffers.locked && (copy->src->encrypted || copy->dst->encrypted))
		say_notice(NULL, BOUNCE_UNPINNED); /* once, if the volumes have told it, too */
	for (unsigned i = 0; i < copy->nr_slots; i++) {
		copy->slots[i].copy = copy;
		copy->slots[i].buffer = (uint8_t *)copy->buffers.base + i * copy->piece;
		if (copy->options->resume)
			copy->slots[i].check = (uint8_t *)copy->checks.base + i * copy->piece;
	}
	return 0;
}

static void tear_down(struct copy *copy)
{
	secret_buffers_free(&copy->buffers);
	secret_buffers_free(&copy->checks);
	if (copy->wake_fd >= 0)
		close(copy->wake_fd);
	pthread_mutex_destroy(&copy->lock);
	free(copy->slots);
	free(copy);
}

static struct copy *copy_new(struct endpoint *source, struct endpoint *destination,
			     const struct copy_options *options)
{
	uint32_t block = source->block > destination->block ? source->block : destination->block;
	struct copy *copy = calloc(1, sizeof(*copy));

	if (!copy)
		return NULL;
	copy->nr_slots = options->requests;
	copy->slots = calloc(copy->nr_slots, sizeof(*copy->slots));
	if (!copy->slots) {
		free(copy);
		return NULL;
	}
	copy->piece = options->request_size;
	pthread_mutex_init(&copy->lock, NULL);
	copy->src = source;
	copy->dst = destination;
	copy->options = options;
	copy->window = WINDOW_MAX;
	copy->todo.size = source->size;
	copy->todo.block = block > ZERO_BLOCK ? block : ZERO_BLOCK;
	/* Encrypted zeroes take as long to write as other data. */
	if (options->sparse && (!destination->encrypted || destination->zeroed))
		copy->sparse = options->sparse > block ? options->sparse : block;
	return copy;
}

static void start_reading(struct copy *copy)
{
	if (copy->src->kind == ENDPOINT_STREAM)
		return;
	pthread_mutex_lock(&copy->lock);
	if (!(copy->src->can & NDIO_CAN_EXTENTS)) {
		todo_add_rest(&copy->todo);
		copy->asked = copy->todo.end;
	}
	pthread_mutex_unlock(&copy->lock);
}

static void run(struct copy *copy, struct copy_report *report)
{
	struct progress progress;

	interrupt_catch(copy->wake_fd);
	progress_start(&progress, &copy->options->progress, copy->wake_fd, 0);
	start_reading(copy);
	copy_all(copy, &progress, report);
	if (is_stopped(copy) && copy->dst->kind == ENDPOINT_STREAM)
		endpoint_end(copy->dst); /* as far as it is said to be written */
	if (is_stopped(copy))
		wait_for_landing(copy);
	else
		endpoint_unmark(copy->dst);
	/* When both are closed, all callbacks have run. */
	endpoint_close_volume(copy->src, NDIO_CLOSE_CANCEL);
	endpoint_close_volume(copy->dst, NDIO_CLOSE_CANCEL);
	make_report(copy, report);
	progress_end(&progress, report->done, report->total, copy->error == 0);
	interrupt_defer();
}

/* From here on the destination isn't what it was. */
static int begin(struct copy *copy, struct error *err)
{
	copy->resuming = copy->options->resume && !copy->dst->created;
	if (copy->resuming && copy->dst->kind != ENDPOINT_VOLUME)
		return error_set(err, EINVAL, "%s: a copy to there can't go on", copy->dst->name);
	if (copy->resuming)
		return endpoint_resume(copy->dst, copy->src, &copy->options->from, copy->piece,
				       &copy->resume, err);
	return endpoint_begin(copy->dst, copy->piece, err);
}

int copy_run(struct endpoint *source, struct endpoint *destination,
	     const struct copy_options *options, struct copy_report *report, struct error *err)
{
	struct copy *copy = copy_new(source, destination, options);
	int ret;

	*report = (struct copy_report){ .total = source->size };
	if (!copy)
		return error_set(err, ENOMEM, "no memory for a copy");
	ret = set_up(copy, err);
	if (ret == 0)
		ret = begin(copy, err);
	if (ret == 0) {
		report->begun = !copy->resuming;
		run(copy, report);
		ret = copy->error;
		*err = copy->message;
	}
	tear_down(copy);
	return ret;
}
