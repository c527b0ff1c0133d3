/* Each side is read into its half of a slot; the last half that comes compares the two, on the
 * main thread. Where both sides say that there are zeroes nothing is read. The library's
 * threads only run side_found_extent(), and nobody else looks at a side's runs while it is
 * asking: so there is no lock.
 *
 * What is known can only get lower: first, where they differ, and failed_at, where one
 * couldn't be read. All from the lower of the two on doesn't matter any more, and it is over
 * when all below has been compared. A side whose size isn't known is a stream: then one slot
 * after the other is filled from descriptors, by poll(2), and volumes are read as far as the
 * streams came. */
#include "copy/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/align.h"
#include "engine/bounce.h"
#include "memory/secret.h"
#include "terminal/interrupt.h"
#include "terminal/say.h"

#define SLOTS      32
#define PIECE      (256 * 1024) /* bytes of each side in a slot */
#define BLOCK      4096         /* bytes that are compared at a time */
#define RUNS_MAX   4096
#define WINDOW_MAX (1024 * 1024 * 1024) /* bytes whose extents are asked for at a time */
#define WINDOW_MIN (1024 * 1024)
#define NOWHERE    UINT64_MAX

struct compare;

/* What an event belongs to. */
struct work {
	void (*done)(struct work *work, int error);
};

struct run {
	uint64_t end; /* bytes: the next one starts there */
	bool zero;
};

struct side {
	struct work work; /* first: asking for extents */
	struct compare *compare;
	struct endpoint *endpoint;
	uint64_t size; /* bytes; SIZE_UNKNOWN: a stream that hasn't ended yet */

	bool tells;       /* of extents; else all of it may be data */
	bool asking;      /* a thread of the library adds to these: */
	struct run *runs; /* RUNS_MAX of them */
	unsigned count;
	unsigned next;         /* the one that the next piece starts in */
	uint64_t asked, known; /* they are of the bytes between */
	uint64_t window;       /* bytes to ask for next */
};

/* A piece of one side. */
struct part {
	struct work work; /* first: reading it */
	struct slot *slot;
	struct side *side;
	uint8_t *buffer;
	bool zero;   /* nothing is read: it is known to be */
	size_t have; /* bytes that it has, or will have when it is read; the rest reads as zeroes */
};

struct slot {
	uint64_t offset;
	size_t len;
	bool busy;
	unsigned reading; /* parts */
	struct part part[2];
};

struct compare {
	const struct compare_options *options;
	struct side side[2];
	struct slot slots[SLOTS];
	struct secret_buffers buffers;
	struct ndio_queue *queue;
	int wake_fd; /* an eventfd: of signals */

	uint64_t next;        /* no slot has had what is from here on */
	uint64_t done;        /* bytes */
	struct slot *filling; /* from a stream */
	uint64_t first;       /* the lowest difference found so far, or NOWHERE */
	uint64_t failed_at;   /* the lowest place that can't be read, or NOWHERE, */
	int error;            /* why, and the sentence for it */
	struct error message;
};

/* ---- what stops it ---- */

static void compare_stop(struct compare *compare, int error, uint64_t at, const char *what,
			 const char *why)
{
	if (at >= compare->failed_at)
		return;
	compare->failed_at = at;
	compare->error = error;
	error_set(&compare->message, -error, "%s%s", what, why);
}

static void compare_fail(struct side *side, int error, uint64_t at)
{
	char what[4300];

	snprintf(what, sizeof(what), "%s: read at %" PRIu64 ": ", side->endpoint->name, at);
	compare_stop(side->compare, error, at, what, ndio_reason(side->endpoint->volume, error));
}

/* Of what is from here on nothing matters any more. */
static uint64_t limit(const struct compare *compare)
{
	return min_u64(compare->first, compare->failed_at);
}

/* ---- extents ---- */

