#include "engine/lender.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>

#include "base/align.h"
#include "engine/bounce.h"
#include "engine/depth.h"
#include "engine/helpers.h"
#include "base/mutex.h"
#include "base/thread.h"

/* A thread that no channel was left for. */
struct borrower {
	struct borrower *next;
	struct channel *channel; /* that it was handed */
	sem_t handed;
};

struct lender {
	struct bounce bounce; /* of all channels */
	size_t piece_len;     /* of a channel */
	size_t share;         /* of bounce memory, for each channel */
	uint64_t small_read;  /* bytes: those up to it don't wait for others */
	struct depth reads;
	struct helpers *helpers; /* or NULL */
	pthread_mutex_t lock;
	unsigned count;   /* opened */
	unsigned nr_free;
	struct channel **channels; /* all of them */
	struct channel **free;     /* a stack: the channel used last has the warmest memory */
	struct borrower *first, **end; /* who waits, longest first; then none is free */
};

static int open_channels(struct lender *lender, struct volume *volume,
			 const struct channel_options *options, unsigned count, struct error *err)
{
	while (lender->count < count) {
		struct bvec bounce = bounce_share(&lender->bounce, lender->count, lender->share);
		int errnum;
		struct channel *channel = channel_open(volume, options, bounce, &errnum, err);

		if (!channel)
			return -errnum;
		lender->channels[lender->count++] = channel;
		lender->free[lender->nr_free++] = channel;
	}
	return 0;
}

static int set_up(struct lender *lender, struct volume *volume,
		  const struct lender_options *options, struct error *err)
{
	struct channel_options channel = options->channel;
	const unsigned count = options->channels;
	int errnum;

	lender->channels = calloc(count, sizeof(*lender->channels));
	lender->free = calloc(count, sizeof(*lender->free));
	if (!lender->channels || !lender->free)
		return error_set(err, ENOMEM, "no memory for %u channels", count);
	if (bounce_init(&lender->bounce, count * lender->share, channel.huge_pages, err) < 0)
		return -ENOMEM;
	if (options->helped && volume->encrypted) {
		lender->helpers = helpers_open(volume, &errnum, err);
		if (!lender->helpers)
			return -errnum;
		channel.helpers = lender->helpers;
	}
	return open_channels(lender, volume, &channel, count, err);
}

struct lender *lender_open(struct volume *volume, const struct lender_options *options,
			   int *errnum, struct error *err)
{
	struct lender *lender = calloc(1, sizeof(*lender));
	int ret;

	if (!lender) {
		*errnum = ENOMEM;
		error_set(err, ENOMEM, "no memory for a lender of channels");
		return NULL;
	}
	lender->piece_len = options->channel.piece_len;
	lender->share = channel_bounce_len(&options->channel);
	lender->small_read = options->small_read;
	depth_init(&lender->reads, options->read_depth, options->patience);
	lender->end = &lender->first;
	mutex_init_short(&lender->lock);
	ret = set_up(lender, volume, options, err);
	if (ret < 0) {
		*errnum = -ret;
		lender_close(lender);
		return NULL;
	}
	return lender;
}

void lender_close(struct lender *lender)
{
	if (!lender)
		return;
	for (unsigned i = 0; i < lender->count; i++)
		channel_close(lender->channels[i]);
	helpers_close(lender->helpers);
	bounce_destroy(&lender->bounce);
	free(lender->channels);
	free(lender->free);
	depth_destroy(&lender->reads);
	pthread_mutex_destroy(&lender->lock);
	free(lender);
}

bool lender_is_pinned(const struct lender *lender)
{
	return lender->bounce.pinned;
}

bool lender_suits(const struct lender *lender, const struct ndio_request *request)
{
	return channel_one_piece(request, lender->piece_len);
}

/* With the mutex held, which it lets go. */
static struct channel *wait_for_channel(struct lender *lender)
{
	struct borrower borrower = { .next = NULL };

