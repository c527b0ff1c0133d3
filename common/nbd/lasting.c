/* A queue's round, for one thread at a time:
 *
 *	gather_parcels (locked)
 *	                  what the session wants done on this link: its connection ended, subrequests
 *	                  that are done, records whose memory is free again, what is to be sent
 *	transmit          the latter, each in a parcel of its own
 *	queue_look        sleeps
 *	collect           what has landed, and whether the connection is lost: told to the session
 *
 * A subrequest of the engine's is a pending, from lasting_issue() to its end, however often it is
 * sent. A parcel is on the wire, and is one connection's: when that is ended it is empty again, and
 * libnbd has forgotten it. Both are the queue's own and never more than were made with it.
 *
 * What was written successfully is copied for the log, without the lock, before the session hears of
 * it: it may be done, and its memory the caller's again, at any time after that.
 *
 * A command that there is no memory for is a connection that is lost: no server has refused it, and it
 * may well be sent later.
 *
 * Threads: the queues' own and the one that dials. One lock, under which nothing blocks but the
 * closing of a connection that is lost. */
#include "nbd/lasting.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/align.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "nbd/lasting-own.h"
#include "nbd/nbd-wire.h"

#define OWN_PARCELS 66   /* what a session sends by itself at once: a window of its log, and two */
#define QUIESCE_MS  5000 /* what a server without a fence may still run of what was cut off */
#define MAX_LEN     4194304 /* bytes: so much of the log's memory may lie idle at its end */

struct pending {
	struct session_op op; /* first */
	struct session_record place;
	struct ndio_subrequest *sub;
	struct pending *next;
};

struct parcel {
	struct ndio_subrequest wire; /* first */
	struct session_op *op;       /* as long as its epoch lasts; NULL: it is idle */
	struct pending *pending;     /* whose op that is, or NULL: the session's own */
	uint64_t epoch;
	void *compared; /* what is read to be compared, or NULL */
	struct parcel *next;
};

struct target_queue {
	struct nbd_wire wire;
	struct lasting *lasting;
	unsigned number;        /* of its link */
	int nudge_fd;           /* others have given it something to do */
	_Atomic bool is_nudged; /* so who polls without sleeping sees that, too */
	uint64_t epoch;         /* of the link */
	struct landed landed;
	unsigned depth, nr_pending;
	struct pending *pendings, *idle_pendings;
	unsigned nr_parcels; /* in use */
	struct parcel *parcels, *idle_parcels;
};

uint64_t lasting_max_len(uint64_t unflushed)
{
	const struct session session = { .options = { .unflushed = unflushed } };

	return min_u64(session_max_len(&session), MAX_LEN);
}

/* ---- waking others ---- */

