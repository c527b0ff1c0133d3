/* The thread that dials: makes the connections that the session asks for, tells it of the time, ends
 * what no queue looks after, and says what becomes of the server. It runs while there are queues, and
 * sleeps until the session has something for it. The lock is let go while it dials or tells. */
#include "nbd/lasting-own.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/align.h"
#include "base/clock.h"
#include "base/thread.h"

/* What a server that is busy with its start may take, though it has to answer sooner later. */
#define DIAL_MS 5000

/* A certificate or key that is refused so often in a row is so the next time. One refusal may be none:
 * to many servers it is to close the connection, and so does one that ends just then. */
#define REFUSALS 2

/* ---- dialling ---- */

/* Without the lock. It ends with the hurry, if there is one, so that nobody waits for it then. */
static int dial(struct lasting *lasting, uint64_t epoch, int64_t hurry_at, struct nbd_link **link,
		struct session_identity *identity, struct error *err)
{
	const struct lasting_options *options = &lasting->options;
	uint64_t ms = max_u64(options->server->answer_timeout * INT64_C(1000), DIAL_MS);
	const struct deadline deadline = {
		.at = min_u64(clock_ms() + ms, hurry_at),
		.stop = &lasting->dial_over,
	};
	int ret = nbd_link_open(link, options->server, options->context, epoch, &deadline, err);

	if (ret < 0)
		return ret;
	(*link)->stop = deadline.stop;
	ret = options->identify(options->opaque, *link, identity, err);
	(*link)->stop = NULL;
	if (ret == 0)
		return 0;
	nbd_link_close(*link);
	return atomic_load(deadline.stop) ? -ECANCELED : ret;
}

/* A connection stands: it is its seat's, or none. */
static bool seat_link(struct lasting *lasting, unsigned number, uint64_t epoch,
		      struct nbd_link *link, const struct session_identity *identity)
{
	struct seat *seat = &lasting->seat[number];

	assert(!seat->fresh || epoch != lasting->session.epoch);
	if (epoch != lasting->session.epoch)
		return false;
	seat->fresh = link;
	if (session_connected(&lasting->session, number, epoch, identity, clock_ms()))
		return true;
	seat->fresh = NULL;
	return false;
}

static void lasting_dial_once(struct lasting *lasting, unsigned number)
{
	struct session_identity identity = { 0 };
	uint64_t epoch = lasting->session.epoch;
	int64_t hurry_at = lasting->hurry_at;
	struct nbd_link *link = NULL;
	struct error err = { 0 };
	int ret;

	lasting->dial_epoch = epoch;
	atomic_store(&lasting->dial_over, lasting->stop);
	pthread_mutex_unlock(&lasting->lock);
	ret = dial(lasting, epoch, hurry_at, &link, &identity, &err);
	pthread_mutex_lock(&lasting->lock);
	lasting->dial_epoch = 0;
	if (ret < 0 && ret != -ECANCELED)
		error_set(&lasting->why, -ret, "%s",
			  nbd_server_reason(lasting->options.server, &err));
	lasting->refused =
		ret == -EACCES && lasting->options.server->tls ? lasting->refused + 1 : 0;
	if (lasting->refused == REFUSALS) {
		session_end(&lasting->session, ret, clock_ms());
	} else if (ret < 0) {
		session_lost(&lasting->session, number, epoch, clock_ms());
	} else if (seat_link(lasting, number, epoch, link, &identity)) {
		lasting_nudge(&lasting->seat[number]);
	} else {
		nbd_link_reset(link);
	}
}

/* Connections that are to be ended, of links that no queue has. */
static void end_alone(struct lasting *lasting)
{
	for (unsigned i = 0; i < lasting->options.links; i++) {
		struct session_record *record;
		struct seat *seat = &lasting->seat[i];
		struct session_op *op;

		if (seat->queue || !lasting->session.link[i].end)
			continue;
		session_next(&lasting->session, i, &op, &record, clock_ms());
		if (seat->fresh)
			lasting_end_link(lasting, seat->fresh);
		seat->fresh = NULL;
	}
}

/* ---- what is told ---- */

static void say_lost(const struct lasting *lasting, struct error *text)
{
	unsigned wait = lasting->options.reconnect;

	if (lasting->hurry_at != INT64_MAX)
		wait = min_u64(wait, NBD_HURRY_MS / 1000);
	error_set(text, 0,
		  "the connection is lost (%s): waiting for the server, %u second%s at the most",
		  lasting->why.text, wait, wait == 1 ? "" : "s");
}

static void say_given_up(const struct lasting *lasting, struct error *text)
{
	error_set(text, 0,
		  "the server has been away for %u second%s (%s): requests fail until it is back",
		  lasting->options.reconnect, lasting->options.reconnect == 1 ? "" : "s",
		  lasting->why.text);
}

