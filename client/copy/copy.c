/* How a copy goes. A source fetches pieces into slots, a destination gets them put, many at
 * once; which kinds they are only their operations know (copy-volume, copy-stream, copy-null).
 * What ends on the library's threads goes on there; the main thread sleeps in copy_once(),
 * reads and writes streams, shows progress and looks for signals.
 *
 * A copy is over when the source has no more, nothing is in flight and all that was taken has
 * arrived; or once stop is set, by the first failure or a signal. Then no request is made any
 * more, what is in flight has a second to land, and both volumes are closed, after which no
 * callback runs.
 *
 * Of a slot that is busy nothing below its offset is its business: so the lowest one says up
 * to where the destination is whole, which is what a copy that was stopped reports. */
#include "copy/copy.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/align.h"
#include "base/clock.h"
#include "copy/slot.h"
#include "engine/bounce.h"
#include "terminal/interrupt.h"
#include "terminal/say.h"

#define ZERO_BLOCK 4096 /* zeroes keep to its boundaries */
#define GRACE_MS   1000 /* for what is in flight when the copy stops; then it is canceled */

/* ---- the main thread's bell ---- */

void copy_wake(struct copy *copy)
{
	const uint64_t one = 1;

	while (write(copy->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void copy_silence(struct copy *copy)
{
	uint64_t count;
	ssize_t n = read(copy->wake_fd, &count, sizeof(count));

	(void)n; /* nonblocking */
}

/* ---- stopping; the lock is held ---- */

void copy_stop(struct copy *copy, int error, const char *fmt, ...)
{
	va_list args;

	if (copy->stop)
		return;
	copy->stop = true;
	copy->error = error;
	va_start(args, fmt);
	vsnprintf(copy->message.text, sizeof(copy->message.text), fmt, args);
	va_end(args);
	copy_wake(copy);
}

void copy_fail(struct copy *copy, int error, const struct endpoint *where, const char *what,
	       uint64_t offset)
{
	copy_stop(copy, error, "%s: %s at %" PRIu64 ": %s", where->name, what, offset,
		  ndio_reason(where->volume, error));
}

void copy_leave_flight(struct copy *copy)
{
	assert(copy->in_flight > 0);
	if (--copy->in_flight == 0)
		copy_wake(copy);
}

/* ---- the way of a piece: read, then written; the lock is held ---- */

bool copy_may_take(struct copy *copy)
{
	if (rate_wait(&copy->rate) == 0)
		return true;
	if (!copy->held)
		copy_wake(copy);
	copy->held = true;
	return false;
}

void copy_start_idle_slots(struct copy *copy)
{
	for (unsigned i = 0; i < copy->nr_slots; i++)
		if (!copy->slots[i].busy)
			copy->src->ops->fetch(&copy->slots[i]);
}

static bool copy_is_over(const struct copy *copy)
{
	if (copy->stop)
		return true;
	return !copy->src->ops->has_more(copy) && copy->in_flight == 0 &&
	       copy->done == copy->next && digest_is_done(copy);
}

void slot_release(struct slot *slot)
{
	slot->written = false;
	slot->busy = false;
	slot->copy->src->ops->fetch(slot);
}

void slot_done(struct slot *slot)
{
	struct copy *copy = slot->copy;

	copy->done += slot->len - slot->sent;
	slot->sent = 0;
	slot->full = false;
	slot->written = true;
	if (slot->digest == DIGEST_NONE)
		slot_release(slot);
}

void slot_read(struct slot *slot)
{
	if (slot->digest == DIGEST_NONE)
		return;
	slot->digest = DIGEST_READ;
	digest_wake(slot->copy);
}

uint64_t slot_run_length(const uint8_t *data, uint64_t offset, uint64_t len, size_t sparse,
			 bool *zero)
{
	uint64_t pos = 0;

	*zero = false;
	if (sparse == 0)
		return len;
	while (pos < len) {
		/* To the next boundary on the disk. */
		uint64_t at = offset + pos;
		uint64_t n = min_u64(round_down(at + sparse, sparse) - at, len - pos);
		bool this = n == sparse && is_zero(data + pos, n);

		if (pos == 0)
			*zero = this;
		else if (this != *zero)
			break;
		pos += n;
	}
	return pos;
}

/* ---- the main thread ---- */

static void copy_check_signal(struct copy *copy)
{
	int number = interrupt_caught();

	if (number)
		copy_stop(copy, -EINTR, "stopped by signal %d (%s)", number, strsignal(number));
}

/* For a server, as long as it may take. */
static bool copy_is_waiting(const struct copy *copy)
{
	return atomic_load(&copy->src->away) || atomic_load(&copy->dst->away);
}

/* How long it may be slept: until the rate lets go, at most. The lock is held. */
static int held_timeout(struct copy *copy, int timeout_ms)
{
	int wait;

	if (copy->held && rate_wait(&copy->rate) == 0) {
		copy->held = false;
		copy_start_idle_slots(copy);
	}
	wait = copy->held ? rate_wait(&copy->rate) : -1;
	return wait < 0 || (timeout_ms >= 0 && timeout_ms < wait) ? timeout_ms : wait;
}

/* One round: sleeps until there is something to do, for at most timeout_ms, and does it. False
 * when the copy is over. */
static bool copy_once(struct copy *copy, struct progress *progress)
{
	const struct endpoint_ops *src = copy->src->ops, *dst = copy->dst->ops;
	struct pollfd fds[3] = { { .fd = copy->wake_fd, .events = POLLIN },
				 { .fd = -1, .events = POLLIN },
				 { .fd = -1, .events = POLLOUT } };
	uint64_t done;
	int timeout;
	bool over;

	pthread_mutex_lock(&copy->lock);
	copy_check_signal(copy);
	timeout = held_timeout(copy, progress_timeout(progress));
	over = copy_is_over(copy);
	done = copy->done;
	if (src->fill && src->can_fill(copy))
		fds[1].fd = copy->src->fd;
	if (dst->drain && dst->can_drain(copy))
		fds[2].fd = copy->dst->fd;
	pthread_mutex_unlock(&copy->lock);
	if (over)
		return false;
	progress_update(progress, done, copy->src->size, copy_is_waiting(copy));
	if (poll(fds, 3, timeout) <= 0)
		return true;
	if (fds[0].revents)
		copy_silence(copy);
	if (fds[1].revents)
		src->fill(copy);
	if (fds[2].revents)
		dst->drain(copy);
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

static void copy_flush(struct copy *copy, struct progress *progress)
{
	if (is_stopped(copy))
		return;
	copy->dst->ops->flush(copy);
	while (copy_once(copy, progress))
		;
}

/* Copies up to there, and waits for it. */
static void copy_until(struct copy *copy, struct progress *progress, uint64_t limit)
{
	pthread_mutex_lock(&copy->lock);
	copy->todo.limit = limit;
	copy_start_idle_slots(copy);
	pthread_mutex_unlock(&copy->lock);
	while (copy_once(copy, progress))
		;
}

/* A plain file changes its length or mark between two rounds. */
static void change_file(struct copy *copy, int ret)
{
	pthread_mutex_lock(&copy->lock);
	if (ret < 0)
		copy_fail(copy, ret, copy->dst, "write", copy->todo.limit);
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
	if (copy->dst->file >= 0 && !copy->comparing) {
		copy_until(copy, progress, copy->dst->tail);
		copy_flush(copy, progress);
	}
	copy_until(copy, progress, copy->src->size);
	if (!is_stopped(copy))
		change_file(copy, endpoint_finish(copy->dst));
	copy_flush(copy, progress);
}

/* The copy was stopped: lets what is in flight land, but not for long, and not if it waits for a server. */
static void wait_for_landing(struct copy *copy)
{
	int64_t end = clock_ms() + GRACE_MS, left;
	bool landed = false;

	while (!landed && !copy_is_waiting(copy) && (left = end - clock_ms()) > 0) {
		struct pollfd fd = { .fd = copy->wake_fd, .events = POLLIN };

		pthread_mutex_lock(&copy->lock);
		landed = copy->in_flight == 0;
		pthread_mutex_unlock(&copy->lock);
		if (!landed && poll(&fd, 1, left) > 0)
			copy_silence(copy);
	}
}

static void copy_report_on(const struct copy *copy, struct copy_report *report)
{
	report->done = copy->done;
	report->total = copy->src->size;
	report->below = copy->next;
	for (unsigned i = 0; i < copy->nr_slots; i++)
		if (copy->slots[i].busy)
			report->below =
				min_u64(report->below, copy->slots[i].offset + copy->slots[i].sent);
	if (copy->resume.sure && report->below < copy->resume.end)
		report->below = copy->resume.end;
	report->keep = report->below < copy->resume.end || copy->comparing;
	report->changed = copy->changed;
	/* Not even when it is all there, but couldn't be flushed. */
	if (copy->dst->file >= 0 && !copy->comparing)
		report->below = min_u64(report->below, copy->dst->tail);
}

/* ---- setting up ---- */

/* Is what the destination has read, too? */
static bool compares(const struct copy *copy)
{
	return copy->options->resume || copy->options->only_changes;
}

static int copy_set_up(struct copy *copy, struct error *err)
{
	int ret;

	copy->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (copy->wake_fd < 0)
		return error_set(err, errno, "no descriptor to wait with: %s", strerror(errno));
	ret = secret_buffers_make(&copy->buffers, (size_t)copy->nr_slots * copy->piece, err);
	if (ret == 0 && compares(copy))
		ret = secret_buffers_make(&copy->checks, copy->buffers.size, err);
	if (ret < 0)
		return ret;
	if (!copy->buffers.locked && (copy->src->encrypted || copy->dst->encrypted))
		say_notice(NULL, BOUNCE_UNPINNED); /* once, if the volumes have told it, too */
	for (unsigned i = 0; i < copy->nr_slots; i++) {
		copy->slots[i].copy = copy;
		copy->slots[i].buffer = (uint8_t *)copy->buffers.base + i * copy->piece;
		if (compares(copy))
			copy->slots[i].check = (uint8_t *)copy->checks.base + i * copy->piece;
	}
	return 0;
}

static void copy_free(struct copy *copy)
{
	secret_buffers_free(&copy->buffers);
	secret_buffers_free(&copy->checks);
	if (copy->wake_fd >= 0)
		close(copy->wake_fd);
	EVP_MD_CTX_free(copy->digest.sum);
	pthread_cond_destroy(&copy->digest.changed);
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
	pthread_cond_init(&copy->digest.changed, NULL);
	copy->rate.per_second = options->rate;
	copy->src = source;
	copy->dst = destination;
	copy->options = options;
	copy->window = COPY_WINDOW_MAX;
	copy->todo.size = source->size;
	copy->todo.block = block > ZERO_BLOCK ? block : ZERO_BLOCK;
	/* Encrypted zeroes take as long to write as other data. */
	if (options->sparse && (!destination->encrypted || destination->zeroed))
		copy->sparse = options->sparse > block ? options->sparse : block;
	return copy;
}

static void start_reading(struct copy *copy)
{
	pthread_mutex_lock(&copy->lock);
	if (!(copy->src->can & NDIO_CAN_EXTENTS)) {
		todo_add_rest(&copy->todo);
		copy->asked = copy->todo.end;
	}
	pthread_mutex_unlock(&copy->lock);
}

static void copy_to_end(struct copy *copy, struct copy_report *report)
{
	struct progress progress;
	enum ndio_close_how how;

	interrupt_catch(copy->wake_fd);
	progress_start(&progress, &copy->options->progress, copy->wake_fd, 0);
	start_reading(copy);
	copy_all(copy, &progress, report);
	digest_stop(copy);
	if (is_stopped(copy))
		endpoint_end(copy->dst); /* as far as it is said to be written */
	if (is_stopped(copy))
		wait_for_landing(copy);
	else
		endpoint_unmark(copy->dst);
	/* When both are closed, all callbacks have run. What was written whole has its journal emptied. */
	how = is_stopped(copy) ? NDIO_CLOSE_CANCEL : NDIO_CLOSE_WAIT;
	endpoint_close_volume(copy->src, NDIO_CLOSE_CANCEL);
	endpoint_close_volume(copy->dst, how);
	copy_report_on(copy, report);
	progress_end(&progress, report->done, report->total, copy->error == 0);
	interrupt_defer();
}

/* From here on the destination isn't what it was. */
static int copy_begin(struct copy *copy, struct error *err)
{
	copy->resuming = copy->options->resume && !copy->dst->created;
	copy->comparing = copy->options->only_changes && !copy->dst->created;
	if (compares(copy) && !copy->dst->ops->resume)
		return error_set(err, EINVAL, "%s: a copy to there can't go on", copy->dst->name);
	if (copy->resuming)
		return copy->dst->ops->resume(copy->dst, copy->src, &copy->options->from,
					      copy->piece, &copy->resume, err);
	if (copy->comparing)
		return endpoint_begin_changes(copy->dst, copy->src, err);
	return copy->dst->ops->begin(copy->dst, copy->piece, err);
}

int copy_run(struct endpoint *source, struct endpoint *destination,
	     const struct copy_options *options, struct copy_report *report, struct error *err)
{
	struct copy *copy = copy_new(source, destination, options);
	int ret;

	*report = (struct copy_report){ .total = source->size };
	if (!copy)
		return error_set(err, ENOMEM, "no memory for a copy");
	ret = copy_set_up(copy, err);
	if (ret == 0 && options->checksum)
		ret = digest_start(copy, options->checksum, err);
	if (ret == 0)
		ret = copy_begin(copy, err);
	if (ret == 0) {
		report->begun = !copy->resuming;
		copy_to_end(copy, report);
		ret = copy->error;
		*err = copy->message;
	}
	if (ret == 0)
		ret = digest_text(copy, report->checksum, err);
	digest_stop(copy);
	copy_free(copy);
	return ret;
}