/* On one of the library's threads. */
static int side_found_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct side *side = opaque;
	bool zero = type & NDIO_EXTENT_ZERO;

	if (offset != (side->count ? side->runs[side->count - 1].end : side->asked))
		return -EPROTO;
	if (side->count && side->runs[side->count - 1].zero == zero) {
		side->runs[side->count - 1].end = offset + len;
		return 0;
	}
	if (side->count == RUNS_MAX)
		return -ENOBUFS;
	side->runs[side->count++] = (struct run){ offset + len, zero };
	return 0;
}

/* A server that can't tell, or stops telling: all the rest may be data. */
static void side_asked_extents(struct work *work, int error)
{
	struct side *side = (struct side *)work;

	side->asking = false;
	if (side->count == 0 || (error < 0 && error != -ENOBUFS)) {
		side->tells = false;
		return;
	}
	side->known = side->runs[side->count - 1].end;
	/* Extents that there was no room for were found for nothing. */
	side->window = error ? side->known - side->asked : 2 * side->window;
	side->window = min_u64(side->window, WINDOW_MAX);
	if (side->window < WINDOW_MIN)
		side->window = WINDOW_MIN;
}

static void side_ask_for_extents(struct side *side, uint64_t from)
{
	const struct ndio_completion completion = { .queue = side->compare->queue,
						    .opaque = &side->work };
	uint64_t len = min_u64(side->size - from, side->window);

	side->asking = true;
	side->asked = from;
	side->count = side->next = 0;
	if (ndio_aio_extents(side->endpoint->volume, from, len, side_found_extent, side,
			     &completion) < 0)
		side->tells = side->asking = false;
}

/* Is it known whether there are zeroes at an offset? Else it is asked for. */
static bool side_is_known(struct side *side, uint64_t offset)
{
	if (!side->asking && side->tells && offset < side->size && offset >= side->known)
		side_ask_for_extents(side, offset);
	return !side->asking;
}

/* Are there only zeroes from here to *end, or may there be data? */
static bool is_zero_run(struct side *side, uint64_t offset, uint64_t *end)
{
	*end = NOWHERE;
	if (offset >= side->size)
		return true;
	*end = side->size;
	if (!side->tells)
		return false;
	while (side->runs[side->next].end <= offset)
		side->next++;
	*end = side->runs[side->next].end;
	return side->runs[side->next].zero;
}

/* ---- a piece ---- */

/* Where the first difference is; len if there is none. b may be NULL: zeroes. */
static size_t find_difference(const uint8_t *a, const uint8_t *b, size_t len)
{
	static const uint8_t zeroes[BLOCK];
	size_t n;

	for (size_t at = 0; at < len; at += n) {
		const uint8_t *other = b ? b + at : zeroes;

		n = min_u64(BLOCK, len - at);
		if (memcmp(a + at, other, n) == 0)
			continue;
		for (size_t i = 0; i < n; i++)
			if (a[at + i] != other[i])
				return at + i;
	}
	return len;
}

static void compare_slot(struct compare *compare, struct slot *slot)
{
	const struct part *a = &slot->part[0], *b = &slot->part[1];
	size_t at;

	if (a->zero)
		at = find_difference(b->buffer, NULL, slot->len);
	else
		at = find_difference(a->buffer, b->zero ? NULL : b->buffer, slot->len);
	if (at < slot->len)
		compare->first = min_u64(compare->first, slot->offset + at);
	compare->done += slot->len;
	slot->busy = false;
}

/* One part has been read, or needn't be. */
static void put_slot(struct slot *slot)
{
	if (--slot->reading == 0)
		compare_slot(slot->part[0].side->compare, slot);
}

/* One that failed stays busy: what is above it is in vain. */
static void part_read(struct work *work, int error)
{
	struct part *part = (struct part *)work;

	if (error < 0)
		compare_fail(part->side, error, part->slot->offset);
	else
		put_slot(part->slot);
}

