/* A round: what other threads left (connections, requests that have their range), what sockets bring,
 * then send, wait and land as each user of a channel does, and then each connection that something
 * happened to goes on. The thread sleeps in the channel's wait alone: the descriptor that epoll(7)
 * watches the sockets with is among what that waits for.
 *
 * inbox and newcomers are stacks that any thread pushes to, and the loop takes whole. Whoever pushes
 * writes to wake_fd unless the loop is going to look anyway. */
#include "loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/align.h"
#include "base/clock.h"
#include "base/thread.h"
#include "engine/bounce.h"

#define EVENTS   64
#define GRACE_MS 5000 /* for a client to take its replies, or send what it has begun, at the end */
#define NAP_MS   20   /* between looks at them then */

struct loop {
	struct loops *all;
	struct channel *channel;
	struct meter *meter; /* or NULL */
	pthread_t thread;
	int epoll_fd, wake_fd;
	struct connection *connections;
	struct connection *touched;

	struct ndio_request *_Atomic inbox;
	struct ndio_request *_Atomic done;    /* by workers */
	struct connection *_Atomic newcomers; /* by next_touched */
	atomic_bool asleep;
	atomic_bool closing;
	atomic_uint count; /* connections */
};

struct loops {
	struct volume *volume;
	struct workers *workers; /* for what is large; or NULL */
	struct meters *meters;   /* of all its loops; or NULL */
	struct bounce bounce;
	unsigned count; /* running */
	struct loop loop[];
};

/* A piece for each of what a client usually has in flight. */
static const struct channel_options channel_options = {
	.pieces = 64,
	.piece_len = 64 * 1024,
	.huge_pages = true,
};

/* Of a worker: large parts, each in one piece. */
static const struct channel_options large_options = {
	.pieces = 8,
	.piece_len = 256 * 1024,
	.huge_pages = true,
};

/* ---- what other threads give it ---- */

static void loop_wake(struct loop *loop)
{
	if (atomic_exchange(&loop->asleep, false))
		while (eventfd_write(loop->wake_fd, 1) < 0 && errno == EINTR)
			;
}

static void loop_push(struct loop *loop, struct ndio_request *_Atomic *stack,
		      struct ndio_request *request)
{
	struct ndio_request *first = atomic_load(stack);

	do
		request->next = first;
	while (!atomic_compare_exchange_weak(stack, &first, request));
	loop_wake(loop);
}

/* Of a request: it has its range; or it has ended, and so have the syncs that it waited for. */
static void resume(struct ndio_request *request)
{
	struct loop *loop = request->waiter;

	loop_push(loop, &loop->inbox, request);
}

static void loop_request_done(void *waiter, struct ndio_request *request)
{
	struct loop *loop = waiter;

	loop_push(loop, &loop->done, request);
}

static bool has_mail(const struct loop *loop)
{
	return atomic_load(&loop->inbox) || atomic_load(&loop->done) ||
	       atomic_load(&loop->newcomers);
}

static void loop_take_inbox(struct loop *loop)
{
	struct ndio_request *request = atomic_exchange(&loop->inbox, NULL), *next;

	for (; request; request = next) {
		next = request->next;
		if (request->state == REQUEST_ENDED)
			request_finish(request);
		else
			channel_start(loop->channel, request);
	}
	request = atomic_exchange(&loop->done, NULL);
	for (; request; request = next) {
		next = request->next;
		connection_done(request);
	}
}

/* ---- its connections ---- */

static void touch(void *opaque, struct connection *connection)
{
	struct loop *loop = opaque;
	struct connection_links *links = connection_links(connection);

	if (links->is_touched)
		return;
	links->is_touched = true;
	links->next_touched = loop->touched;
	loop->touched = connection;
}

static void take_newcomers(struct loop *loop)
{
	struct connection *connection = atomic_exchange(&loop->newcomers, NULL), *next;
	bool came = connection;

	for (; connection; connection = next) {
		struct connection_links *links = connection_links(connection);
		/* The workers come after this thread, and before the first connection. */
		const struct connection_place place = {
			.channel = loop->channel,
			.workers = loop->all->workers,
			.meter = loop->meter,
			.done = loop_request_done,
			.resume = resume,
			.waiter = loop,
			.touched = touch,
		};

		next = links->next_touched;
		links->next = loop->connections;
		links->link = &loop->connections;
		if (links->next)
			connection_links(links->next)->link = &links->next;
		loop->connections = connection;
		connection_place(connection, &place);
		touch(loop, connection);
	}
	if (came)
		for (connection = loop->connections; connection;
		     connection = connection_links(connection)->next)
			connection_trim(connection);
}

