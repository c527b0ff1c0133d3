/* A stream as a side of a copy: the main thread reads or writes it, in order, when poll(2)
 * says that it can. As a source it fills one slot at a time, whole, but for the last; as a
 * destination it takes the slots in turn: each waits, full, until all before it is written. */
#include "copy/slot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/align.h"
#include "copy/source.h"

/* Not at once: EAGAIN where the descriptor doesn't block. */
static bool is_later(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* ---- a source ---- */

/* The main thread fills slots. */
static void stream_fetch(struct slot *slot)
{
	copy_wake(slot->copy);
}

static bool stream_has_more(const struct copy *copy)
{
	return !copy->ended || copy->filled;
}

/* Finds the slot to fill next, if one is free. */
static bool stream_can_fill(struct copy *copy)
{
	if (copy->ended || !copy_may_take(copy))
		return false;
	for (unsigned i = 0; i < copy->nr_slots && !copy->filling; i++)
		if (!copy->slots[i].busy)
			copy->filling = &copy->slots[i];
	return copy->filling;
}

static void send_filled(struct copy *copy)
{
	struct slot *slot = copy->filling;

	if (copy->next == 0)
		source_tell(copy->src, copy->dst, slot->buffer, copy->filled);
	pthread_mutex_lock(&copy->lock);
	slot->offset = copy->next;
	slot->len = copy->filled;
	slot->busy = true;
	copy->next += copy->filled;
	copy->filling = NULL;
	copy->filled = 0;
	copy->in_flight++;
	rate_charge(&copy->rate, slot->len);
	if (copy->digest.sum)
		slot->digest = DIGEST_READ;
	digest_wake(copy);
	pthread_mutex_unlock(&copy->lock);
	copy->dst->ops->put(slot);
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
		copy_stop(copy, -ENOSPC, "%s: too small: it has %" PRIu64 " bytes, and %s has more",
			  copy->dst->name, copy->dst->size, copy->src->name);
	else if (n < 0)
		copy_fail(copy, -errno, copy->src, "read", copy->next);
	pthread_mutex_unlock(&copy->lock);
}

/* Reads once. Only whole buffers are sent on, so that only the last block can be a partial
 * one. */
static void stream_fill(struct copy *copy)
{
	uint64_t max = min_u64(copy->piece, copy->dst->size - copy->next) - copy->filled;
	ssize_t n;

	if (max == 0 && copy->filled == 0) {
		check_end(copy);
		return;
	}
	n = max ? read(copy->src->fd, copy->filling->buffer + copy->filled, max) : 0;
	if (is_later(n))
		return;
	if (n < 0) {
		pthread_mutex_lock(&copy->lock);
		copy_fail(copy, -errno, copy->src, "read", copy->next + copy->filled);
		pthread_mutex_unlock(&copy->lock);
		return;
	}
	copy->filled += n;
	copy->ended = n == 0 && max;
	if (copy->filled && (n == 0 || copy->filled == copy->piece))
		send_filled(copy);
}

/* ---- a destination ---- */

/* The piece waits for its turn, in which the main thread writes it. The lock is held. */
static void slot_offer(struct slot *slot)
{
	slot->full = true;
	if (slot->offset == slot->copy->done)
		copy_wake(slot->copy);
	copy_leave_flight(slot->copy);
}

static void stream_put(struct slot *slot)
{
	pthread_mutex_lock(&slot->copy->lock);
	slot_offer(slot);
	pthread_mutex_unlock(&slot->copy->lock);
}

static void stream_put_zeroes(struct slot *slot)
{
	memset(slot->buffer, 0, slot->len);
	slot_offer(slot);
}

/* Finds the slot whose turn it is, if it has been read. */
static bool stream_can_drain(struct copy *copy)
{
	copy->draining = NULL;
	for (unsigned i = 0; i < copy->nr_slots; i++) {
		struct slot *slot = &copy->slots[i];

		if (slot->full && slot->offset + slot->sent == copy->done)
			copy->draining = slot;
	}
	return copy->draining;
}

/* Writes once, or passes over zeroes. The bytes, or -1 and errno. */
static ssize_t write_run(struct copy *copy, const struct slot *slot)
{
	const uint8_t *data = slot->buffer + slot->sent;
	uint64_t len = slot->len - slot->sent;
	bool zero = false;

	if (copy->dst->holes)
		len = slot_run_length(data, copy->done, len, copy->sparse, &zero);
	if (zero && lseek(copy->dst->fd, len, SEEK_CUR) >= 0)
		return len;
	return write(copy->dst->fd, data, len);
}

static void stream_drain(struct copy *copy)
{
	struct slot *slot = copy->draining;
	ssize_t n = write_run(copy, slot);

	if (is_later(n))
		return;
	pthread_mutex_lock(&copy->lock);
	if (n < 0) {
		copy_fail(copy, -errno, copy->dst, "write", copy->done);
	} else {
		slot->sent += n;
		copy->done += n;
	}
	if (slot->sent == slot->len)
		slot_done(slot);
	pthread_mutex_unlock(&copy->lock);
}

int endpoint_end(const struct endpoint *endpoint)
{
	struct stat st;
	off_t pos;

	if (!endpoint->holes)
		return 0;
	pos = lseek(endpoint->fd, 0, SEEK_CUR);
	if (pos < 0 || fstat(endpoint->fd, &st) < 0)
		return -errno;
	return pos > st.st_size && ftruncate(endpoint->fd, pos) < 0 ? -errno : 0;
}

static void stream_flush(struct copy *copy)
{
	int error = endpoint_end(copy->dst);

	/* EINVAL, EROFS: a pipe or a device that has nothing to flush. */
	if (error == 0 && fdatasync(copy->dst->fd) < 0 && errno != EINVAL && errno != EROFS)
		error = -errno;
	pthread_mutex_lock(&copy->lock);
	if (error < 0)
		copy_stop(copy, error, "%s: flush: %s", copy->dst->name,
			  ndio_reason(copy->dst->volume, error));
	pthread_mutex_unlock(&copy->lock);
}

/* May a hole be left? Behind its end, and where we write is where the last write ended. */
static bool can_have_holes(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	off_t pos = lseek(fd, 0, SEEK_CUR);
	struct stat st;

	return flags >= 0 && !(flags & O_APPEND) && pos >= 0 && fstat(fd, &st) == 0 &&
	       S_ISREG(st.st_mode) && pos >= st.st_size;
}

static int stream_begin(struct endpoint *endpoint, uint64_t piece, struct error *err)
{
	(void)piece;
	if (endpoint->plain && ftruncate(endpoint->fd, 0) < 0)
		return error_set(err, errno, "%s: emptying it: %s", endpoint->name,
				 strerror(errno));
	endpoint->holes = can_have_holes(endpoint->fd);
	return 0;
}

const struct endpoint_ops endpoint_stream = {
	.fetch = stream_fetch,
	.has_more = stream_has_more,
	.can_fill = stream_can_fill,
	.fill = stream_fill,
	.begin = stream_begin,
	.put = stream_put,
	.put_zeroes = stream_put_zeroes,
	.can_drain = stream_can_drain,
	.drain = stream_drain,
	.flush = stream_flush,
};
