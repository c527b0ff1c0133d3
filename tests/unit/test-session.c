/* What a session tells to do, event by event. How it does in a world full of faults is
 * tests/sim's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nbd/session.h"

#define KIB     1024
#define QUIESCE 500
#define WAIT    60000

static struct session session;
static int64_t now;
static struct session_op *op; /* that the last act was about */
static struct session_record *record;

static const struct session_identity ours = {
	.fences = true,
	.has_instance = true,
	.instance = { 1 },
	.size = KIB * KIB,
	.can_flush = true,
	.can_fua = true,
};
static const struct session_identity ours_anew = {
	.fences = true,
	.has_instance = true,
	.instance = { 2 },
	.size = KIB * KIB,
	.can_flush = true,
	.can_fua = true,
};
static const struct session_identity stock = {
	.size = KIB * KIB,
	.can_flush = true,
	.can_fua = true,
};

static int begin(void **state)
{
	const struct session_options options = {
		.links = 1,
		.unflushed = 64 * KIB,
		.reconnect = WAIT,
		.quiesce = QUIESCE,
		.seed = 1,
	};

	(void)state;
	now = 1000;
	session_init(&session, &options, &ours, now);
	return 0;
}

static enum session_act next(unsigned link)
{
	session_validate(&session);
	return session_next(&session, link, &op, &record, now);
}

static void expect(enum session_act act, const struct session_op *about)
{
	assert_int_equal(next(0), act);
	if (about)
		assert_ptr_equal(op, about);
}

static void land(struct session_op *which, int64_t result)
{
	session_landed(&session, which, session.epoch, result, now);
}

/* Waits until it may be dialled, and does. */
static bool connect_to(const struct session_identity *identity)
{
	unsigned link;

	if (session.dial_at > now)
		now = session.dial_at;
	assert_true(session_dial(&session, &link, now));
	return session_connected(&session, link, session.epoch, identity, now);
}

static void lose_it(void)
{
	session_lost(&session, 0, session.epoch, now);
	expect(SESSION_END, NULL);
}

struct write {
	struct session_op op;
	struct session_record record;
};

static void issue(struct write *write, enum op what, unsigned flags, uint64_t start)
{
	*write = (struct write){
		.op = { .op = what,
			.flags = flags,
			.start = start,
			.len = what == OP_FLUSH ? 0 : 4 * KIB },
	};
	if (what == OP_WRITE || what == OP_ZERO)
		write->op.record = &write->record;
	session_issue(&session, &write->op, now);
}

/* From its issue to its completion. */
static void do_it(struct write *write, enum op what, unsigned flags, uint64_t start)
{
	issue(write, what, flags, start);
	expect(SESSION_SEND, &write->op);
	land(&write->op, write->op.len);
	expect(SESSION_DONE, &write->op);
	assert_int_equal(write->op.result, write->op.len);
}

static void goes_out_at_once(void **state)
{
	enum session_state news;
	struct write a;

	(void)state;
	issue(&a, OP_WRITE, 0, 0);
	expect(SESSION_NOTHING, NULL);
	assert_true(connect_to(&ours));
	assert_false(session_news(&session, &news)); /* it is taken for UP from the start */
	expect(SESSION_SEND, &a.op);
	land(&a.op, a.op.len);
	expect(SESSION_DONE, &a.op);
	assert_true(a.op.kept);
	expect(SESSION_NOTHING, NULL);
}

static void is_told(enum session_state what)
{
	enum session_state news;

	assert_true(session_news(&session, &news));
	assert_int_equal(news, what);
	assert_false(session_has_news(&session));
}

static void lost_before_it_was_up_is_told(void **state)
{
	(void)state;
	is_told(SESSION_WAITING);
	connect_to(&ours);
	is_told(SESSION_UP);
}