static void drop(struct loop *loop, struct connection *connection)
{
	struct connection_links *links = connection_links(connection);

	*links->link = links->next;
	if (links->next)
		connection_links(links->next)->link = links->link;
	if (links->events)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, connection_fd(connection), NULL);
	connection_close(connection);
	meters_closed(loop->all->meters);
	atomic_fetch_sub(&loop->count, 1);
}

/* One that waits for nothing is taken out: epoll would tell of its end again and again. */
static void loop_watch(struct loop *loop, struct connection *connection)
{
	struct connection_links *links = connection_links(connection);
	uint32_t events = connection_events(connection);
	struct epoll_event event = { .events = events, .data.ptr = connection };
	int op = !events ? EPOLL_CTL_DEL : links->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (events == links->events)
		return;
	if (epoll_ctl(loop->epoll_fd, op, connection_fd(connection), &event) < 0)
		connection_stop(connection, true); /* no memory to watch it */
	else
		links->events = events;
}

/* Each that something happened to, once: what that starts comes to its end in the next round. */
static void loop_go_on(struct loop *loop)
{
	struct connection *connection = loop->touched, *next;

	loop->touched = NULL;
	for (; connection; connection = next) {
		struct connection_links *links = connection_links(connection);

		next = links->next_touched;
		links->is_touched = false;
		connection_go_on(connection);
		loop_watch(loop, connection);
		if (connection_is_over(connection) && !links->is_touched)
			drop(loop, connection);
	}
}

static void loop_look(struct loop *loop)
{
	struct epoll_event events[EVENTS];
	int count = epoll_wait(loop->epoll_fd, events, EVENTS, 0);

	for (int i = 0; i < count; i++) {
		eventfd_t ignored;

		if (events[i].data.ptr)
			touch(loop, events[i].data.ptr);
		else
			(void)eventfd_read(loop->wake_fd, &ignored);
	}
}

/* ---- rounds ---- */

static void sleep_or_reap(struct loop *loop, bool sleep)
{
	atomic_store(&loop->asleep, true);
	if (has_mail(loop) || atomic_load(&loop->closing))
		sleep = false;
	channel_wait(loop->channel, sleep, loop->epoll_fd);
	atomic_store(&loop->asleep, false);
}

static void loop_round(struct loop *loop)
{
	bool ended;

	take_newcomers(loop);
	loop_take_inbox(loop);
	loop_look(loop);
	loop_go_on(loop);
	ended = channel_send(loop->channel, false);
	sleep_or_reap(loop, !ended && !loop->touched);
	channel_land(loop->channel);
	loop_go_on(loop);
}

/* It, or its disk: who waits for that is answered, however long it takes. */
static bool keeps_us_waiting(struct connection *connection)
{
	struct connection_links *links = connection_links(connection);
	int64_t now = clock_ms();

	if (!connection_events(connection))
		links->cut_at = 0;
	else if (!links->cut_at)
		links->cut_at = now + GRACE_MS;
	return links->cut_at && now >= links->cut_at;
}

/* All come to their end, or are cut off. */
static void end_all(struct loop *loop)
{
	take_newcomers(loop);
	while (loop->connections) {
		struct connection *connection, *next;

		for (connection = loop->connections; connection; connection = next) {
			next = connection_links(connection)->next;
			connection_stop(connection, keeps_us_waiting(connection));
			touch(loop, connection);
		}
		loop_round(loop);
		if (loop->connections && !loop->touched)
			poll(&(struct pollfd){ .fd = loop->epoll_fd, .events = POLLIN }, 1, NAP_MS);
	}
}

static void *loop_main(void *opaque)
{
	struct loop *loop = opaque;

	while (!atomic_load(&loop->closing))
		loop_round(loop);
	end_all(loop);
	/* Workers that are still at it may need its connection until then. */
	channel_close(loop->channel);
	loop->channel = NULL;
	return NULL;
}

