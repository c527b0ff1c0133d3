/* A volume as a side of a copy: many requests at once, which end on the library's threads. A
 * slot has its piece read (fetch), what is there already compared where a copy goes on, and
 * then written by as many requests as it has runs of data and of zeroes; when the last one has
 * ended it is fetched again.
 *
 * Extents are asked for ahead of what is read, once at a time; todo holds what came back. */
#include "copy/slot.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/align.h"

#define WINDOW_MIN (1024 * 1024)      /* bytes whose extents are asked for at a time, */
#define WINDOW_LOW (64 * 1024 * 1024) /* once fewer than this are known */

/* ---- extents; the lock is held ---- */

static int found_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct copy *copy = opaque;
	enum todo_kind kind = type & NDIO_EXTENT_ZERO ? TODO_ZERO : TODO_DATA;
	int ret;

	if (copy->options->skip_holes && kind == TODO_ZERO && type & NDIO_EXTENT_HOLE)
		kind = TODO_SKIP;
	pthread_mutex_lock(&copy->lock);
	ret = todo_add(&copy->todo, offset, len, kind);
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
	copy->window = min_u64(copy->window, COPY_WINDOW_MAX);
	if (copy->window < WINDOW_MIN)
		copy->window = WINDOW_MIN;
	if (copy->todo.end == copy->asked || (error < 0 && error != -ENOBUFS))
		todo_add_rest(&copy->todo);
	copy->asked = copy->todo.end;
	copy_start_idle_slots(copy);
	copy_leave_flight(copy);
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
		copy_leave_flight(copy);
		copy_fail(copy, ret, copy->src, "asking for extents", copy->asked);
	}
}

/* Is what the destination has read, too, at this offset? */
static bool is_checked(const struct copy *copy, uint64_t offset)
{
	return copy->comparing || offset < copy->resume.end;
}

/* The next piece that costs a request: what is zero already, or left out, is done at once. False when
 * there is none now. */
static bool slot_take_piece(struct copy *copy, struct slot *slot)
{
	uint64_t max = copy->dst->zero_max;
	enum todo_kind kind;

	if (!max || is_checked(copy, copy->next))
		max = copy->piece; /* written or compared as data, from the buffer */
	while (copy_may_take(copy) &&
	       todo_take(&copy->todo, copy->piece, max, &slot->offset, &slot->len, &kind)) {
		copy->next = slot->offset + slot->len;
		digest_wake(copy);
		slot->zero = kind == TODO_ZERO;
		if (kind == TODO_DATA ||
		    (slot->zero && (!copy->dst->zeroed || is_checked(copy, slot->offset))))
			return true;
		copy->done += slot->len;
	}
	return false;
}

/* ---- written ---- */

/* One write of the piece has ended, or making them has. The lock is held. */
static void slot_put(struct slot *slot)
{
	struct copy *copy = slot->copy;

	if (--slot->outstanding)
		return;
	if (!slot->failed)
		slot_done(slot);
	copy_leave_flight(copy);
}

static void piece_written(void *opaque, int error)
{
	struct slot *slot = opaque;
	struct copy *copy = slot->copy;

	pthread_mutex_lock(&copy->lock);
	if (error < 0) {
		slot->failed = true;
		copy_fail(copy, error, copy->dst, "write", slot->offset);
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
	copy->changed += len;
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
		copy_fail(copy, ret, copy->dst, "write", slot->offset + start);
	}
}

/* How many of so many bytes from its byte start on the destination has already, or has otherwise. */
static uint64_t same_length(const struct slot *slot, uint64_t start, uint64_t len, bool *same)
{
	uint64_t block = slot->copy->todo.block, pos = 0;

	while (pos < len) {
		uint64_t at = slot->offset + start + pos;
		uint64_t n = min_u64(round_down(at + block, block) - at, len - pos);
		bool this = memcmp(slot->buffer + start + pos, slot->check + start + pos, n) == 0;

		if (pos == 0)
			*same = this;
		else if (this != *same)
			break;
		pos += n;
	}
	return pos;
}

/* How many bytes from its byte start on are written in one way, if they are. */
static uint64_t next_run(const struct slot *slot, uint64_t start, uint64_t len, bool *zero,
			 bool *same)
{
	const struct copy *copy = slot->copy;

	*same = false;
	if (copy->comparing)
		len = same_length(slot, start, len, same);
	*zero = slot->zero;
	return *same || *zero ? len :
				slot_run_length(slot->buffer + start, slot->offset + start, len,
						copy->sparse, zero);
}

/* The lock isn't held: looking at the data takes longer than anything else here. */
static void volume_put(struct slot *slot)
{
	struct copy *copy = slot->copy;
	uint64_t end = slot->len; /* once all is written the slot may have another piece */
	uint64_t start, len;
	bool zero, same;

	slot->outstanding = 1;
	for (start = 0; start < end; start += len) {
		len = next_run(slot, start, end - start, &zero, &same);
		pthread_mutex_lock(&copy->lock);
		if (!same)
			write_part(slot, start, len, zero);
		if (start + len == end)
			slot_put(slot);
		pthread_mutex_unlock(&copy->lock);
	}
}