static void read_part(struct part *part)
{
	const struct ndio_completion completion = { .queue = part->side->compare->queue,
						    .opaque = &part->work };
	const struct iovec iov = { part->buffer, part->have };
	int ret = ndio_aio_preadv(part->side->endpoint->volume, &iov, 1, part->slot->offset, 0,
				  &completion);

	if (ret < 0)
		compare_fail(part->side, ret, part->slot->offset);
}

static void compare_start_slot(struct slot *slot, uint64_t offset, size_t len)
{
	struct compare *compare = slot->part[0].side->compare;

	slot->offset = offset;
	slot->len = len;
	slot->busy = true;
	slot->reading = 3; /* and one more while they are started */
	compare->next = offset + len;
	for (unsigned i = 0; i < 2; i++) {
		struct part *part = &slot->part[i];

		if (part->zero || !part->side->endpoint->volume)
			slot->reading--;
		else
			read_part(part);
	}
	put_slot(slot);
}

/* ---- what comes next ---- */

/* All that is to be compared, as far as it is known. */
static uint64_t total(const struct compare *compare)
{
	uint64_t a = compare->side[0].size, b = compare->side[1].size;

	return a > b ? a : b;
}

static bool is_streaming(const struct compare *compare)
{
	return total(compare) == SIZE_UNKNOWN;
}

/* The next piece that has to be read. False: there is none, or not yet. */
static bool compare_next_piece(struct compare *compare, struct slot *slot)
{
	struct side *sides = compare->side;
	uint64_t end[2], offset, up_to;

	while (compare->next < min_u64(total(compare), limit(compare))) {
		bool known[2] = { side_is_known(&sides[0], compare->next),
				  side_is_known(&sides[1], compare->next) };

		if (!known[0] || !known[1])
			return false;
		offset = compare->next;
		for (unsigned i = 0; i < 2; i++)
			slot->part[i].zero = is_zero_run(&sides[i], offset, &end[i]);
		up_to = min_u64(min_u64(end[0], end[1]), total(compare));
		if (!slot->part[0].zero || !slot->part[1].zero) {
			up_to = min_u64(up_to, round_down(offset + PIECE, PIECE));
			slot->part[0].have = slot->part[1].have = up_to - offset;
			compare_start_slot(slot, offset, up_to - offset);
			return true;
		}
		compare->done += up_to - offset;
		compare->next = up_to;
	}
	return false;
}

static struct slot *idle_slot(struct compare *compare)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!compare->slots[i].busy)
			return &compare->slots[i];
	return NULL;
}

static void take_pieces(struct compare *compare)
{
	struct slot *slot;

	while (!is_streaming(compare) && (slot = idle_slot(compare)) &&
	       compare_next_piece(compare, slot))
		;
}

/* ---- streams ---- */

/* Has the part all that it can get? */
static bool is_full(const struct part *part)
{
	return part->side->size != SIZE_UNKNOWN || part->have == PIECE;
}

/* The piece is as long as the stream that had most; what the other lacks reads as zeroes. */
static void compare_filled(struct compare *compare)
{
	struct slot *slot = compare->filling;
	size_t len = 0;

	for (unsigned i = 0; i < 2; i++)
		if (slot->part[i].have > len)
			len = slot->part[i].have;
	compare->filling = NULL;
	slot->busy = false;
	if (len == 0)
		return;
	for (unsigned i = 0; i < 2; i++) {
		struct part *part = &slot->part[i];
		uint64_t size = part->side->size;

		part->have = compare->next < size ? min_u64(size - compare->next, len) : 0;
		part->zero = part->have == 0;
		memset(part->buffer + part->have, 0, len - part->have);
	}
	compare_start_slot(slot, compare->next, len);
}

/* Reads once. */
static void part_fill(struct compare *compare, struct part *part)
{
	ssize_t n = read(part->side->endpoint->fd, part->buffer + part->have, PIECE - part->have);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		compare_fail(part->side, -errno, compare->next);
	else if (n == 0)
		part->side->size = compare->next + part->have;
	else
		part->have += n;
}

