#include "nbd/session.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/align.h"
#include "nbd/session-bug.h"

#define FIRST_MS 100  /* before the second try to dial: twice as long each time */
#define MOST_MS  5000 /* up to this */
#define CALM_MS  1000 /* up for so long, and the first try is made at once, else soon */
#define WINDOW   64   /* records that are replayed at once */
#define LOSSES   4 /* with how many connections an operation may be lost, however long it takes */
#define SHARE    4 /* no write may take more of the log than one part in so many */
/* The log is flushed once one part in so many is used. At a half writers waited more: a disk that
 * caches writes takes as long for a flush as for what it covers, and what came meanwhile. */
#define EARLY 4

enum op_state {
	OP_IDLE,   /* not the session's */
	OP_HELD,   /* in held or room */
	OP_READY,  /* in flying; the connection isn't told yet */
	OP_SENT,   /* in flying */
	OP_AGAIN,  /* in again */
	OP_PARKED, /* in parked or synced */
	OP_DONE,   /* its caller isn't told yet */
};

_Static_assert(sizeof(struct session_record) <= SESSION_OVERHEAD, "a record costs what is counted");

#define TO(state) (1u << SESSION_##state)

static const unsigned transitions[SESSION_STATES] = {
	[SESSION_WAITING] = TO(QUIESCING) | TO(REPLAYING) | TO(UP) | TO(GIVEN_UP) | TO(ENDED),
	[SESSION_QUIESCING] = TO(REPLAYING) | TO(UP) | TO(WAITING) | TO(GIVEN_UP) | TO(ENDED),
	[SESSION_REPLAYING] = TO(CHECKING) | TO(UP) | TO(WAITING) | TO(GIVEN_UP) | TO(ENDED),
	[SESSION_CHECKING] = TO(QUIESCING) | TO(UP) | TO(WAITING) | TO(GIVEN_UP) | TO(ENDED),
	[SESSION_UP] = TO(WAITING) | TO(ENDED),
	[SESSION_GIVEN_UP] = TO(QUIESCING) | TO(REPLAYING) | TO(UP) | TO(ENDED),
	[SESSION_ENDED] = 0,
};

#ifdef SESSION_VALIDATE
#define validate(session) session_validate(session)
#else
#define validate(session) ((void)(session))
#endif

static void go(struct session *session, enum session_state state)
{
	assert(transitions[session->state] & (1u << state));
	session->state = state;
}

static bool is_dialling(const struct session *session)
{
	return session->state == SESSION_WAITING || session->state == SESSION_GIVEN_UP;
}