static void volume_put_zeroes(struct slot *slot)
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
		copy_stop(copy, -EINVAL,
			  "%s: byte %" PRIu64 " isn't that of %s, and everything "
			  "below %" PRIu64 " should be: it is no copy that was stopped there",
			  copy->dst->name, at, copy->src->name, copy->resume.end);
	else
		copy_stop(copy, -EINVAL,
			  "%s: byte %" PRIu64 " isn't that of %s: there is nothing to "
			  "go on from",
			  copy->dst->name, at, copy->src->name);
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
	/* What puts zeroes may fetch the next piece into the slot. */
	bool write = false, zero = slot->zero && !copy->comparing;

	pthread_mutex_lock(&copy->lock);
	if (error < 0)
		copy_fail(copy, error, copy->dst, "read", slot->offset);
	else if (same < slot->check_len && copy->comparing)
		write = true;
	else if (same < slot->check_len)
		write = accept_difference(slot, slot->offset + same);
	else if (slot->check_len < slot->len)
		write = true; /* the file ends in it */
	else
		slot_done(slot);
	if (write && zero)
		volume_put_zeroes(slot);
	else if (!write)
		copy_leave_flight(copy);
	write &= !zero;
	pthread_mutex_unlock(&copy->lock);
	if (write)
		volume_put(slot);
}

/* Reads what the destination has in its place. The lock is held. */
static void check_piece(struct slot *slot)
{
	struct copy *copy = slot->copy;
	const struct ndio_completion completion = { .callback = piece_checked, .opaque = slot };
	const struct iovec iov = { slot->check, slot->check_len };
	int ret;

	ret = copy->stop ?
		      -ECANCELED :
		      ndio_aio_preadv(copy->dst->volume, &iov, 1, slot->offset, 0, &completion);
	if (ret < 0) {
		copy_fail(copy, ret, copy->dst, "read", slot->offset);
		copy_leave_flight(copy);
	}
}

/* ---- read ---- */

static void put_read(struct slot *slot)
{
	pthread_mutex_lock(&slot->copy->lock);
	slot_read(slot);
	pthread_mutex_unlock(&slot->copy->lock);
	slot->copy->dst->ops->put(slot);
}

static void piece_read(void *opaque, int error)
{
	struct slot *slot = opaque;
	struct copy *copy = slot->copy;

	if (error == 0 && !slot->check_len) {
		put_read(slot);
		return;
	}
	pthread_mutex_lock(&copy->lock);
	if (error == 0)
		slot_read(slot);
	if (error == 0) {
		check_piece(slot);
	} else {
		copy_fail(copy, error, copy->src, "read", slot->offset);
		copy_leave_flight(copy);
	}
	pthread_mutex_unlock(&copy->lock);
}

static void read_piece(struct slot *slot)
{
	struct copy *copy = slot->copy;
	const struct ndio_completion completion = { .callback = piece_read, .opaque = slot };
	const struct iovec iov = { slot->buffer, slot->len };
	int ret = ndio_aio_preadv(copy->src->volume, &iov, 1, slot->offset, 0, &completion);

	if (ret < 0) {
		copy_fail(copy, ret, copy->src, "read", slot->offset);
		copy_leave_flight(copy);
	}
}

/* How many bytes of the piece are compared with what the destination has. */
static uint64_t check_length(const struct slot *slot)
{
	const struct copy *copy = slot->copy;

	if (copy->comparing)
		return slot->len;
	return slot->offset < copy->resume.end ?
		       min_u64(slot->len, copy->resume.end - slot->offset) :
		       0;
}

/* Takes the next piece, and sends it on its way. The lock is held. */
static void volume_fetch(struct slot *slot)
{
	struct copy *copy = slot->copy;

	if (copy->stop)
		return;
	if (!slot_take_piece(copy, slot)) {
		ask_for_extents(copy);
		if (copy->in_flight == 0)
			copy_wake(copy); /* perhaps that was all */
		return;
	}
	slot->busy = true;
	slot->check_len = check_length(slot);
	if (copy->digest.sum && !slot->zero)
		slot->digest = DIGEST_WAITS;
	if (!slot->zero || slot->check_len || copy->dst->encrypted)
		rate_charge(&copy->rate, slot->len);
	copy->in_flight++;
	if (!slot->zero) {
		read_piece(slot);
	} else if (slot->check_len) {
		memset(slot->buffer, 0, slot->len);
		check_piece(slot);
	} else {
		copy->dst->ops->put_zeroes(slot);
	}
	ask_for_extents(copy);
}

/* ---- the end ---- */

static void flushed(void *opaque, int error)
{
	struct copy *copy = opaque;

	pthread_mutex_lock(&copy->lock);
	if (error < 0)
		copy_stop(copy, error, "%s: flush: %s", copy->dst->name,
			  ndio_reason(copy->dst->volume, error));
	copy_leave_flight(copy);
	pthread_mutex_unlock(&copy->lock);
}

/* Makes the request; its end is waited for like that of any other. */
static void volume_flush(struct copy *copy)
{
	const struct ndio_completion completion = { .callback = flushed, .opaque = copy };
	int ret;

	if (!(copy->dst->can & NDIO_CAN_FLUSH))
		return;
	pthread_mutex_lock(&copy->lock);
	copy->in_flight++;
	ret = ndio_aio_flush(copy->dst->volume, &completion);
	pthread_mutex_unlock(&copy->lock);
	if (ret < 0)
		flushed(copy, ret);
}

static bool volume_has_more(const struct copy *copy)
{
	return copy->next < copy->todo.limit;
}

const struct endpoint_ops endpoint_volume = {
	.fetch = volume_fetch,
	.has_more = volume_has_more,
	.begin = endpoint_begin_volume,
	.resume = endpoint_resume_volume,
	.put = volume_put,
	.put_zeroes = volume_put_zeroes,
	.flush = volume_flush,
};
