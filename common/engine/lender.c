/* A fixed number of channels, each lent to one thread at a time, for the life of one request.
 * That is lender_run(): the thread waits for its range, for its turn, for a channel; then it
 * sends pieces, waits for them and lands them until the request has ended, and gives the
 * channel back.
 *
 * Threads: those of the callers alone. Each waits on a semaphore of its own, on its stack. The
 * locks are leaves: nothing else is taken under one.
 *
 * Invariants: the range comes before the channel, so whoever holds a channel waits only for
 * the target, and channels always come back. One that comes back is handed to the thread that
 * has waited longest: were that only told of it, others would take it first. While somebody
 * waits, none is free. A flush that waits for others at its end does so without a channel,
 * since they may need it. */
#include "engine/lender.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>

#include "base/align.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "engine/bounce.h"
#include "engine/depth.h"
#include "engine/helpers.h"

/* 3 GB/s from a disk that answers in a millisecond, and half or less of what clients ask for
 * that have much in flight. Small reads would wait for large ones longer than the disk takes
 * for them. */
static const struct lender_turns usual_turns = {
	.depth = 3 * 1024 * 1024,
	.small = 128 * 1024,
	.patience = 4,
};

/* A thread that no channel was left for. */
struct borrower {
	struct borrower *next;
	struct channel *channel; /* that it was handed */
	sem_t handed;
};

/* Channels of one kind. */
struct stock {
	struct bounce bounce;    /* of all of them */
	size_t piece_len, share; /* of a channel; and its bounce memory */
	pthread_mutex_t lock;
	unsigned count, nr_free;       /* opened; and not lent */
	struct channel **free;         /* a stack: the channel used last has the warmest memory */
	struct borrower *first, **end; /* who waits, longest first */
};

struct lender {
	struct stock wide, narrow;
	uint64_t small_read; /* bytes: those up to it don't wait for others */
	struct depth reads;
	struct helpers *helpers; /* or NULL */
};

/* ---- opening and closing ---- */

static int stock_open(struct stock *stock, unsigned count, const struct channel_options *options,
		      struct volume *volume, struct error *err)
{
	int ret;

	stock->piece_len = options->piece_len;
	stock->share = channel_bounce_len(options);
	stock->free = calloc(count, sizeof(*stock->free));
	if (!stock->free)
		return error_set(err, ENOMEM, "no memory for %u channels", count);
	ret = bounce_init(&stock->bounce, count * stock->share, options->huge_pages, err);
	while (ret == 0 && stock->count < count) {
		ret = channel_open(volume, options,
				   bounce_share(&stock->bounce, stock->count, stock->share),
				   &stock->free[stock->count], err);
		if (ret == 0)
			stock->nr_free = ++stock->count;
	}
	return ret;
}

static void stock_close(struct stock *stock)
{
	assert(stock->nr_free == stock->count);
	for (unsigned i = 0; i < stock->count; i++)
		channel_close(stock->free[i]);
	bounce_destroy(&stock->bounce);
	free(stock->free);
	pthread_mutex_destroy(&stock->lock);
}

static int open_stocks(struct lender *lender, struct volume *volume,
		       const struct lender_options *options, struct error *err)
{
	struct channel_options wide = options->wide;
	int ret = 0;

	if (volume->encrypted && wide.piece_len >= HELPERS_MIN_LEN)
		ret = helpers_open(volume, &lender->helpers, err);
	wide.helpers = lender->helpers;
	if (ret == 0)
		ret = stock_open(&lender->wide, options->wide_channels, &wide, volume, err);
	if (ret == 0 && options->narrow_channels && volume->block <= options->narrow.piece_len)
		ret = stock_open(&lender->narrow, options->narrow_channels, &options->narrow,
				 volume, err);
	return ret;
}

int lender_open(struct volume *volume, const struct lender_options *options, struct lender **result,
		struct error *err)
{
	const struct lender_turns *turns = options->turns.depth ? &options->turns : &usual_turns;
	struct lender *lender = calloc(1, sizeof(*lender));
	int ret;