/* splitmix64 */
static uint64_t random_next(struct session *session)
{
	uint64_t x = session->random += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* ---- lists ---- */

static void list_add(struct session_list *list, struct session_op *op, enum op_state state)
{
	op->state = state;
	op->next = NULL;
	op->prev = list->last;
	*(list->last ? &list->last->next : &list->first) = op;
	list->last = op;
}

static void list_remove(struct session_list *list, struct session_op *op)
{
	*(op->prev ? &op->prev->next : &list->first) = op->next;
	*(op->next ? &op->next->prev : &list->last) = op->prev;
	op->prev = op->next = NULL;
}

static struct session_op *list_take(struct session_list *list)
{
	struct session_op *op = list->first;

	if (op)
		list_remove(list, op);
	return op;
}

static void add_out(struct session_op ***end, struct session_op *op)
{
	op->out = NULL;
	**end = op;
	*end = &op->out;
}

/* ---- what an operation is ---- */

static bool is_change(const struct session_op *op)
{
	return op->op == OP_WRITE || op->op == OP_ZERO || op->op == OP_TRIM;
}

static bool is_flush(const struct session_op *op)
{
	return op->flush || op->op == OP_FLUSH;
}

/* Is what it changes not acknowledged yet? */
static bool may_change(const struct session_op *op)
{
	return is_change(op) && !is_flush(op);
}

/* Does it matter when it is run, though nobody waits for it any more? A flush may be told an
 * error that the next one isn't told again. */
static bool is_harmful(const struct session_op *op)
{
	return is_change(op) || is_flush(op);
}

/* May its success be owed to another having been told the error? And the other way round. */
static bool is_sync(const struct session_op *op)
{
	return is_flush(op) || (is_change(op) && (op->flags & REQ_FUA));
}

static bool overlap(const struct session_op *a, const struct session_op *b)
{
	return a->start < b->start + b->len && b->start < a->start + a->len;
}

/* ---- the log ---- */

/* Does it need one, and can it have one? */
static bool keeps_log(const struct session *session)
{
	return session->identity.can_flush && !session->flush_error && !HAS_BUG(BUG_NO_LOG);
}

static uint64_t cost_of(const struct session_op *op)
{
	return SESSION_OVERHEAD + (op->op == OP_WRITE ? op->len : 0);
}

static bool log_has_room(const struct session *session, const struct session_op *op)
{
	return session->kept + session->reserved + cost_of(op) <= session->options.unflushed;
}

static bool is_logged(const struct session *session, const struct session_op *op)
{
	for (const struct session_record *each = session->log; each; each = each->next)
		if (overlap(&each->op, op))
			return true;
	return false;
}

static void unreserve(struct session *session, struct session_op *op)
{
	session->reserved -= op->cost;
	op->cost = 0;
}

static void log_keep(struct session *session, struct session_op *op)
{
	struct session_record *record = op->record;

	record->op = (struct session_op){
		.op = op->op,
		.flags = op->flags & REQ_MAY_TRIM,
		.start = op->start,
		.len = op->len,
		.data = record->op.data,
		.internal = true,
		.since = -1,
	};
	session->kept += op->cost;
	unreserve(session, op);
	op->kept = true;
	record->number = ++session->last_number;
	record->next = NULL;
	*(session->log ? &session->log_last->next : &session->log) = record;
	session->log_last = record;
	if (HAS_BUG(BUG_REPLAY_ORDER) && session->log != record) {
		struct session_record *before = session->log;

		while (before->next != record)
			before = before->next;
		before->next = NULL;
		session->log_last = before;
		record->next = session->log;
		session->log = record;
	}
}

/* Drops all up to this number: they are safe, or of no use any more. */
static void release(struct session *session, uint64_t number)
{
	struct session_record *record;

	while ((record = session->log) && record->number <= number) {
		session->log = record->next;
		session->kept -= cost_of(&record->op);
		record->next = session->released;
		session->released = record;
	}
	if (!session->log)
		session->log_last = NULL;
}

/* ---- to the caller, and to the server ---- */

static void op_done(struct session *session, struct session_op *op, int64_t result)
{
	struct session_link *link = &session->link[op->link];

	unreserve(session, op);
	op->result = result;
	op->state = OP_DONE;
	add_out(&link->done_end, op);
}

static void send_op(struct session *session, struct session_op *op)
{
	struct session_link *link = &session->link[op->link];

	op->mark = session->last_number;
	op->sync = is_sync(op) ? ++session->syncs : 0;
	if (HAS_BUG(BUG_FREED_EARLY) && is_flush(op))
		release(session, op->mark);
	session->sent_again += op->sent;
	op->sent = true;
	list_add(&session->flying, op, OP_READY);
	add_out(&link->send_end, op);
}

/* Makes room before it is needed, so that writers don't wait. */
static void flush_if_due(struct session *session, unsigned link)
{
	if (session->state != SESSION_UP || session->own.state != OP_IDLE ||
	    session->kept < session->options.unflushed / EARLY)
		return;
	session->own = (struct session_op){
		.op = OP_FLUSH,
		.link = link,
		.internal = true,
		.since = -1,
	};
	send_op(session, &session->own);
}

/* While UP. */
static void op_start(struct session *session, struct session_op *op)
{
	bool fua = is_change(op) && (op->flags & REQ_FUA);

	if (session->flush_error && (fua || op->op == OP_FLUSH)) {
		op_done(session, op, session->flush_error);
		return;
	}
	if (op->record && keeps_log(session)) {
		if (session->room.first || !log_has_room(session, op)) {
			list_add(&session->room, op, OP_HELD);
			return;
		}
		op->cost = cost_of(op);
		session->reserved += op->cost;
	}
	send_op(session, op);
}

static void use_room(struct session *session)
{
	struct session_op *op;

	while (session->state == SESSION_UP && (op = session->room.first) &&
	       (!keeps_log(session) || log_has_room(session, op))) {
		struct session_list rest;

		list_remove(&session->room, op);
		rest = session->room;
		session->room = (struct session_list){ 0 }; /* it is its turn */
		op_start(session, op);
		session->room = rest;
	}
}

/* ---- landing ---- */

/* As Linux does a server may tell an error once, to one flush of many: so it is remembered. What
 * isn't safe now will never be known to be, and needs no place. */
static void flush_failed(struct session *session, int error)
{
	if (!session->flush_error)
		session->flush_error = error;
	session->gap = true;
	release(session, UINT64_MAX);
}

static void flush_done(struct session *session, struct session_op *op)
{
	int64_t result = is_change(op) ? (int64_t)op->len : 0;

	if (!session->flush_error)
		release(session, HAS_BUG(BUG_FLUSH_COVERS) ? session->last_number : op->mark);
	if (op->internal)
		op->state = OP_IDLE;
	else
		op_done(session, op, session->flush_error ? session->flush_error : result);
}

/* Those that were sent up to this one: are all of them seen to succeed? */
static bool is_sync_flying(const struct session *session, uint64_t last)
{
	for (const struct session_op *each = session->flying.first; each; each = each->next)
		if (each->sync && each->sync <= last)
			return true;
	return false;
}

/* Any of those that are under way now may have been told the error that this one should have
 * been; so what it covers stays in the log until they are seen to succeed, or are lost with their
 * connection and everything is sent again. A server with a fence tells everybody. */
static void finish_syncs(struct session *session)
{
	struct session_op *op;

	while ((op = session->synced.first) &&
	       (session->flush_error || !is_sync_flying(session, op->sync))) {
		list_remove(&session->synced, op);
		flush_done(session, op);
	}
}

static void flush_landed(struct session *session, struct session_op *op, int64_t result)
{
	if (result < 0)
		flush_failed(session, result);
	if (session->seen.fences || result < 0) {
		flush_done(session, op);
	} else {
		op->sync = session->syncs;
		list_add(&session->synced, op, OP_PARKED);
	}
}

/* A change that the server has acknowledged. */
static void change_landed(struct session *session, struct session_op *op)
{
	bool fua = op->flags & REQ_FUA, logs = op->op != OP_TRIM;
	bool safe = fua && session->identity.can_fua && !(logs && is_logged(session, op)) &&
		    (session->seen.fences || !is_sync_flying(session, UINT64_MAX));
	bool wanted = logs && !safe && keeps_log(session) && op->cost;

	if (wanted && op->record)
		log_keep(session, op);
	else if (!safe && session->flush_error && logs)
		session->gap = true;
	if (safe || !session->identity.can_flush || !(fua || (wanted && !op->kept))) {
		op_done(session, op, op->len);
		return;
	}
	if (session->flush_error) {
		op_done(session, op, session->flush_error);
		return;
	}
	op->flush = true;
	send_op(session, op);
}

/* One that isn't in any list, while UP. */
static void settle(struct session *session, struct session_op *op, int64_t result)
{
	unsigned link = op->link;

	if (is_flush(op)) {
		flush_landed(session, op, result);
	} else if (result >= 0 && is_change(op)) {
		change_landed(session, op);
	} else {
		if (result == -EIO && is_sync(op))
			flush_failed(session, result);
		op_done(session, op, result);
	}
	finish_syncs(session);
	flush_if_due(session, link);
	use_room(session);
}

/* ---- lost, given up, ended ---- */

static void fail_list(struct session *session, struct session_list *list, int error)
{
	struct session_op *op;

	while ((op = list_take(list)))
		op_done(session, op, error);
}

static void fail_all(struct session *session, int error)
{
	fail_list(session, &session->again, error);
	fail_list(session, &session->held, error);
	fail_list(session, &session->room, error);
}

static void end_links(struct session *session)
{
	for (unsigned i = 0; i < session->options.links; i++) {
		struct session_link *link = &session->link[i];

		link->send = NULL;
		link->send_end = &link->send;
		if (HAS_BUG(BUG_OLD_CONNECTION) && i > 0 && link->state == SESSION_LINK_UP)
			continue;
		if (link->state == SESSION_LINK_UP) {
			link->end = true;
			session->nr_end++;
			session->nr_up--;
		}
		link->state = SESSION_LINK_DOWN;
	}
}

/* What is left in flight may be run as long as the socket isn't reset, and for a while after it. */
static void doubt(struct session *session, int64_t now)
{
	session->doubted = true;
	session->doubt_until = now + session->options.quiesce;
	if (!session->seen.fences)
		session->unfenced_until = session->doubt_until;
}

/* An operation that is lost time and again, for so long that a server would have been given up,
 * isn't sent for ever: it may be what kills the server. */
static void requeue(struct session *session, struct session_op *op, int64_t now)
{
	if (op->internal) {
		op->state = OP_IDLE;
	} else if (op->losses >= LOSSES && now - op->since >= session->options.reconnect) {
		op_done(session, op, -ETIMEDOUT);
	} else {
		/* Of one that is in no log what was written is needed once more. */
		op->flush &= op->kept || op->op == OP_TRIM;
		op->losses += op->losses < LOSSES;
		op->since = op->since < 0 ? now : op->since;
		list_add(&session->again, op, OP_AGAIN);
	}
}

static void requeue_all(struct session *session, int64_t now)
{
	struct session_op *op;

	while ((op = list_take(&session->flying))) {
		if (is_harmful(op))
			doubt(session, now);
		requeue(session, op, now);
	}
	while ((op = list_take(&session->parked)) || (op = list_take(&session->synced)))
		requeue(session, op, now);
	session->cursor = NULL;
	session->replaying = 0;
	session->redone = false;
}

static void dial_later(struct session *session, int64_t now)
{
	int64_t delay = session->attempts == 0 ? 0 : FIRST_MS;

	for (unsigned i = 1; i < session->attempts && delay < MOST_MS; i++)
		delay *= 2;
	if (delay > MOST_MS)
		delay = MOST_MS;
	session->attempts++;
	session->dial_at = now + delay / 2 + (int64_t)(random_next(session) % (delay / 2 + 1));
}

static bool is_too_late(const struct session *session, int64_t now)
{
	return now - session->lost_at >= session->options.reconnect;
}

static void session_give_up(struct session *session)
{
	if (session->state != SESSION_GIVEN_UP)
		go(session, SESSION_GIVEN_UP);
	fail_all(session, -ETIMEDOUT);
}

static void lose(struct session *session, int64_t now)
{
	bool was_up = session->state == SESSION_UP;

	if (was_up) {
		session->lost_at = now;
		session->times_lost++;
		session->attempts = now - session->up_at >= CALM_MS ? 0 : 1;
	}
	end_links(session);
	requeue_all(session, now);
	session->answers = false;
	session->epoch++;
	dial_later(session, now);
	if (!was_up && (session->state == SESSION_GIVEN_UP || is_too_late(session, now)))
		session_give_up(session);
	else if (session->state != SESSION_WAITING)
		go(session, SESSION_WAITING);
}

void session_leave_alone(struct session *session, unsigned link, bool alone)
{
	session->link[link].alone = alone;
}

void session_end(struct session *session, int error, int64_t now)
{
	if (session->state == SESSION_ENDED)
		return;
	end_links(session);
	requeue_all(session, now);
	session->epoch++;
	session->error = error;
	go(session, SESSION_ENDED);
	fail_all(session, error);
	release(session, UINT64_MAX);
	validate(session);
}

/* ---- up again ---- */

static void take_up(struct session *session, int64_t now)
{
	struct session_list again = session->again, parked = session->parked, held = session->held;
	struct session_op *op;

	session->again = session->parked = session->held = (struct session_list){ 0 };
	session->verified = session->seen.has_instance;
	memcpy(session->verifier, session->seen.instance, sizeof(session->verifier));
	session->up_at = now;
	session->check = false;
	go(session, SESSION_UP);
	while ((op = list_take(&parked)))
		settle(session, op, op->result);
	while ((op = list_take(&again))) {
		if (op->op == OP_TRIM && !op->flush) {
			if (HAS_BUG(BUG_TRIM_REPLAYED) && session->probe.state == OP_IDLE) {
				session->probe = *op;
				session->probe.internal = true;
				send_op(session, &session->probe);
			}
			op_done(session, op, op->len);
		} else {
			send_op(session, op);
		}
	}
	while ((op = list_take(&held)))
		op_start(session, op);
	flush_if_due(session, 0);
	use_room(session);
}

/* ---- CHECKING ---- */

static void probe(struct session *session, struct session_op *about)
{
	while (about && (about->result < 0 || about->op == OP_TRIM))
		about = about->next;
	session->probed = about;
	session->probe = (struct session_op){
		.op = OP_READ,
		.compare = true,
		.internal = true,
		.since = -1,
	};
	if (!about)
		return;
	session->probe.start = about->start;
	session->probe.len = about->len;
	session->probe.data = about->data;
	session->probe.zero = about->op == OP_ZERO;
	session->probe.link = about->link;
	send_op(session, &session->probe);
}

static void session_check(struct session *session, int64_t now)
{
	if (!session->check || !session->parked.first) {
		take_up(session, now);
		return;
	}
	go(session, SESSION_CHECKING);
	if (!session->identity.can_flush) {
		probe(session, session->parked.first);
		if (!session->probed)
			take_up(session, now);
		return;
	}
	session->probed = NULL;
	session->probe = (struct session_op){ .op = OP_FLUSH, .internal = true, .since = -1 };
	send_op(session, &session->probe);
}

/* Something that an old connection had left was run after all: once more from the start. */
static void reverted(struct session *session, int64_t now)
{
	session->reverted++;
	requeue_all(session, now);
	if (is_too_late(session, now)) {
		lose(session, now);
		return;
	}
	session->doubt_until = session->unfenced_until = now + session->options.quiesce;
	session->quiet_at = session->doubt_until;
	go(session, SESSION_QUIESCING);
}

static void probe_landed(struct session *session, int64_t result, int64_t now)
{
	struct session_op *about = session->probed;

	session->probe.state = OP_IDLE;
	if (result < 0) {
		lose(session, now);
		return;
	}
	if (about && result != (int64_t)about->len) {
		reverted(session, now);
		return;
	}
	probe(session, about ? about->next : session->parked.first);
	if (!session->probed)
		take_up(session, now);
}

/* ---- REPLAYING ---- */

static bool may_replay(const struct session *session, const struct session_record *record)
{
	if (session->replaying >= WINDOW)
		return false;
	for (const struct session_op *each = session->flying.first; each; each = each->next)
		if (overlap(each, &record->op))
			return false;
	return true;
}

/* The changes that were in flight: newer than what is logged, and apart from each other. */
static void redo_changes(struct session *session)
{
	struct session_op *op, *next;

	session->redone = true;
	for (op = session->again.first; op; op = next) {
		next = op->next;
		if (!may_change(op) || op->op == OP_TRIM)
			continue;
		list_remove(&session->again, op);
		send_op(session, op);
		session->replaying++;
	}
}

/* In turns, as far as somebody sends there. */
static unsigned next_to_replay(const struct session *session)
{
	unsigned links = session->options.links, link = session->replayed % links;

	for (unsigned i = 1; i < links && session->link[link].alone; i++)
		link = (link + 1) % links;
	return link;
}

static void replay_on(struct session *session, int64_t now)
{
	struct session_record *record;

	while ((record = session->cursor) && may_replay(session, record)) {
		session->cursor = record->next;
		record->op.link = next_to_replay(session);
		session->replayed++;
		send_op(session, &record->op);
		session->replaying++;
	}
	if (!session->cursor && session->replaying == 0 && !session->redone)
		redo_changes(session);
	if (!session->cursor && session->replaying == 0)
		session_check(session, now);
}

static void let_through(struct session *session)
{
	struct session_op *op, *next;

	for (op = session->held.first; op; op = next) {
		next = op->next;
		if (op->op != OP_WRITE || session->room.first || !log_has_room(session, op))
			continue;
		list_remove(&session->held, op);
		op_start(session, op);
		session->replaying++;
	}
}

static void replay(struct session *session, int64_t now)
{
	go(session, SESSION_REPLAYING);
	session->verified = false; /* until it has all, nobody has */
	session->cursor = session->log;
	if (HAS_BUG(BUG_LET_THROUGH))
		let_through(session);
	replay_on(session, now);
}

static void replay_landed(struct session *session, struct session_op *op, int64_t result,
			  int64_t now)
{
	if (op->internal && result < 0) {
		lose(session, now);
		return;
	}
	session->replaying--;
	op->result = result;
	if (op->internal)
		op->state = OP_IDLE;
	else
		list_add(&session->parked, op, OP_PARKED);
	replay_on(session, now);
}

/* ---- events ---- */

static bool is_verifier(const struct session *session)
{
	if (HAS_BUG(BUG_NO_VERIFIER))
		return true;
	return session->verified && session->seen.has_instance &&
	       memcmp(session->verifier, session->seen.instance, SESSION_ID) == 0;
}

static void session_quiet(struct session *session, int64_t now)
{
	if (session->check || !is_verifier(session))
		replay(session, now);
	else
		take_up(session, now);
}

static void all_connected(struct session *session, int64_t now)
{
	int64_t until = session->seen.fences ? session->unfenced_until : session->doubt_until;

	/* A disk that nobody waited for any more may be somebody else's by now. */
	if (!is_verifier(session) &&
	    (session->gap || (session->log && session->state == SESSION_GIVEN_UP))) {
		session_end(session, -ESTALE, now);
		return;
	}
	session->quiet_at = until;
	session->check = session->check || until > now;
	if (until > now && !HAS_BUG(BUG_NO_FENCE))
		go(session, SESSION_QUIESCING);
	else
		session_quiet(session, now);
}

static bool is_same_disk(const struct session_identity *a, const struct session_identity *b)
{
	return a->size == b->size && a->facts == b->facts && a->can_flush == b->can_flush &&
	       a->can_fua == b->can_fua && memcmp(a->header, b->header, sizeof(a->header)) == 0;
}

static bool is_same_server(const struct session_identity *a, const struct session_identity *b)
{
	return a->fences == b->fences && a->has_instance == b->has_instance &&
	       memcmp(a->instance, b->instance, sizeof(a->instance)) == 0;
}

bool session_connected(struct session *session, unsigned link, uint64_t epoch,
		       const struct session_identity *identity, int64_t now)
{
	if (epoch != session->epoch || !is_dialling(session) ||
	    session->link[link].state != SESSION_LINK_DIALLING)
		return false;
	if (!is_same_disk(&session->identity, identity)) {
		session_end(session, -ESTALE, now);
		return false;
	}
	if (session->nr_up > 0 && !is_same_server(&session->seen, identity)) {
		lose(session, now);
		return false;
	}
	session->seen = *identity;
	session->link[link].state = SESSION_LINK_UP;
	if (++session->nr_up == session->options.links)
		all_connected(session, now);
	validate(session);
	return true;
}

void session_lost(struct session *session, unsigned link, uint64_t epoch, int64_t now)
{
	if (epoch != session->epoch || session->state == SESSION_ENDED ||
	    session->link[link].state == SESSION_LINK_DOWN)
		return;
	lose(session, now);
	validate(session);
}

void session_issue(struct session *session, struct session_op *op, int64_t now)
{
	(void)now;
	assert(op->link < session->options.links);
	assert(op->op != OP_WRITE || op->len <= session_max_len(session));
	assert(op->record || (op->op != OP_WRITE && op->op != OP_ZERO));
	op->flush = op->compare = op->zero = op->internal = op->kept = op->sent = false;
	op->since = -1;
	op->cost = op->mark = op->losses = 0;
	if (session->state == SESSION_UP)
		op_start(session, op);
	else if (session->state == SESSION_GIVEN_UP)
		op_done(session, op, -ETIMEDOUT);
	else if (session->state == SESSION_ENDED)
		op_done(session, op, session->error);
	else
		list_add(&session->held, op, OP_HELD);
	validate(session);
}

bool session_wants_copy(const struct session *session, const struct session_op *op)
{
	bool safe = (op->flags & REQ_FUA) && session->identity.can_fua && session->seen.fences;

	return op->cost && keeps_log(session) && !(safe && !is_logged(session, op));
}

void session_landed(struct session *session, struct session_op *op, uint64_t epoch, int64_t result,
		    int64_t now)
{
	if (epoch != session->epoch || op->state != OP_SENT)
		return;
	if (result == -ESHUTDOWN) {
		lose(session, now);
		validate(session);
		return;
	}
	session->answers = true;
	list_remove(&session->flying, op);
	op->state = OP_IDLE;
	if (op == &session->probe && session->state == SESSION_CHECKING)
		probe_landed(session, result, now);
	else if (op == &session->probe)
		session->probe.state = OP_IDLE;
	else if (session->state == SESSION_REPLAYING)
		replay_landed(session, op, result, now);
	else
		settle(session, op, result);
	validate(session);
}

void session_time(struct session *session, int64_t now)
{
	if (session->state == SESSION_WAITING && is_too_late(session, now))
		session_give_up(session);
	if (session->state == SESSION_QUIESCING && now >= session->quiet_at)
		session_quiet(session, now);
	validate(session);
}

/* The first alone: whether anybody answers is asked once, and the server's fence is waited for
 * once. */
static int next_to_dial(const struct session *session)
{
	unsigned last = session->nr_up == 0 ? 1 : session->options.links;

	if (!is_dialling(session) || session->nr_end > 0)
		return -1;
	for (unsigned i = 0; i < last; i++)
		if (session->link[i].state == SESSION_LINK_DOWN)
			return i;
	return -1;
}

int64_t session_wake_at(const struct session *session)
{
	int64_t at = INT64_MAX;

	if (session->state == SESSION_QUIESCING)
		return session->quiet_at;
	if (session->state == SESSION_WAITING)
		at = session->lost_at + session->options.reconnect;
	if (next_to_dial(session) >= 0 && session->dial_at < at)
		at = session->dial_at;
	return at;
}

/* ---- acts ---- */

bool session_dial(struct session *session, unsigned *link, int64_t now)
{
	int next = next_to_dial(session);

	if (next < 0 || now < session->dial_at)
		return false;
	session->link[next].state = SESSION_LINK_DIALLING;
	*link = next;
	return true;
}

static struct session_op *take_done(struct session_link *link)
{
	struct session_op *op = link->done;

	if (!op)
		return NULL;
	if (HAS_BUG(BUG_DONE_TWICE) && op->since >= 0 && op->since != INT64_MAX) {
		op->since = INT64_MAX;
		return op;
	}
	link->done = op->out;
	if (!link->done)
		link->done_end = &link->done;
	op->state = OP_IDLE;
	return op;
}

static struct session_op *take_send(struct session_link *link)
{
	struct session_op *op = link->send;

	if (!op)
		return NULL;
	link->send = op->out;
	if (!link->send)
		link->send_end = &link->send;
	op->state = OP_SENT;
	return op;
}

static void ended(struct session *session, struct session_link *link, int64_t now)
{
	link->end = false;
	session->nr_end--;
	if (session->doubted)
		doubt(session, now);
	if (session->nr_end == 0)
		session->doubted = false;
}

struct session_record *session_released(struct session *session)
{
	struct session_record *record = session->released;

	if (record)
		session->released = record->next;
	return record;
}

enum session_act session_next(struct session *session, unsigned number, struct session_op **op,
			      struct session_record **record, int64_t now)
{
	struct session_link *link = &session->link[number];

	if (link->end) {
		ended(session, link, now);
		return SESSION_END;
	}
	if ((*op = take_done(link)))
		return SESSION_DONE;
	if ((*record = session_released(session)))
		return SESSION_RELEASE;
	return (*op = take_send(link)) ? SESSION_SEND : SESSION_NOTHING;
}

uint64_t session_busy(const struct session *session)
{
	uint64_t busy = session->released ? 1 : 0;

	for (unsigned i = 0; i < session->options.links; i++) {
		const struct session_link *link = &session->link[i];

		if (link->end || link->done || link->send)
			busy |= UINT64_C(1) << i;
	}
	return busy;
}

bool session_has_news(const struct session *session)
{
	if (session->state == session->told)
		return false;
	switch (session->state) {
	case SESSION_UP:
		return session->answers || !session->flying.first;
	case SESSION_WAITING:
		return session->told == SESSION_UP;
	case SESSION_GIVEN_UP:
	case SESSION_ENDED:
		return true;
	default:
		return false;
	}
}

bool session_news(struct session *session, enum session_state *state)
{
	if (!session_has_news(session))
		return false;
	*state = session->told = session->state;
	return true;
}

/* ---- the session ---- */

void session_init(struct session *session, const struct session_options *options,
		  const struct session_identity *disk, int64_t now)
{
	assert(options->links > 0 && options->links <= SESSION_LINKS && options->reconnect > 0);
	*session = (struct session){
		.options = *options,
		.state = SESSION_WAITING,
		.told = SESSION_UP,
		.epoch = 1,
		.lost_at = now,
		.dial_at = now,
		.attempts = 1,
		.random = options->seed,
		.identity = *disk,
		.doubt_until = INT64_MIN,
		.unfenced_until = INT64_MIN,
	};
	for (unsigned i = 0; i < options->links; i++) {
		session->link[i].send_end = &session->link[i].send;
		session->link[i].done_end = &session->link[i].done;
	}
}

uint64_t session_max_len(const struct session *session)
{
	return session->options.unflushed / SHARE - SESSION_OVERHEAD;
}

static unsigned validate_list(const struct session_list *list, enum op_state state, bool internal,
			      uint64_t *cost)
{
	unsigned count = 0;

	for (const struct session_op *op = list->first; op; op = op->next) {
		assert(op->state == state || (state == OP_READY && op->state == OP_SENT));
		assert(!op->internal || internal);
		assert(op->next ? op->next->prev == op : list->last == op);
		*cost += op->cost;
		count++;
	}
	return count;
}

static uint64_t validate_log(const struct session *session)
{
	uint64_t cost = 0, before = 0;

	for (const struct session_record *each = session->log; each; each = each->next) {
		assert(each->number > before || HAS_BUG(BUG_REPLAY_ORDER));
		before = each->number;
		cost += cost_of(&each->op);
	}
	return cost;
}

void session_validate(const struct session *session)
{
	enum session_state state = session->state;
	uint64_t reserved = 0, none = 0;
	unsigned flying = validate_list(&session->flying, OP_READY, true, &reserved);
	unsigned again = validate_list(&session->again, OP_AGAIN, false, &reserved);
	unsigned parked = validate_list(&session->parked, OP_PARKED, false, &reserved);
	unsigned synced = validate_list(&session->synced, OP_PARKED, true, &reserved);
	unsigned held = validate_list(&session->held, OP_HELD, false, &none);
	unsigned room = validate_list(&session->room, OP_HELD, false, &none);
	bool quiet = state == SESSION_QUIESCING || state == SESSION_UP || is_dialling(session);

	assert(reserved == session->reserved && none == 0);
	assert(session->kept == validate_log(session));
	assert(session->kept + reserved <= session->options.unflushed);
	assert(!flying || state == SESSION_UP || state == SESSION_REPLAYING ||
	       state == SESSION_CHECKING);
	assert(!again ||
	       (state != SESSION_UP && state != SESSION_GIVEN_UP && state != SESSION_ENDED));
	assert(!parked || state == SESSION_REPLAYING || state == SESSION_CHECKING);
	assert(!synced || (state == SESSION_UP && flying > 0 && !session->seen.fences));
	assert(!held ||
	       (state != SESSION_UP && state != SESSION_GIVEN_UP && state != SESSION_ENDED));
	assert(!room || (state != SESSION_GIVEN_UP && state != SESSION_ENDED));
	assert(state != SESSION_ENDED || (!session->log && session->error < 0));
	assert(!quiet || (session->replaying == 0 && !session->cursor));
	assert(is_dialling(session) || state == SESSION_ENDED ||
	       session->nr_up == session->options.links);
	assert(state != SESSION_UP || session->own.state != OP_IDLE ||
	       session->kept < session->options.unflushed / EARLY || session->flush_error);
}