/* Which streams are waited for. */
static void wait_for_streams(struct compare *compare, struct pollfd fds[2])
{
	if (!compare->filling && is_streaming(compare) && compare->next < limit(compare)) {
		compare->filling = idle_slot(compare);
		if (!compare->filling)
			return;
		compare->filling->busy = true;
		compare->filling->offset = compare->next;
		for (unsigned i = 0; i < 2; i++) {
			compare->filling->part[i].have = 0;
			compare->filling->part[i].zero = false;
		}
	}
	for (unsigned i = 0; i < 2 && compare->filling; i++)
		if (!is_full(&compare->filling->part[i]))
			fds[i].fd = compare->side[i].endpoint->fd;
}

static void compare_fill(struct compare *compare, const struct pollfd fds[2])
{
	struct slot *slot = compare->filling;

	for (unsigned i = 0; i < 2; i++)
		if (fds[i].revents)
			part_fill(compare, &slot->part[i]);
	if (slot && is_full(&slot->part[0]) && is_full(&slot->part[1]))
		compare_filled(compare);
}

/* ---- the loop ---- */

static bool compare_is_over(const struct compare *compare)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (compare->slots[i].busy && compare->slots[i].offset < limit(compare))
			return false;
	return compare->next >= min_u64(total(compare), limit(compare));
}

static void compare_check_signal(struct compare *compare)
{
	int number = interrupt_caught();
	char what[64];

	if (!number)
		return;
	snprintf(what, sizeof(what), "stopped by signal %d: ", number);
	compare_stop(compare, -EINTR, 0, what, strsignal(number));
}

static void compare_silence(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n; /* nonblocking */
}

static void handle_events(struct compare *compare)
{
	struct ndio_event events[SLOTS];
	int n;

	while ((n = ndio_queue_reap(compare->queue, events, SLOTS, 0)) > 0)
		for (int i = 0; i < n; i++) {
			struct work *work = events[i].opaque;

			work->done(work, events[i].error);
		}
}

/* For a server, as long as it may take. */
static bool compare_is_waiting(const struct compare *compare)
{
	return atomic_load(&compare->side[0].endpoint->away) ||
	       atomic_load(&compare->side[1].endpoint->away);
}

/* One round: makes requests, sleeps until there is something to do, and does it. False when it is
 * over. */
static bool compare_once(struct compare *compare, struct progress *progress)
{
	struct pollfd fds[4] = { { .fd = -1, .events = POLLIN },
				 { .fd = -1, .events = POLLIN },
				 { .fd = ndio_queue_fd(compare->queue), .events = POLLIN },
				 { .fd = compare->wake_fd, .events = POLLIN } };

	compare_check_signal(compare);
	take_pieces(compare);
	if (compare_is_over(compare))
		return false;
	wait_for_streams(compare, fds);
	progress_update(progress, compare->done, total(compare), compare_is_waiting(compare));
	if (poll(fds, 4, progress_timeout(progress)) <= 0)
		return true;
	if (fds[3].revents)
		compare_silence(compare->wake_fd);
	handle_events(compare);
	compare_fill(compare, fds);
	return true;
}

/* ---- setting up ---- */

static int set_up_side(struct compare *compare, unsigned i, struct endpoint *endpoint,
		       struct error *err)
{
	struct side *side = &compare->side[i];

	*side = (struct side){
		.work.done = side_asked_extents,
		.compare = compare,
		.endpoint = endpoint,
		.size = endpoint->size,
		.tells = endpoint->can & NDIO_CAN_EXTENTS,
		.window = WINDOW_MAX,
	};
	side->runs = malloc(RUNS_MAX * sizeof(*side->runs));
	if (!side->runs)
		return error_set(err, ENOMEM, "no memory for extents");
	for (unsigned s = 0; s < SLOTS; s++) {
		struct slot *slot = &compare->slots[s];

		slot->part[i] = (struct part){
			.work.done = part_read,
			.slot = slot,
			.side = side,
			.buffer = (uint8_t *)compare->buffers.base + (2 * s + i) * PIECE,
		};
	}
	return 0;
}

