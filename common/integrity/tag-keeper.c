#include "integrity/tag-keeper.h"

#include <assert.h>
#include <limits.h>

#include "base/mutex.h"
#include "base/thread.h"

void tag_keeper_init(struct tag_keeper *keeper, struct tag_sweep *all, struct target *below,
		     uint64_t start)
{
	*keeper = (struct tag_keeper){
		.all = all,
		.below = { .target = below, .start = start },
		.refused = below->max_queues != UINT_MAX || below->readonly,
	};
	mutex_init_short(&keeper->lock);
	pthread_cond_init(&keeper->wake, NULL);
}

void tag_keeper_destroy(struct tag_keeper *keeper)
{
	if (!keeper->all)
		return;
	assert(keeper->nr_users == 0 && !keeper->there);
	pthread_cond_destroy(&keeper->wake);
	pthread_mutex_destroy(&keeper->lock);
}

/* ---- the thread ---- */

/* False: it is to go. */
static bool sleep_until_asked(struct tag_keeper *keeper)
{
	bool ending;

	pthread_mutex_lock(&keeper->lock);
	while (!keeper->asked && !keeper->ending)
		pthread_cond_wait(&keeper->wake, &keeper->lock);
	keeper->asked = false;
	ending = keeper->ending;
	pthread_mutex_unlock(&keeper->lock);
	return !ending;
}

static void *tag_keeper_main(void *opaque)
{
	struct tag_keeper *keeper = opaque;

	while (sleep_until_asked(keeper))
		tag_sweep_wait(&keeper->sweeper);
	return NULL;
}

static void close_queue(struct tag_keeper *keeper)
{
	tag_sweeper_close(&keeper->sweeper);
	if (keeper->below.queue)
		keeper->below.target->ops->queue_close(keeper->below.queue);
	keeper->below.queue = NULL;
}

/* With the lock held. False: there is no memory, or no thread. */
static bool start_tag_keeper(struct tag_keeper *keeper)
{
	struct below *below = &keeper->below;
	struct error err;

	below->queue = below->target->ops->queue_open(below->target, KEEPER_DEPTH,
						      (struct bvec){ 0 }, &err);
	keeper->there = tag_sweeper_open(&keeper->sweeper, keeper->all, below, KEEPER_DEPTH) &&
			below->queue && thread_start(&keeper->thread, tag_keeper_main, keeper) == 0;
	if (!keeper->there)
		close_queue(keeper);
	return keeper->there;
}

static void end_tag_keeper(struct tag_keeper *keeper)
{
	pthread_join(keeper->thread, NULL);
	close_queue(keeper);
	pthread_mutex_lock(&keeper->lock);
	keeper->there = keeper->ending = false;
	pthread_mutex_unlock(&keeper->lock);
}

/* ---- its users ---- */

void tag_keeper_enter(struct tag_keeper *keeper)
{
	pthread_mutex_lock(&keeper->lock);
	keeper->nr_users++;
	pthread_mutex_unlock(&keeper->lock);
}

/* Who comes while the last one goes does without it. */
void tag_keeper_leave(struct tag_keeper *keeper)
{
	bool ends;

	pthread_mutex_lock(&keeper->lock);
	assert(keeper->nr_users > 0);
	ends = --keeper->nr_users == 0 && keeper->there && !keeper->ending;
	if (ends) {
		keeper->ending = true;
		pthread_cond_signal(&keeper->wake);
	}
	pthread_mutex_unlock(&keeper->lock);
	if (ends)
		end_tag_keeper(keeper);
}

bool tag_keeper_ask(struct tag_keeper *keeper)
{
	bool there;

	if (atomic_load(&keeper->asked))
		return true;
	pthread_mutex_lock(&keeper->lock);
	if (!keeper->there && !keeper->refused)
		keeper->refused = !start_tag_keeper(keeper);
	there = keeper->there && !keeper->ending;
	if (there) {
		keeper->asked = true;
		pthread_cond_signal(&keeper->wake);
	}
	pthread_mutex_unlock(&keeper->lock);
	return there;
}