	if (!lender)
		return error_set(err, ENOMEM, "no memory for a lender of channels");
	lender->small_read = turns->small;
	depth_init(&lender->reads, turns->depth, turns->patience);
	mutex_init_short(&lender->wide.lock);
	mutex_init_short(&lender->narrow.lock);
	ret = open_stocks(lender, volume, options, err);
	if (ret < 0)
		lender_close(lender);
	else
		*result = lender;
	return ret;
}

void lender_close(struct lender *lender)
{
	if (!lender)
		return;
	stock_close(&lender->narrow);
	stock_close(&lender->wide);
	helpers_close(lender->helpers);
	depth_destroy(&lender->reads);
	free(lender);
}

bool lender_is_pinned(const struct lender *lender)
{
	return lender->wide.bounce.pinned &&
	       (!lender->narrow.count || lender->narrow.bounce.pinned);
}

/* ---- borrowing ---- */

static struct channel *borrow(struct stock *stock)
{
	struct borrower borrower = { .next = NULL };
	bool waits;

	pthread_mutex_lock(&stock->lock);
	waits = stock->nr_free == 0;
	if (waits) {
		sem_init(&borrower.handed, 0, 0);
		*(stock->first ? stock->end : &stock->first) = &borrower;
		stock->end = &borrower.next;
	} else {
		borrower.channel = stock->free[--stock->nr_free];
	}
	pthread_mutex_unlock(&stock->lock);
	if (waits) {
		thread_wait(&borrower.handed);
		sem_destroy(&borrower.handed);
	}
	return borrower.channel;
}

static void give_back(struct stock *stock, struct channel *channel)
{
	struct borrower *borrower;

	pthread_mutex_lock(&stock->lock);
	borrower = stock->first;
	if (borrower)
		stock->first = borrower->next;
	else
		stock->free[stock->nr_free++] = channel;
	pthread_mutex_unlock(&stock->lock);
	if (borrower) {
		borrower->channel = channel;
		sem_post(&borrower->handed);
	}
}

/* What is a single subrequest anyway gains nothing by more or larger pieces. */
static struct stock *stock_for(struct lender *lender, const struct ndio_request *request)
{
	struct stock *narrow = &lender->narrow;

	return narrow->count && channel_one_piece(request, narrow->piece_len) ? narrow :
										&lender->wide;
}

/* ---- turns ---- */

/* Bytes that it asks the target for at once, if it is a read that waits for others. It may be
 * more where the caller's memory can be read into, as nbdkit's can't: see direct_len(). */
static uint64_t read_depth(const struct lender *lender, const struct ndio_request *request)
{
	if (request->op != OP_READ || request->len <= lender->small_read)
		return 0;
	return min_u64(request->len, lender->wide.share);
}

/* Whoever is let in is mostly put behind us, on our core. To ask the disk takes it little, and
 * to decrypt takes us long, so it may go first. */
static void give_up_turn(struct lender *lender, uint64_t depth)
{
	if (depth_leave(&lender->reads, depth))
		sched_yield();
}

/* ---- a request's life ---- */

static void wake_caller(struct ndio_request *request)
{
	sem_post(request->waiter);
}

int lender_run(struct lender *lender, struct ndio_request *request)
{
	struct stock *stock = stock_for(lender, request);
	uint64_t depth = read_depth(lender, request);
	struct channel *channel;
	sem_t resumed;

	sem_init(&resumed, 0, 0);
	request->waiter = &resumed;
	request->resume = wake_caller;
	if (!request_take_range(request))
		thread_wait(&resumed);
	if (depth)
		depth_enter(&lender->reads, depth);
	channel = borrow(stock);
	request_get(request, REF_CHANNEL);
	channel_start(channel, request);
	while (request->state == REQUEST_RUNNING) {
		channel_send(channel, false);
		channel_wait(channel, true, -1);
		/* Before it is decrypted, so that the target isn't idle meanwhile. */
		if (depth && channel_all_read(channel)) {
			give_up_turn(lender, depth);
			depth = 0;
		}
		channel_land(channel);
	}
	assert(!depth);
	give_back(stock, channel);
	if (request->state == REQUEST_ENDED) {
		thread_wait(&resumed);
		request_finish(request);
	}
	sem_destroy(&resumed);
	return request->error;
}