/* It lets connections in, and answers nothing more. */
static void one_that_is_silent_is_told_once(void **state)
{
	struct write a;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_READ, 0, 0);
	issue(&a, OP_READ, 0, 0);
	expect(SESSION_SEND, &a.op);
	lose_it();
	is_told(SESSION_WAITING);
	for (unsigned i = 0; i < 3; i++) {
		connect_to(&ours);
		expect(SESSION_SEND, &a.op);
		assert_false(session_has_news(&session));
		lose_it();
		assert_false(session_has_news(&session));
	}
	now += WAIT;
	session_time(&session, now);
	is_told(SESSION_GIVEN_UP);
	expect(SESSION_DONE, &a.op);
	connect_to(&ours);
	issue(&a, OP_READ, 0, 0);
	expect(SESSION_SEND, &a.op);
	assert_false(session_has_news(&session));
	lose_it();
	assert_false(session_has_news(&session));
	connect_to(&ours);
	expect(SESSION_SEND, &a.op);
	land(&a.op, a.op.len);
	is_told(SESSION_UP);
	lose_it();
	is_told(SESSION_WAITING);
}

/* Nothing is asked that could be answered. */
static void an_idle_one_is_told_at_once(void **state)
{
	(void)state;
	connect_to(&ours);
	lose_it();
	is_told(SESSION_WAITING);
	connect_to(&ours);
	is_told(SESSION_UP);
}

/* What was kept is sent again, which is an answer, too. */
static void a_replay_is_an_answer(void **state)
{
	struct write a, b;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	lose_it();
	is_told(SESSION_WAITING);
	issue(&b, OP_READ, 0, 0);
	connect_to(&ours_anew);
	expect(SESSION_SEND, &a.record.op);
	assert_false(session_has_news(&session));
	land(&a.record.op, a.op.len);
	is_told(SESSION_UP);
	expect(SESSION_SEND, &b.op);
}

static void flush_covers_what_was_acknowledged(void **state)
{
	struct write a, b, flush;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	issue(&flush, OP_FLUSH, 0, 0);
	expect(SESSION_SEND, &flush.op);
	do_it(&b, OP_WRITE, 0, 8 * KIB);
	land(&flush.op, 0);
	expect(SESSION_DONE, &flush.op);
	expect(SESSION_RELEASE, NULL);
	assert_ptr_equal(record, &a.record);
	expect(SESSION_NOTHING, NULL);
}

static void same_process_gets_what_was_in_flight(void **state)
{
	struct write a, b;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	issue(&b, OP_WRITE, 0, 0);
	expect(SESSION_SEND, &b.op);
	lose_it();
	land(&b.op, b.op.len); /* too late */
	expect(SESSION_NOTHING, NULL);
	connect_to(&ours);
	expect(SESSION_SEND, &b.op);
	expect(SESSION_NOTHING, NULL);
}

static void another_process_gets_the_log_first(void **state)
{
	struct write a, b, c, read;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	do_it(&b, OP_ZERO, REQ_FAST_ZERO, 0);
	issue(&c, OP_WRITE, 0, 0);
	expect(SESSION_SEND, &c.op);
	lose_it();
	issue(&read, OP_READ, 0, 0);
	connect_to(&ours_anew);
	expect(SESSION_SEND, &a.record.op);
	expect(SESSION_NOTHING, NULL); /* they overlap */
	land(&a.record.op, 4 * KIB);
	expect(SESSION_SEND, &b.record.op);
	assert_int_equal(op->flags, 0); /* a slow one will do as well */
	land(&b.record.op, 4 * KIB);
	expect(SESSION_SEND, &c.op);
	expect(SESSION_NOTHING, NULL);
	land(&c.op, 4 * KIB);
	expect(SESSION_DONE, &c.op);
	expect(SESSION_SEND, &read.op);
}

static void fua_isnt_kept(void **state)
{
	struct write a;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, REQ_FUA, 0);
	assert_false(a.op.kept);
	assert_int_equal(session.kept, 0);
}

static void fua_over_what_is_logged_is_flushed(void **state)
{
	struct write a, b;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	issue(&b, OP_WRITE, REQ_FUA, 0);
	expect(SESSION_SEND, &b.op);
	assert_false(op->flush);
	land(&b.op, b.op.len);
	expect(SESSION_SEND, &b.op);
	assert_true(op->flush);
	land(&b.op, 0);
	expect(SESSION_DONE, &b.op);
	assert_int_equal(b.op.result, b.op.len);
	assert_int_equal(session.kept, 0);
}

