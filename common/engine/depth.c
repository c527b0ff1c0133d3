/* A disk that has enough to do is no faster for more. It serves all that it has side by side,
 * so that all of it lands late and at once; then the cores have work and the disk has none.
 * Asked for less, it is done with some of it while it reads the rest. Any thread may enter,
 * and sleeps on a condition of its own, in a line: nobody goes in while another waits. */
#include "engine/depth.h"

#include <assert.h>

#include "base/clock.h"
#include "base/mutex.h"

#define DECAY 128 /* the part of what was added that goes with each that enters */

void depth_init(struct depth *depth, uint64_t least, unsigned patience)
{
	*depth = (struct depth){ .least = least, .max = least, .patience = patience };
	depth->end = &depth->first;
	mutex_init_short(&depth->lock);
}

void depth_destroy(struct depth *depth)
{
	assert(!depth->first && depth->bytes == 0);
	pthread_mutex_destroy(&depth->lock);
}

static bool depth_has_room(const struct depth *depth, uint64_t len)
{
	return depth->bytes == 0 || depth->bytes + len <= depth->max;
}

static void depth_take_out(struct depth *depth, struct depth_waiter *waiter)
{
	struct depth_waiter **at = &depth->first;

	while (*at != waiter)
		at = &(*at)->next;
	*at = waiter->next;
	if (!waiter->next)
		depth->end = at;
}

/* With the mutex held, but for the time asleep. */
static void wait_for_turn(struct depth *depth, struct depth_waiter *waiter)
{
	const int64_t until = clock_ms() + depth->patience;
	int ret = 0;

	pthread_cond_init(&waiter->turn, NULL);
	*depth->end = waiter;
	depth->end = &waiter->next;
	while (!waiter->entered && ret == 0)
		ret = clock_wait(&waiter->turn, &depth->lock, until);
	if (!waiter->entered) {
		depth_take_out(depth, waiter);
		depth->bytes += waiter->len;
		depth->max += waiter->len;
	}
	pthread_cond_destroy(&waiter->turn);
}

void depth_enter(struct depth *depth, uint64_t len)
{
	struct depth_waiter waiter = { .len = len };

	pthread_mutex_lock(&depth->lock);
	depth->max -= (depth->max - depth->least) / DECAY;
	if (depth->first || !depth_has_room(depth, len))
		wait_for_turn(depth, &waiter);
	else
		depth->bytes += len;
	pthread_mutex_unlock(&depth->lock);
}

bool depth_leave(struct depth *depth, uint64_t len)
{
	struct depth_waiter *waiter;
	bool let_in = false;

	pthread_mutex_lock(&depth->lock);
	depth->bytes -= len;
	while ((waiter = depth->first) && depth_has_room(depth, waiter->len)) {
		depth->bytes += waiter->len;
		depth_take_out(depth, waiter);
		waiter->entered = let_in = true;
		pthread_cond_signal(&waiter->turn);
	}
	pthread_mutex_unlock(&depth->lock);
	return let_in;
}