void lasting_nudge(const struct seat *seat)
{
	const uint64_t one = 1;

	if (!seat->queue)
		return;
	atomic_store(&seat->queue->is_nudged, true);
	if (write(seat->nudge_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

bool lasting_wake(struct lasting *lasting, unsigned own)
{
	uint64_t busy = session_busy(&lasting->session);
	bool alone = false;

	for (unsigned i = 0; busy; i++, busy >>= 1) {
		if (!(busy & 1) || i == own)
			continue;
		lasting_nudge(&lasting->seat[i]);
		alone |= !lasting->seat[i].queue;
	}
	return alone;
}

/* The lock, with what is to be done by others. */
static void lasting_let_go(struct lasting *lasting, unsigned own)
{
	const struct session *session = &lasting->session;
	bool alone = lasting_wake(lasting, own);

	if (lasting->dial_epoch && lasting->dial_epoch != session->epoch)
		atomic_store(&lasting->dial_over, true);
	if (alone || session_has_news(session) || session_wake_at(session) < lasting->asleep_until)
		pthread_cond_signal(&lasting->changed);
	pthread_mutex_unlock(&lasting->lock);
}

/* ---- parcels ---- */

static void add_idle(struct target_queue *queue, struct parcel *parcel)
{
	parcel->op = NULL;
	parcel->next = queue->idle_parcels;
	queue->idle_parcels = parcel;
}

static void empty(struct target_queue *queue, struct parcel *parcel)
{
	/* What the caller was told of extents he isn't told again. */
	if (parcel->pending)
		parcel->pending->sub->progress.told = parcel->wire.progress.told;
	free(parcel->compared);
	add_idle(queue, parcel);
	queue->nr_parcels--;
}

static struct parcel *pack(struct target_queue *queue, struct session_op *op)
{
	struct parcel *parcel = queue->idle_parcels;
	struct ndio_subrequest *wire = &parcel->wire;

	queue->idle_parcels = parcel->next;
	queue->nr_parcels++;
	parcel->op = op;
	parcel->epoch = queue->epoch;
	parcel->pending = op->internal ? NULL : (struct pending *)op;
	if (parcel->pending)
		*wire = *parcel->pending->sub;
	else
		*wire = (struct ndio_subrequest){ 0 };
	wire->op = op->flush ? OP_FLUSH : op->op;
	wire->flags = queue->wire.can_fua ? op->flags : op->flags & ~(unsigned)REQ_FUA;
	wire->start = op->start;
	wire->len = wire->op == OP_FLUSH ? 0 : op->len;
	wire->progress.arrived = 0;
	parcel->compared = op->compare ? malloc(op->len) : NULL;
	wire->io_base = op->compare ? parcel->compared : op->data;
	return parcel;
}

/* ---- what the session wants done ---- */

void lasting_end_link(const struct lasting *lasting, struct nbd_link *link)
{
	if (lasting->session.error == -ECANCELED)
		nbd_link_close(link);
	else
		nbd_link_reset(link);
}

static void end_link(struct target_queue *queue)
{
	if (queue->wire.link)
		lasting_end_link(queue->lasting, queue->wire.link);
	queue->wire.link = NULL;
	queue->wire.in_flight = 0;
	queue->wire.landed = (struct landed){ 0 };
	queue->wire.again = NULL;
	queue->wire.starved = false;
	for (unsigned i = 0; i < queue->depth + OWN_PARCELS; i++)
		if (queue->parcels[i].op)
			empty(queue, &queue->parcels[i]);
}

static void queue_finish(struct target_queue *queue, struct session_op *op)
{
	struct pending *pending = (struct pending *)op;

	if (op->record && op->record != &pending->place && !op->kept)
		session_memory_give(&queue->lasting->memory, op->record);
	pending->sub->result = op->result;
	landed_add(&queue->landed, pending->sub);
	pending->sub = NULL;
	pending->next = queue->idle_pendings;
	queue->idle_pendings = pending;
	queue->nr_pending--;
}

static void take_fresh(struct target_queue *queue)
{
	struct seat *seat = &queue->lasting->seat[queue->number];

	if (!seat->fresh)
		return;
	assert(!queue->wire.link);
	queue->wire.link = seat->fresh;
	queue->wire.link->nudge_fd = queue->nudge_fd;
	queue->epoch = queue->lasting->session.epoch;
	seat->fresh = NULL;
}

/* With the lock held. What is to be sent, in order. */
static struct parcel *gather_parcels(struct target_queue *queue)
{
	struct lasting *lasting = queue->lasting;
	struct parcel *first = NULL, **end = &first;
	struct session_record *record;
	struct session_op *op;

	take_fresh(queue);
	for (;;) {
		switch (session_next(&lasting->session, queue->number, &op, &record, clock_ms())) {
		case SESSION_END:
			end_link(queue);
			break;
		case SESSION_DONE:
			queue_finish(queue, op);
			break;
		case SESSION_RELEASE:
			session_memory_give(&lasting->memory, record);
			break;
		case SESSION_SEND:
			*end = pack(queue, op);
			end = &(*end)->next;
			*end = NULL;
			break;
		case SESSION_NOTHING:
			return first;
		}
	}
}

/* Without the lock. */
static void transmit(struct target_queue *queue, struct parcel *first)
{
	struct parcel *parcel, *next;

	for (parcel = first; parcel; parcel = next) {
		next = parcel->next;
		if (parcel->op->compare && !parcel->compared) {
			parcel->wire.result = -ENOMEM;
			landed_add(&queue->wire.landed, &parcel->wire);
			queue->wire.starved = true;
		} else {
			wire_issue(&queue->wire, &parcel->wire);
		}
	}
}

/* With the lock held, which it lets go. */
static void carry_out(struct target_queue *queue)
{
	struct parcel *first = gather_parcels(queue);

	lasting_let_go(queue->lasting, queue->number);
	transmit(queue, first);
}

/* ---- what the connection brings ---- */

/* Of what is read to be compared: len if it is what should be there, or 0. */
static int64_t parcel_compare(const struct parcel *parcel)
{
	const struct session_op *op = parcel->op;
	bool same = op->zero ? is_zero(parcel->compared, op->len) :
			       memcmp(parcel->compared, op->data, op->len) == 0;

	return same ? (int64_t)op->len : 0;
}

/* Has a change landed well that the log may want, and hasn't got a place there yet? */
static bool may_be_kept(const struct parcel *parcel)
{
	const struct pending *pending = parcel->pending;

	return pending && parcel->wire.result >= 0 && parcel->wire.op != OP_FLUSH &&
	       pending->op.record == &pending->place;
}

/* A place in the log for a copy of it, if it needs one and there is any: with the lock held. */
static void make_place(struct lasting *lasting, const struct parcel *parcel)
{
	struct session_op *op = &parcel->pending->op;
	struct session_record *released;

	if (parcel->epoch != lasting->session.epoch || !session_wants_copy(&lasting->session, op))
		return;
	while ((released = session_released(&lasting->session)))
		session_memory_give(&lasting->memory, released);
	op->record = session_memory_take(&lasting->memory, op->op == OP_WRITE ? op->len : 0);
}

/* Into its place, if it has got one. */
static void copy_data(const struct parcel *parcel)
{
	const struct pending *pending = parcel->pending;

	if (!pending || parcel->wire.op != OP_WRITE || parcel->wire.result < 0)
		return;
	if (pending->op.record && pending->op.record != &pending->place)
		session_memory_fill(pending->op.record, pending->op.data, pending->op.len);
}

/* Without the lock, but to make place. */
static void copy_for_log(struct target_queue *queue, struct ndio_subrequest *landed)
{
	struct lasting *lasting = queue->lasting;
	struct ndio_subrequest *sub = landed;

	while (sub && !may_be_kept((struct parcel *)sub))
		sub = sub->next;
	if (!sub)
		return;
	pthread_mutex_lock(&lasting->lock);
	for (sub = landed; sub; sub = sub->next)
		if (may_be_kept((struct parcel *)sub))
			make_place(lasting, (struct parcel *)sub);
	pthread_mutex_unlock(&lasting->lock);
	for (sub = landed; sub; sub = sub->next)
		copy_data((struct parcel *)sub);
}

static void note_why(struct lasting *lasting, const struct nbd_link *link)
{
	const char *failure = link->tls ? tls_failure(link->tls) : NULL;
	int64_t seconds = link->silence.limit / 1000;

	if (link->silent)
		error_set(&lasting->why, ETIMEDOUT,
			  "the server has not answered for %" PRIi64 " second%s", seconds,
			  seconds == 1 ? "" : "s");
	else
		error_set(&lasting->why, ENOTCONN, "%s", failure ? failure : "it was closed");
}

/* With the lock held. An error of a connection that is lost need not be the server's, and what
 * landed in an epoch that is over is sent again. */
static void tell_session(struct target_queue *queue, struct ndio_subrequest *landed, bool up)
{
	struct session *session = &queue->lasting->session;
	struct ndio_subrequest *sub, *next;
	int64_t now = clock_ms();

	for (sub = landed; sub; sub = next) {
		struct parcel *parcel = (struct parcel *)sub;

		next = sub->next;
		if (parcel->epoch == session->epoch && (sub->result >= 0 || up)) {
			if (sub->result >= 0 && parcel->compared)
				sub->result = parcel_compare(parcel);
			session_landed(session, parcel->op, parcel->epoch, sub->result, now);
		}
		empty(queue, parcel);
	}
	if (up)
		return;
	if (queue->wire.starved)
		error_set(&queue->lasting->why, ENOMEM, "no memory for a command");
	else
		note_why(queue->lasting, queue->wire.link);
	session_lost(session, queue->number, queue->epoch, now);
}

/* Has its connection come to an end by itself, or can't it be used any more? */
static bool is_cut(const struct target_queue *queue)
{
	return queue->wire.link && (queue->wire.starved || !nbd_link_is_up(queue->wire.link));
}

static void collect(struct target_queue *queue)
{
	bool up = !is_cut(queue);
	struct ndio_subrequest *landed = landed_take(&queue->wire.landed);

	copy_for_log(queue, landed);
	pthread_mutex_lock(&queue->lasting->lock);
	tell_session(queue, landed, up);
	carry_out(queue);
}

/* ---- the queue ---- */

void lasting_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	struct pending *pending = queue->idle_pendings;

	assert(pending);
	queue->idle_pendings = pending->next;
	queue->nr_pending++;
	pending->sub = sub;
	pending->op = (struct session_op){
		.op = sub->op,
		.flags = sub->flags & (REQ_FUA | REQ_MAY_TRIM | REQ_FAST_ZERO),
		.start = sub->start,
		.len = sub->len,
		.data = sub->io_base,
		.link = queue->number,
	};
	if (sub->op == OP_WRITE || sub->op == OP_ZERO)
		pending->op.record = &pending->place;
	pthread_mutex_lock(&queue->lasting->lock);
	session_issue(&queue->lasting->session, &pending->op, clock_ms());
	carry_out(queue);
}

void lasting_submit(struct target_queue *queue)
{
	if (queue->wire.link)
		nbd_link_submit(queue->wire.link);
}

/* True: wake_fd can be read. *nudged: others have given it something to do. */
static bool queue_look(struct target_queue *queue, bool sleep, int wake_fd, bool *nudged)
{
	struct pollfd fds[2] = {
		{ .fd = wake_fd, .events = POLLIN },
		{ .fd = queue->nudge_fd, .events = POLLIN },
	};
	struct nbd_link *link = queue->wire.link;
	uint64_t count;
	bool awake;

	/* What was lost or has landed while it was sent. */
	if (is_cut(queue) || queue->wire.landed.first)
		sleep = false;
	if (link) {
		awake = nbd_link_look(link, sleep ? -1 : 0, wake_fd);
		*nudged = link->nudged;
		wire_go_on(&queue->wire);
	} else {
		awake = poll(fds, 2, sleep ? -1 : 0) > 0 && fds[0].revents;
		*nudged = fds[1].revents;
	}
	if (*nudged) {
		atomic_store(&queue->is_nudged, false);
		if (read(queue->nudge_fd, &count, sizeof(count)) < 0)
			assert(errno == EAGAIN || errno == EINTR);
	}
	return awake;
}

struct ndio_subrequest *lasting_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	bool sleep, awake, nudged;

	do {
		sleep = wait && !queue->landed.first && (queue->nr_pending || wake_fd >= 0);
		awake = nudged = false;
		/* Connections are made anew together: also one that has nothing in flight is needed. */
		if (sleep || queue->nr_parcels || queue->nr_pending ||
		    atomic_load(&queue->is_nudged))
			awake = queue_look(queue, sleep, wake_fd, &nudged);
		if (nudged || queue->wire.landed.first || is_cut(queue))
			collect(queue);
	} while (sleep && !awake && !queue->landed.first);
	return landed_take(&queue->landed);
}

void lasting_cancel(struct target_queue *queue)
{
	struct lasting *lasting = queue->lasting;

	pthread_mutex_lock(&lasting->lock);
	session_end(&lasting->session, -ECANCELED, clock_ms());
	carry_out(queue);
}

static void free_queue(struct target_queue *queue)
{
	if (queue->nudge_fd >= 0)
		close(queue->nudge_fd);
	free(queue->pendings);
	free(queue->parcels);
	free(queue);
}

static struct target_queue *make_queue(struct lasting *lasting, unsigned depth)
{
	struct target_queue *queue = calloc(1, sizeof(*queue));

	if (!queue)
		return NULL;
	queue->lasting = lasting;
	queue->depth = depth;
	queue->nudge_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	queue->pendings = calloc(depth, sizeof(*queue->pendings));
	queue->parcels = calloc(depth + OWN_PARCELS, sizeof(*queue->parcels));
	if (queue->nudge_fd < 0 || !queue->pendings || !queue->parcels) {
		free_queue(queue);
		return NULL;
	}
	for (unsigned i = 0; i < depth; i++) {
		queue->pendings[i].next = queue->idle_pendings;
		queue->idle_pendings = &queue->pendings[i];
	}
	for (unsigned i = 0; i < depth + OWN_PARCELS; i++)
		add_idle(queue, &queue->parcels[i]);
	queue->wire.secret = lasting->options.secret;
	queue->wire.can_fua = lasting->options.disk.can_fua;
	return queue;
}

/* With the lock held: the first link that nobody has. */
static bool sit_down(struct target_queue *queue)
{
	struct lasting *lasting = queue->lasting;

	for (unsigned i = 0; i < lasting->options.links; i++) {
		if (lasting->seat[i].queue)
			continue;
		lasting->seat[i].queue = queue;
		lasting->seat[i].nudge_fd = queue->nudge_fd;
		session_leave_alone(&lasting->session, i, false);
		queue->number = i;
		return true;
	}
	return false;
}

struct target_queue *lasting_queue_open(struct lasting *lasting, unsigned depth, struct error *err)
{
	struct target_queue *queue = make_queue(lasting, depth);
	bool seated;

	if (!queue) {
		error_set(err, ENOMEM, "%s: no memory for a connection",
			  lasting->options.server->name);
		return NULL;
	}
	pthread_mutex_lock(&lasting->lock);
	seated = sit_down(queue);
	pthread_mutex_unlock(&lasting->lock);
	assert(seated);
	if (lasting_start_dialling(lasting, err) < 0) {
		lasting->seat[queue->number].queue = NULL;
		free_queue(queue);
		return NULL;
	}
	pthread_mutex_lock(&lasting->lock);
	carry_out(queue);
	return queue;
}

void lasting_queue_close(struct target_queue *queue)
{
	struct lasting *lasting = queue->lasting;

	assert(queue->nr_pending == 0 && !queue->landed.first);
	pthread_mutex_lock(&lasting->lock);
	session_leave_alone(&lasting->session, queue->number, true);
	gather_parcels(queue);
	/* Something of the session's own is on its way, and nobody will be there when it lands. */
	if (queue->nr_parcels > 0) {
		session_lost(&lasting->session, queue->number, queue->epoch, clock_ms());
		gather_parcels(queue);
	}
	assert(!queue->landed.first);
	lasting->seat[queue->number] = (struct seat){ .fresh = queue->wire.link };
	if (queue->wire.link)
		queue->wire.link->nudge_fd = -1;
	lasting_let_go(lasting, queue->number);
	lasting_stop_dialling(lasting);
	free_queue(queue);
}

/* ---- the whole ---- */

static void close_all(struct nbd_link **links, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		nbd_link_close(links[i]);
}

/* The session begins where all are connected, or as if some had been lost just now. */
static int lasting_begin(struct lasting *lasting, struct nbd_link **links, struct error *err)
{
	const struct lasting_options *options = &lasting->options;
	int64_t now = clock_ms();
	unsigned number;
	int ret = 0;

	for (unsigned i = 0; i < options->links && ret == 0; i++) {
		struct session_identity identity = { 0 };

		if (!session_dial(&lasting->session, &number, now))
			break;
		nbd_link_look(links[i], 0, -1);
		if (!nbd_link_is_up(links[i])) {
			note_why(lasting, links[i]);
			session_lost(&lasting->session, number, 1, now);
			continue;
		}
		ret = options->identify(options->opaque, links[i], &identity, err);
		lasting->seat[number].fresh = links[i];
		if (ret == 0 && session_connected(&lasting->session, number, 1, &identity, now))
			links[i] = NULL;
		else
			lasting->seat[number].fresh = NULL;
	}
	if (ret == 0 && lasting->session.state == SESSION_ENDED)
		ret = error_set(err, -lasting->session.error, "%s: %s", options->server->name,
				error_reason(-lasting->session.error));
	close_all(links, options->links);
	return ret;
}

int lasting_open(const struct lasting_options *options, struct nbd_link **links,
		 struct lasting **result, struct error *err)
{
	struct session_options session = {
		.links = options->links,
		.unflushed = options->unflushed,
		.reconnect = options->reconnect * INT64_C(1000),
		.quiesce = min_u64(options->server->answer_timeout * INT64_C(1000), QUIESCE_MS),
	};
	struct lasting *lasting = calloc(1, sizeof(*lasting));
	int ret;

	if (!lasting) {
		close_all(links, options->links);
		return error_set(err, ENOMEM, "%s: no memory", options->server->name);
	}
	lasting->options = *options;
	lasting->asleep_until = lasting->hurry_at = INT64_MAX;
	mutex_init_short(&lasting->lock);
	pthread_cond_init(&lasting->changed, NULL);
	if (getrandom(&session.seed, sizeof(session.seed), 0) < 0)
		session.seed = clock_ms();
	session_init(&lasting->session, &session, &options->disk, clock_ms());
	for (unsigned i = 0; i < options->links; i++)
		session_leave_alone(&lasting->session, i, true);
	ret = session_memory_init(&lasting->memory, options->unflushed, options->max_len,
				  options->memory_ready, err);
	if (ret == 0)
		ret = nbd_watch_start(&options->server->watch, err);
	if (ret == 0) {
		ret = lasting_begin(lasting, links, err);
		nbd_watch_stop(&options->server->watch);
	} else {
		close_all(links, options->links);
	}
	if (ret < 0)
		lasting_close(lasting);
	else
		*result = lasting;
	return ret;
}

void lasting_close(struct lasting *lasting)
{
	if (!lasting)
		return;
	assert(lasting->nr_queues == 0);
	for (unsigned i = 0; i < lasting->options.links; i++)
		nbd_link_close(lasting->seat[i].fresh);
	session_memory_destroy(&lasting->memory);
	pthread_cond_destroy(&lasting->changed);
	pthread_mutex_destroy(&lasting->lock);
	free(lasting);
}

void lasting_read_facts(struct lasting *lasting, struct lasting_facts *facts)
{
	const struct session *session = &lasting->session;

	pthread_mutex_lock(&lasting->lock);
	*facts = (struct lasting_facts){
		.state = session->state,
		.fences = session->seen.fences,
		.lost_ms = session->state == SESSION_UP ? 0 : clock_ms() - session->lost_at,
		.times_lost = session->times_lost,
		.unflushed = session->kept,
	};
	pthread_mutex_unlock(&lasting->lock);
}