/* ---- opening and closing ---- */

static void close_parts(struct loop *loop)
{
	channel_close(loop->channel);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
}

static int open_loop(struct loop *loop, const struct channel_options *options, struct bvec bounce,
		     struct error *err)
{
	struct epoll_event event = { .events = EPOLLIN };
	int ret;

	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->wake_fd < 0 || loop->epoll_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0) {
		ret = error_set(err, errno, "no descriptor for a thread: %s", strerror(errno));
	} else {
		ret = channel_open(loop->all->volume, options, bounce, &loop->channel, err);
		if (ret == 0)
			ret = -thread_start(&loop->thread, loop_main, loop);
		if (ret < 0 && loop->channel)
			error_set(err, -ret, "no thread: %s", strerror(-ret));
	}
	if (ret < 0)
		close_parts(loop);
	return ret;
}

/* What the target has of queues is for both kinds of threads. */
static int open_workers(struct loops *loops, unsigned threads, struct error *err)
{
	unsigned left = loops->volume->target->max_queues - loops->count;

	if (left == 0)
		return 0;
	return workers_open(loops->volume, min_u64(threads, left), &large_options, NULL,
			    &loops->workers, err);
}

int loops_open(struct volume *volume, unsigned threads, bool counts, struct loops **result,
	       struct error *err)
{
	size_t share = channel_bounce_len(&channel_options);
	unsigned queues = volume->target->max_queues;
	unsigned count = min_u64(threads, queues > 1 ? queues / 2 : 1);
	struct loops *loops = calloc(1, sizeof(*loops) + count * sizeof(loops->loop[0]));
	int ret;

	if (!loops)
		return error_set(err, ENOMEM, "no memory for %u threads", count);
	loops->volume = volume;
	loops->meters = counts ? meters_make(count, false) : NULL;
	if (counts && !loops->meters) {
		free(loops);
		return error_set(err, ENOMEM, "no memory for metrics");
	}
	ret = bounce_init(&loops->bounce, count * share, channel_options.huge_pages, err);
	while (loops->count < count && ret == 0) {
		loops->loop[loops->count].all = loops;
		if (counts)
			loops->loop[loops->count].meter = &loops->meters->meter[loops->count];
		ret = open_loop(&loops->loop[loops->count], &channel_options,
				bounce_share(&loops->bounce, loops->count, share), err);
		loops->count += ret == 0;
	}
	if (ret == 0)
		ret = open_workers(loops, threads, err);
	if (ret < 0)
		loops_close(loops);
	else
		*result = loops;
	return ret;
}

void loops_end(struct loops *loops)
{
	for (unsigned i = 0; loops && i < loops->count; i++) {
		atomic_store(&loops->loop[i].closing, true);
		loop_wake(&loops->loop[i]);
	}
}

/* The loops first: they wait for what workers have. */
void loops_close(struct loops *loops)
{
	if (!loops)
		return;
	loops_end(loops);
	for (unsigned i = 0; i < loops->count; i++)
		pthread_join(loops->loop[i].thread, NULL);
	workers_close(loops->workers, false);
	for (unsigned i = 0; i < loops->count; i++)
		close_parts(&loops->loop[i]);
	bounce_destroy(&loops->bounce);
	free(loops->meters);
	free(loops);
}

bool loops_are_pinned(const struct loops *loops)
{
	return loops->bounce.pinned && (!loops->workers || workers_are_pinned(loops->workers));
}

void loops_add(struct loops *loops, struct connection *connection)
{
	struct loop *best = &loops->loop[0];
	struct connection *first;

	for (unsigned i = 1; i < loops->count; i++)
		if (loops->loop[i].count < best->count)
			best = &loops->loop[i];
	atomic_fetch_add(&best->count, 1);
	meters_opened(loops->meters);
	first = atomic_load(&best->newcomers);
	do
		connection_links(connection)->next_touched = first;
	while (!atomic_compare_exchange_weak(&best->newcomers, &first, connection));
	loop_wake(best);
}

const struct meters *loops_meters(const struct loops *loops)
{
	return loops->meters;
}

unsigned loops_connections(const struct loops *loops)
{
	unsigned count = 0;

	for (unsigned i = 0; i < loops->count; i++)
		count += loops->loop[i].count;
	return count;
}