/* Its caller has no memory for it: nobody but the server has what was written. */
static void without_a_place_it_is_flushed(void **state)
{
	struct write a, b;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	issue(&b, OP_WRITE, 0, 0);
	expect(SESSION_SEND, &b.op);
	assert_true(session_wants_copy(&session, &b.op));
	b.op.record = NULL;
	land(&b.op, b.op.len);
	expect(SESSION_SEND, &b.op);
	assert_true(op->flush);
	expect(SESSION_NOTHING, NULL);
	lose_it();
	connect_to(&ours_anew);
	expect(SESSION_SEND, &a.record.op);
	land(&a.record.op, a.op.len);
	expect(SESSION_SEND, &b.op);
	assert_false(op->flush); /* who is there now may never have seen it */
	land(&b.op, b.op.len);
	expect(SESSION_SEND, &b.op);
	assert_true(op->flush);
	land(&b.op, 0);
	expect(SESSION_DONE, &b.op);
	assert_int_equal(b.op.result, b.op.len);
	assert_ptr_equal(session_released(&session), &a.record);
	assert_null(session_released(&session));
	assert_int_equal(session.kept + session.reserved, 0);
}

static void trims_arent_sent_again(void **state)
{
	struct write a;

	(void)state;
	connect_to(&ours);
	issue(&a, OP_TRIM, 0, 0);
	expect(SESSION_SEND, &a.op);
	lose_it();
	expect(SESSION_NOTHING, NULL); /* it may still be run */
	connect_to(&ours);
	expect(SESSION_DONE, &a.op);
	assert_int_equal(a.op.result, a.op.len);
	expect(SESSION_NOTHING, NULL);
}

/* What an old connection left there lands on what was sent again. */
static void without_a_fence_it_is_read_back(void **state)
{
	struct write a;

	(void)state;
	connect_to(&stock);
	issue(&a, OP_WRITE, 0, 0);
	expect(SESSION_SEND, &a.op);
	lose_it();
	connect_to(&stock);
	expect(SESSION_NOTHING, NULL);
	assert_int_equal(session_wake_at(&session), 1000 + QUIESCE);
	for (unsigned round = 0; round < 2; round++) {
		now = session_wake_at(&session);
		session_time(&session, now);
		expect(SESSION_SEND, &a.op);
		land(&a.op, a.op.len);
		expect(SESSION_SEND, NULL);
		assert_int_equal(op->op, OP_FLUSH);
		land(op, 0);
		expect(SESSION_SEND, NULL);
		assert_true(op->compare);
		assert_int_equal(op->len, a.op.len);
		land(op, round == 0 ? 0 : a.op.len);
	}
	expect(SESSION_DONE, &a.op);
	assert_int_equal(session.reverted, 1);
}

static void time_runs_out_once(void **state)
{
	struct write a, b, c;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	lose_it();
	issue(&b, OP_READ, 0, 0);
	now += WAIT;
	session_time(&session, now);
	expect(SESSION_DONE, &b.op);
	assert_int_equal(b.op.result, -ETIMEDOUT);
	is_told(SESSION_GIVEN_UP);
	issue(&c, OP_READ, 0, 0);
	expect(SESSION_DONE, &c.op);
	assert_int_equal(c.op.result, -ETIMEDOUT);
	connect_to(&ours); /* later still */
	do_it(&c, OP_READ, 0, 0);
}

static void gone_is_stale(void **state)
{
	struct write a, b;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	lose_it();
	now += WAIT;
	session_time(&session, now);
	connect_to(&ours_anew);
	assert_int_equal(session.state, SESSION_ENDED);
	issue(&b, OP_READ, 0, 0);
	expect(SESSION_END, NULL);
	expect(SESSION_DONE, &b.op);
	assert_int_equal(b.op.result, -ESTALE);
	expect(SESSION_RELEASE, NULL);
}

static void another_disk_is_refused(void **state)
{
	struct session_identity strangers[4];
	struct write a;

	for (unsigned i = 0; i < 4; i++)
		strangers[i] = ours;
	strangers[0].size -= 512;
	strangers[1].facts = 1;
	strangers[2].header[31] = 1;
	strangers[3].can_flush = false;
	for (unsigned i = 0; i < 4; i++) {
		begin(state);
		connect_to(&ours);
		issue(&a, OP_WRITE, 0, 0);
		expect(SESSION_SEND, &a.op);
		lose_it();
		assert_false(connect_to(&strangers[i]));
		expect(SESSION_DONE, &a.op);
		assert_int_equal(a.op.result, -ESTALE);
		expect(SESSION_NOTHING, NULL);
	}
}

