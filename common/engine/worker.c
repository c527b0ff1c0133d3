/* Workers: threads that own a channel each. A request is handed over by pushing it to a worker's inbox, by whoever
 * submits it, or by whoever gives it what it waited for: its range, or, at its end, other syncs. A worker's round: send
 * pieces, wait, land what has come, take the inbox; then those of the library's callbacks run that were put off
 * (after_round).
 *
 * States: OPEN, then DRAIN or CANCEL, by workers_close(). Its channel a worker closes itself: until
 * then others' connections may need it. One that is down (its connection is lost) gets no more
 * requests, and hands on what it hasn't begun, while another is up.
 *
 * Invariants: the inbox is a stack that any thread pushes to and the worker takes whole, so neither needs a lock.
 * `asleep` is raised before the inbox is looked at for the last time and looked at after a push, in one order for all
 * threads: no request is left behind a worker that sleeps. `load` counts from before a request waits for its range
 * until it has completed, so none is forgotten at the end. */
#include "engine/worker.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/align.h"
#include "base/thread.h"
#include "engine/bounce.h"

#define OWN_WORK 4 /* requests that a worker may have more than another and still keep its own */

struct worker {
	struct workers *all;
	struct channel *channel;
	pthread_t thread;
	int wake_fd; /* an eventfd */

	struct ndio_request *_Atomic inbox; /* handed over and not taken yet, the latest first */
	atomic_bool asleep;                 /* the worker may be waiting, and must be woken */
	atomic_uint load;                   /* requests handed over and not completed */
	atomic_bool down;                   /* its way to the target is lost */
	atomic_int closing;                 /* enum closing */
};

enum closing {
	OPEN,
	DRAIN,  /* end when all is done */
	CANCEL, /* end soon */
};

struct workers {
	void (*after_round)(void); /* or NULL */
	struct bounce bounce;      /* of all channels */
	unsigned count;            /* running */
	struct worker worker[];
};

/* The worker that this thread is, if it is one. */
static _Thread_local struct worker *self;

static void worker_wake(struct worker *worker)
{
	/* It is in a completion, and looks at its inbox before it sleeps again. */
	if (worker == self)
		return;
	if (atomic_exchange(&worker->asleep, false))
		while (eventfd_write(worker->wake_fd, 1) < 0 && errno == EINTR)
			;
}

static void worker_push(struct worker *worker, struct ndio_request *request)
{
	struct ndio_request *first = atomic_load(&worker->inbox);

	do
		request->next = first;
	while (!atomic_compare_exchange_weak(&worker->inbox, &first, request));
	worker_wake(worker);
}

/* ---- handing on ---- */

/* The least loaded of those that can send, or of all if none can. */
static struct worker *least_loaded(struct workers *workers)
{
	struct worker *best = &workers->worker[0];

	for (unsigned i = 1; i < workers->count; i++) {
		struct worker *each = &workers->worker[i];
		bool down = each->down;

		if (down == best->down ? each->load < best->load : !down)
			best = each;
	}
	return best;
}

/* With its reference. False if nobody else is there for it. */
static bool worker_hand_on(struct worker *worker, struct ndio_request *request)
{
	struct worker *to = least_loaded(worker->all);

	if (to->down)
		return false;
	/* It ends when it is told to and its load is 0: either it sees this one, or this sees that it
	 * was told. */
	atomic_fetch_add(&to->load, 1);
	if (atomic_load(&to->closing) != OPEN) {
		atomic_fetch_sub(&to->load, 1);
		worker_wake(to); /* it may have gone to sleep over that */
		return false;
	}
	request->waiter = to;
	request->load = &to->load;
	atomic_fetch_sub(&worker->load, 1);
	worker_push(to, request);
	return true;
}

/* Those that were handed over, or taken back, start here, or, if this one is down, elsewhere: if there
 * is nobody, they fail. Those that had to wait for other flushes come back at their end. */
static void worker_take(struct worker *worker, struct ndio_request *first)
{
	struct ndio_request *next;

	for (; first; first = next) {
		next = first->next;
		if (first->state == REQUEST_ENDED)
			request_finish(first);
		else if (!worker->down || !worker_hand_on(worker, first))
			channel_start(worker->channel, first);
	}
}

static void look_whether_up(struct worker *worker)
{
	bool down = !channel_is_up(worker->channel);

	if (down != worker->down)
		worker->down = down;
	if (down)
		worker_take(worker, channel_take_unsent(worker->channel));
}

/* Takes what was handed over, oldest first. */
static void worker_take_inbox(struct worker *worker)
{
	struct ndio_request *stack = atomic_exchange(&worker->inbox, NULL);
	struct ndio_request *oldest = NULL, *next;

	for (; stack; stack = next) {
		next = stack->next;
		stack->next = oldest;
		oldest = stack;
	}
	worker_take(worker, oldest);
}

static bool may_end(const struct worker *worker, int closing)
{
	return closing != OPEN && atomic_load(&worker->load) == 0;
}

/* Sleeps until something lands, or another thread wakes it; not if there is something to take,
 * or if it was told to end since, or may end. */