static void say_back(struct lasting *lasting, struct error *text)
{
	const struct session *session = &lasting->session;
	int64_t away = session->up_at - lasting->lost_at;

	error_set(text, 0,
		  "the server is back after %" PRIi64 ".%" PRIi64 " seconds: sent again: %" PRIu64
		  " that were in flight, %" PRIu64 " that weren't flushed",
		  away / 1000, away % 1000 / 100, session->sent_again - lasting->sent_again,
		  session->replayed - lasting->replayed);
	lasting->sent_again = session->sent_again;
	lasting->replayed = session->replayed;
}

static void say_ended(const struct lasting *lasting, struct error *text)
{
	int error = lasting->session.error;

	if (error == -ESTALE)
		error_set(text, 0, "%s", error_reason(ESTALE));
	else if (error != -ECANCELED)
		error_set(text, 0, "the server is given up: %s", lasting->why.text);
}

/* Without the lock. */
static void tell_all(const struct lasting *lasting, enum session_state state, const char *text)
{
	const struct nbd_server *server = lasting->options.server;
	const struct lasting_listener *listener = &lasting->options.listener;
	struct error message;

	error_set(&message, 0, "%s: %s", server->name, text);
	notice_tell(&server->notice, "%s", message.text);
	if (listener->tell)
		listener->tell(listener->opaque, state, message.text);
}

/* True: the lock was let go meanwhile, since who is told may take his time. */
static bool tell_news(struct lasting *lasting)
{
	bool was_up = lasting->session.told == SESSION_UP;
	struct error text = { 0 };
	enum session_state state;

	if (!session_news(&lasting->session, &state))
		return false;
	if (was_up)
		lasting->lost_at = lasting->session.lost_at;
	if (state == SESSION_WAITING)
		say_lost(lasting, &text);
	else if (state == SESSION_UP)
		say_back(lasting, &text);
	else if (state == SESSION_GIVEN_UP)
		say_given_up(lasting, &text);
	else
		say_ended(lasting, &text);
	pthread_mutex_unlock(&lasting->lock);
	if (text.text[0])
		tell_all(lasting, state, text.text);
	pthread_mutex_lock(&lasting->lock);
	return true;
}

/* ---- the thread ---- */

static void hurry_up(struct lasting *lasting, int64_t now)
{
	if (now >= lasting->hurry_at && lasting->session.state != SESSION_UP)
		session_end(&lasting->session, -ENOTCONN, now);
}

/* Until there is more to do. */
static void sleep_a_while(struct lasting *lasting)
{
	int64_t at = session_wake_at(&lasting->session);

	if (lasting->session.state != SESSION_UP && lasting->hurry_at < at)
		at = lasting->hurry_at;
	lasting->asleep_until = at;
	if (at == INT64_MAX)
		pthread_cond_wait(&lasting->changed, &lasting->lock);
	else
		clock_wait(&lasting->changed, &lasting->lock, at);
	lasting->asleep_until = INT64_MIN;
}

static void *dial_main(void *opaque)
{
	struct lasting *lasting = opaque;
	unsigned number;

	pthread_mutex_lock(&lasting->lock);
	while (!lasting->stop) {
		int64_t now = clock_ms();

		hurry_up(lasting, now);
		session_time(&lasting->session, now);
		end_alone(lasting);
		if (tell_news(lasting))
			continue;
		if (session_dial(&lasting->session, &number, now)) {
			lasting_dial_once(lasting, number);
			continue;
		}
		lasting_wake(lasting, SESSION_LINKS);
		sleep_a_while(lasting);
	}
	if (lasting->session.state == SESSION_UP)
		tell_news(lasting); /* that it is back, if somebody was told that it isn't */
	pthread_mutex_unlock(&lasting->lock);
	return NULL;
}

int lasting_start_dialling(struct lasting *lasting, struct error *err)
{
	struct nbd_server *server = lasting->options.server;
	int ret;

	if (lasting->nr_queues > 0) {
		lasting->nr_queues++;
		return 0;
	}
	if (nbd_watch_start(&server->watch, err) < 0)
		return -EAGAIN;
	lasting->stop = false;
	ret = thread_start(&lasting->thread, dial_main, lasting);
	if (ret) {
		nbd_watch_stop(&server->watch);
		return error_set(err, ret, "%s: no thread to dial: %s", server->name,
				 strerror(ret));
	}
	lasting->nr_queues = 1;
	return 0;
}

void lasting_stop_dialling(struct lasting *lasting)
{
	bool last;

	pthread_mutex_lock(&lasting->lock);
	last = --lasting->nr_queues == 0;
	lasting->stop = last;
	if (last)
		atomic_store(&lasting->dial_over, true);
	pthread_cond_signal(&lasting->changed);
	pthread_mutex_unlock(&lasting->lock);
	if (!last)
		return;
	pthread_join(lasting->thread, NULL);
	nbd_watch_stop(&lasting->options.server->watch);
}

/* What is being dialled had more time, and is dialled again for what is left. */
void lasting_hurry(struct lasting *lasting)
{
	pthread_mutex_lock(&lasting->lock);
	lasting->hurry_at = clock_ms() + NBD_HURRY_MS;
	atomic_store(&lasting->dial_over, true);
	pthread_cond_signal(&lasting->changed);
	pthread_mutex_unlock(&lasting->lock);
}