/* Also when it is met first: what counts is what was opened. */
static void another_disk_is_refused_at_once(void **state)
{
	struct session_identity stranger = ours;
	struct write a;

	begin(state);
	issue(&a, OP_WRITE, 0, 0);
	stranger.header[0] = 1;
	assert_false(connect_to(&stranger));
	expect(SESSION_DONE, &a.op);
	assert_int_equal(a.op.result, -ESTALE);
	expect(SESSION_NOTHING, NULL);
}

static void connections_come_together(void **state)
{
	struct session_options options = session.options;
	unsigned link;

	(void)state;
	options.links = 2;
	session_init(&session, &options, &ours, now);
	assert_true(session_dial(&session, &link, now));
	assert_int_equal(link, 0);
	assert_false(session_dial(&session, &link, now)); /* does anybody answer? */
	assert_true(session_connected(&session, 0, 1, &ours, now));
	assert_true(session_dial(&session, &link, now));
	assert_false(session_connected(&session, 1, 1, &ours_anew, now)); /* it has restarted */
	assert_int_equal(session.epoch, 2);
	assert_int_equal(session_busy(&session), 1);
	now = session.dial_at;
	assert_false(session_dial(&session, &link, now)); /* not before it is ended */
	assert_int_equal(next(0), SESSION_END);
	assert_true(session_dial(&session, &link, now));
	assert_int_equal(link, 0);
	assert_false(session_connected(&session, 0, 1, &ours, now)); /* of an earlier epoch */
}

/* Connects all, one after another. */
static void connect_all(const struct session_identity *identity)
{
	for (unsigned i = 0; i < session.options.links; i++)
		connect_to(identity);
	assert_int_equal(session.nr_up, session.options.links);
}

/* Written, and to be sent again: by whom? The links are lost, and come back to another process; counts
 * what each is told to send. */
static void replay(struct write *writes, unsigned count, unsigned *sent)
{
	for (unsigned i = 0; i < count; i++)
		do_it(&writes[i], OP_WRITE, 0, i * 4 * KIB);
	session_lost(&session, 0, session.epoch, now);
	for (unsigned i = 0; i < session.options.links; i++)
		assert_int_equal(next(i), SESSION_END);
	connect_all(&ours_anew);
	for (unsigned i = 0; i < session.options.links; i++) {
		for (sent[i] = 0; next(i) == SESSION_SEND; sent[i]++)
			assert_int_equal(op->link, i);
	}
}

static void what_is_sent_again_goes_to_who_has_a_queue(void **state)
{
	struct session_options options = session.options;
	struct write writes[6];
	unsigned sent[3];

	(void)state;
	options.links = 3;
	options.unflushed = KIB * KIB; /* no flush of its own comes between */
	for (unsigned alone = 0; alone < 8; alone++) {
		bool nobody =
			alone == 7; /* no queue yet: it waits for them where it would be sent */

		session_init(&session, &options, &ours, now);
		connect_all(&ours);
		for (unsigned i = 0; i < options.links; i++)
			session_leave_alone(&session, i, alone >> i & 1);
		replay(writes, 6, sent);
		assert_int_equal(sent[0] + sent[1] + sent[2], 6);
		for (unsigned i = 0; i < options.links; i++)
			assert_int_equal(sent[i] == 0, !nobody && alone >> i & 1);
	}
}

static void who_has_a_queue_again_is_sent_to_again(void **state)
{
	struct session_options options = session.options;
	struct write writes[6];
	unsigned sent[2];

	(void)state;
	options.links = 2;
	options.unflushed = KIB * KIB;
	session_init(&session, &options, &ours, now);
	connect_all(&ours);
	session_leave_alone(&session, 1, true);
	session_leave_alone(&session, 1, false);
	replay(writes, 6, sent);
	assert_int_equal(sent[0], 3);
	assert_int_equal(sent[1], 3);
}