static void wait_for_work(struct worker *worker, int closing)
{
	bool sleep;
	eventfd_t count;

	atomic_store(&worker->asleep, true);
	sleep = !atomic_load(&worker->inbox) && atomic_load(&worker->closing) == closing &&
		!may_end(worker, closing);
	channel_wait(worker->channel, sleep, worker->wake_fd);
	/* Whoever has lowered the flag writes to the descriptor, or is about to. */
	if (!atomic_exchange(&worker->asleep, false))
		while (eventfd_read(worker->wake_fd, &count) < 0 && errno == EINTR)
			;
}

static void *worker_main(void *opaque)
{
	struct worker *worker = opaque;
	bool canceled = false;

	self = worker;
	for (;;) {
		int closing;

		worker_take_inbox(worker);
		/* All that has completed can be told of, and what follows may sleep. */
		if (worker->all->after_round)
			worker->all->after_round();
		closing = atomic_load(&worker->closing);
		if (closing == CANCEL && !canceled) {
			channel_cancel(worker->channel);
			canceled = true;
		}
		if (may_end(worker, closing))
			break;
		/* If it's down, those fail that nobody took. */
		if (channel_send(worker->channel, !worker->down) || atomic_load(&worker->inbox))
			channel_wait(worker->channel, false, worker->wake_fd);
		else
			wait_for_work(worker, closing);
		channel_land(worker->channel);
		look_whether_up(worker);
	}
	channel_close(worker->channel);
	return NULL;
}

/* ---- opening and closing ---- */

static int worker_open(struct worker *worker, struct volume *volume,
		       const struct channel_options *options, struct bvec bounce, struct error *err)
{
	int ret;

	worker->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (worker->wake_fd < 0)
		return error_set(err, errno, "no descriptor for a worker: %s", strerror(errno));
	ret = channel_open(volume, options, bounce, &worker->channel, err);
	if (ret == 0)
		ret = -thread_start(&worker->thread, worker_main, worker);
	if (ret == 0)
		return 0;
	if (worker->channel)
		error_set(err, -ret, "no thread for a worker: %s", strerror(-ret));
	channel_close(worker->channel);
	close(worker->wake_fd);
	return ret;
}

int workers_open(struct volume *volume, unsigned count, const struct channel_options *options,
		 void (*after_round)(void), struct workers **result, struct error *err)
{
	size_t share = channel_bounce_len(options);
	struct workers *workers;
	int ret;

	count = min_u64(count, volume->target->max_queues);
	workers = calloc(1, sizeof(*workers) + count * sizeof(workers->worker[0]));
	if (!workers)
		return error_set(err, ENOMEM, "no memory for %u workers", count);
	workers->after_round = after_round;
	ret = bounce_init(&workers->bounce, count * share, options->huge_pages, err);
	while (workers->count < count && ret == 0) {
		workers->worker[workers->count].all = workers;
		ret = worker_open(&workers->worker[workers->count], volume, options,
				  bounce_share(&workers->bounce, workers->count, share), err);
		workers->count += ret == 0;
	}
	if (ret < 0)
		workers_close(workers, false);
	else
		*result = workers;
	return ret;
}

void workers_close(struct workers *workers, bool cancel)
{
	if (!workers)
		return;
	/* A server that doesn't get over the end of one connection may end the others as well. */
	for (unsigned i = 0; i < workers->count && cancel; i++)
		channel_expect_cancel(workers->worker[i].channel);
	for (unsigned i = 0; i < workers->count; i++) {
		atomic_store(&workers->worker[i].closing, cancel ? CANCEL : DRAIN);
		worker_wake(&workers->worker[i]);
	}
	/* All of them first: one that ends may just be waking another. */
	for (unsigned i = 0; i < workers->count; i++)
		pthread_join(workers->worker[i].thread, NULL);
	for (unsigned i = 0; i < workers->count; i++)
		close(workers->worker[i].wake_fd);
	bounce_destroy(&workers->bounce);
	free(workers);
}

unsigned workers_count(const struct workers *workers)
{
	return workers->count;
}

bool workers_are_pinned(const struct workers *workers)
{
	return workers->bounce.pinned;
}

/* ---- handing over ---- */

static void hand_over(struct ndio_request *request)
{
	worker_push(request->waiter, request);
}

/* The least loaded. But a worker that submits from a completion keeps the request, unless
 * another has clearly less to do: it need not be woken. */
static struct worker *choose_worker(struct workers *workers)
{
	struct worker *best = least_loaded(workers);

	if (self >= workers->worker && self < workers->worker + workers->count &&
	    (!self->down || best->down) && self->load <= best->load + OWN_WORK)
		best = self;
	return best;
}

void workers_submit(struct workers *workers, struct ndio_request *request)
{
	struct worker *worker = choose_worker(workers);

	request_get(request, REF_CHANNEL);
	request->waiter = worker;
	request->load = &worker->load;
	atomic_fetch_add(&worker->load, 1);
	request->resume = hand_over;
	if (request_take_range(request))
		worker_push(worker, request);
}

static void wake_submitter(struct ndio_request *request)
{
	sem_post(request->opaque);
}

int workers_run(struct workers *workers, struct ndio_request *request)
{
	sem_t done;

	sem_init(&done, 0, 0);
	request->done = wake_submitter;
	request->opaque = &done;
	workers_submit(workers, request);
	thread_wait(&done);
	sem_destroy(&done);
	request_unpin(request);
	return request->error;
}