static int compare_set_up(struct compare *compare, struct endpoint *a, struct endpoint *b,
			  struct error *err)
{
	int ret;

	compare->first = compare->failed_at = NOWHERE;
	compare->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (compare->wake_fd < 0)
		return error_set(err, errno, "no descriptor to wait with: %s", strerror(errno));
	ret = ndio_queue_new(&compare->queue);
	if (ret < 0)
		return error_set(err, -ret, "%s", ndio_error());
	ret = secret_buffers_make(&compare->buffers, 2 * SLOTS * PIECE, err);
	if (ret < 0)
		return ret;
	if (!compare->buffers.locked && (a->encrypted || b->encrypted))
		say_notice(NULL, BOUNCE_UNPINNED); /* once, if the volumes have told it, too */
	ret = set_up_side(compare, 0, a, err);
	return ret < 0 ? ret : set_up_side(compare, 1, b, err);
}

static void compare_free(struct compare *compare)
{
	for (unsigned i = 0; i < 2; i++)
		free(compare->side[i].runs);
	secret_buffers_free(&compare->buffers);
	ndio_queue_free(compare->queue);
	if (compare->wake_fd >= 0)
		close(compare->wake_fd);
	free(compare);
}

static int compare_report_on(const struct compare *compare, struct compare_report *report)
{
	bool differ = compare->first < compare->failed_at;

	report->outcome = differ ? COMPARE_CONTENT : COMPARE_EQUAL;
	report->offset = min_u64(compare->next, compare->first);
	for (unsigned i = 0; i < SLOTS; i++)
		if (compare->slots[i].busy)
			report->offset = min_u64(report->offset, compare->slots[i].offset);
	for (unsigned i = 0; i < 2; i++)
		report->size[i] = compare->side[i].size;
	if (!differ && !compare->error && compare->options->strict &&
	    report->size[0] != report->size[1])
		report->outcome = COMPARE_SIZE;
	return differ ? 0 : compare->error;
}

static int compare_to_end(struct compare *compare, struct compare_report *report)
{
	const struct side *sides = compare->side;
	struct progress progress;
	enum ndio_close_how how;
	int ret;

	interrupt_catch(compare->wake_fd);
	progress_start(&progress, &compare->options->progress, compare->wake_fd, 0);
	/* Where the sizes say it all nothing is read. */
	if (!compare->options->strict || is_streaming(compare) || sides[0].size == sides[1].size)
		while (compare_once(compare, &progress))
			;
	/* Then nothing is in flight any more, not even what doesn't matter. Servers don't like clients
	 * that go before the answers: some end. */
	how = compare->error ? NDIO_CLOSE_CANCEL : NDIO_CLOSE_WAIT;
	for (unsigned i = 0; i < 2; i++)
		endpoint_close_volume(sides[i].endpoint, how);
	ret = compare_report_on(compare, report);
	progress_end(&progress, compare->done, total(compare),
		     ret == 0 && report->outcome == COMPARE_EQUAL);
	interrupt_defer();
	return ret;
}

int compare_run(struct endpoint *a, struct endpoint *b, const struct compare_options *options,
		struct compare_report *report, struct error *err)
{
	struct compare *compare = calloc(1, sizeof(*compare));
	int ret;

	*report = (struct compare_report){ .outcome = COMPARE_EQUAL };
	if (!compare)
		return error_set(err, ENOMEM, "no memory for comparing");
	compare->options = options;
	ret = compare_set_up(compare, a, b, err);
	if (ret == 0) {
		ret = compare_to_end(compare, report);
		if (ret < 0)
			*err = compare->message;
	}
	compare_free(compare);
	return ret;
}