	sem_init(&borrower.handed, 0, 0);
	*lender->end = &borrower;
	lender->end = &borrower.next;
	pthread_mutex_unlock(&lender->lock);
	thread_wait(&borrower.handed);
	sem_destroy(&borrower.handed);
	return borrower.channel;
}

static struct channel *borrow(struct lender *lender)
{
	struct channel *channel;

	pthread_mutex_lock(&lender->lock);
	if (lender->nr_free == 0)
		return wait_for_channel(lender);
	channel = lender->free[--lender->nr_free];
	pthread_mutex_unlock(&lender->lock);
	return channel;
}

/* To the thread that waits for it, if one does: were it only told that a channel is free, others
 * would take it first, and it would have been woken for nothing. */
static void give_back(struct lender *lender, struct channel *channel)
{
	struct borrower *borrower;

	pthread_mutex_lock(&lender->lock);
	borrower = lender->first;
	if (borrower) {
		lender->first = borrower->next;
		if (!lender->first)
			lender->end = &lender->first;
	} else {
		lender->free[lender->nr_free++] = channel;
	}
	pthread_mutex_unlock(&lender->lock);
	if (borrower) {
		borrower->channel = channel;
		sem_post(&borrower->handed);
	}
}

static void range_granted(struct range *range)
{
	struct ndio_request *request =
		(struct ndio_request *)((char *)range - offsetof(struct ndio_request, range));

	sem_post(request->waiter);
}

/* The range comes before the channel: whoever holds a channel waits only for the target, so
 * channels always come back. */
static void wait_for_range(struct ndio_request *request)
{
	sem_t granted;

	if (!request->has_range)
		return;
	sem_init(&granted, 0, 0);
	request->waiter = &granted;
	request->range.granted = range_granted;
	if (!range_acquire(&request->volume->ranges, &request->range))
		thread_wait(&granted);
	sem_destroy(&granted);
}

static void may_complete(struct ndio_request *request)
{
	sem_post(request->waiter);
}

/* Bytes that it asks the target for at once, if it is a read that waits for others. It may be more
 * where the caller's memory can be read into, as nbdkit's can't: see direct_len(). */
static uint64_t read_depth(const struct lender *lender, const struct ndio_request *request)
{
	if (request->op != OP_READ || lender->reads.least == 0 || request->len <= lender->small_read)
		return 0;
	return min_u64(request->len, lender->share);
}

/* Whoever is let in is mostly put behind us, on our core. To ask the disk takes it little, and to
 * decrypt takes us long, so it may go first. */
static void give_up_turn(struct lender *lender, uint64_t depth)
{
	if (depth_leave(&lender->reads, depth))
		sched_yield();
}

/* Runs it in a channel, to its end. */
static void run(struct lender *lender, struct ndio_request *request)
{
	uint64_t depth = read_depth(lender, request);
	struct channel *channel;

	if (depth)
		depth_enter(&lender->reads, depth);
	channel = borrow(lender);
	channel_start(channel, request);
	while (!request->ended) {
		channel_wait(channel, true, -1);
		/* Before it is decrypted, so that the target isn't idle meanwhile. */
		if (depth && channel_all_read(channel)) {
			give_up_turn(lender, depth);
			depth = 0;
		}
		channel_land(channel);
	}
	assert(!depth);
	give_back(lender, channel);
}

/* A flush waits for others without a channel, since they may need it. */
int lender_run(struct lender *lender, struct ndio_request *request)
{
	sem_t cleared;

	wait_for_range(request);
	if (!request->is_sync) {
		run(lender, request);
		return request->error;
	}
	sem_init(&cleared, 0, 0);
	request->waiter = &cleared;
	request->may_complete = may_complete;
	run(lender, request);
	if (!request->completed) {
		thread_wait(&cleared);
		request_finish(request);
	}
	sem_destroy(&cleared);
	return request->error;
}