static void backs_off(void **state)
{
	int64_t most = 0;
	unsigned link;

	(void)state;
	connect_to(&ours);
	now += 5000;
	lose_it();
	assert_int_equal(session.dial_at, now); /* at once */
	for (unsigned i = 0; i < 20; i++) {
		now = session.dial_at;
		assert_true(session_dial(&session, &link, now));
		session_lost(&session, 0, session.epoch, now);
		assert_true(session.dial_at >= now + 50 && session.dial_at <= now + 5000);
		most = session.dial_at - now > most ? session.dial_at - now : most;
		session_time(&session, now);
	}
	assert_true(most >= 2500);
}

static void flushes_by_itself_and_waits_for_room(void **state)
{
	struct write writes[20];
	unsigned sent = 0, flushes = 0;

	(void)state;
	connect_to(&ours);
	for (unsigned i = 0; i < 20; i++)
		issue(&writes[i], OP_WRITE, 0, i * 4 * KIB);
	while (next(0) == SESSION_SEND)
		sent++, land(op, op->internal ? 0 : 4 * KIB);
	for (unsigned i = 0; i < 60; i++) {
		enum session_act act = next(0);

		assert_true(session.kept + session.reserved <= 64 * KIB);
		if (act == SESSION_SEND) {
			flushes += op->op == OP_FLUSH;
			sent += op->op == OP_WRITE;
			land(op, op->op == OP_FLUSH ? 0 : 4 * KIB);
		}
	}
	assert_true(sent >= 20);
	assert_true(flushes > 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(writes[i].op.result, 4 * KIB);
}

static void a_flush_that_failed_has_failed_for_good(void **state)
{
	struct write a, flush;

	(void)state;
	connect_to(&ours);
	do_it(&a, OP_WRITE, 0, 0);
	issue(&flush, OP_FLUSH, 0, 0);
	expect(SESSION_SEND, &flush.op);
	land(&flush.op, -EIO);
	expect(SESSION_DONE, &flush.op);
	assert_int_equal(flush.op.result, -EIO);
	expect(SESSION_RELEASE, NULL);
	issue(&flush, OP_FLUSH, 0, 0);
	expect(SESSION_DONE, &flush.op);
	assert_int_equal(flush.op.result, -EIO);
	lose_it();
	connect_to(&ours_anew);
	assert_int_equal(session.error, -ESTALE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(goes_out_at_once, begin),
		cmocka_unit_test_setup(lost_before_it_was_up_is_told, begin),
		cmocka_unit_test_setup(one_that_is_silent_is_told_once, begin),
		cmocka_unit_test_setup(an_idle_one_is_told_at_once, begin),
		cmocka_unit_test_setup(a_replay_is_an_answer, begin),
		cmocka_unit_test_setup(flush_covers_what_was_acknowledged, begin),
		cmocka_unit_test_setup(same_process_gets_what_was_in_flight, begin),
		cmocka_unit_test_setup(another_process_gets_the_log_first, begin),
		cmocka_unit_test_setup(fua_isnt_kept, begin),
		cmocka_unit_test_setup(fua_over_what_is_logged_is_flushed, begin),
		cmocka_unit_test_setup(without_a_place_it_is_flushed, begin),
		cmocka_unit_test_setup(trims_arent_sent_again, begin),
		cmocka_unit_test_setup(without_a_fence_it_is_read_back, begin),
		cmocka_unit_test_setup(time_runs_out_once, begin),
		cmocka_unit_test_setup(gone_is_stale, begin),
		cmocka_unit_test_setup(another_disk_is_refused, begin),
		cmocka_unit_test_setup(another_disk_is_refused_at_once, begin),
		cmocka_unit_test_setup(connections_come_together, begin),
		cmocka_unit_test_setup(what_is_sent_again_goes_to_who_has_a_queue, begin),
		cmocka_unit_test_setup(who_has_a_queue_again_is_sent_to_again, begin),
		cmocka_unit_test_setup(backs_off, begin),
		cmocka_unit_test_setup(flushes_by_itself_and_waits_for_room, begin),
		cmocka_unit_test_setup(a_flush_that_failed_has_failed_for_good, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
