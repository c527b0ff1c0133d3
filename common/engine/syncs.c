/* Linux tells an error of writeback once, to one of those that ask (fsync(2)): the next flush of
 * the same open file succeeds, though what an earlier write put into the page cache is lost. So may
 * a server's. Hence two rules:
 *
 *  - once one has failed, none succeeds any more, until the volume is opened anew;
 *  - one that has succeeded is told so only when all that were under way at its end have been seen
 *    to succeed: one of them may just have been told of the loss in its place.
 *
 * The one list is of those under way, in the order of their beginning; the other of those that wait, in
 * the order of what they wait for. A mutex guards both, and cleared() is called without it. */
#include "engine/syncs.h"

#include <assert.h>
#include <stddef.h>

void syncs_destroy(struct syncs *syncs)
{
	assert(!syncs->first && !syncs->first_waiting);
	pthread_mutex_destroy(&syncs->lock);
}

int syncs_error(struct syncs *syncs)
{
	int error;

	pthread_mutex_lock(&syncs->lock);
	error = syncs->error;
	pthread_mutex_unlock(&syncs->lock);
	return error;
}

void sync_begin(struct syncs *syncs, struct sync *sync)
{
	pthread_mutex_lock(&syncs->lock);
	sync->number = syncs->begun++;
	sync->next = NULL;
	sync->prev = syncs->last;
	*(syncs->last ? &syncs->last->next : &syncs->first) = sync;
	syncs->last = sync;
	pthread_mutex_unlock(&syncs->lock);
}

static void remove_from_way(struct syncs *syncs, struct sync *sync)
{
	*(sync->prev ? &sync->prev->next : &syncs->first) = sync->next;
	*(sync->next ? &sync->next->prev : &syncs->last) = sync->prev;
}

static void add_waiting(struct syncs *syncs, struct sync *sync)
{
	sync->number = syncs->begun;
	sync->next = NULL;
	*(syncs->first_waiting ? &syncs->last_waiting->next : &syncs->first_waiting) = sync;
	syncs->last_waiting = sync;
}

/* Takes those that need not wait any more out of their list, which is in the order of what they
 * wait for. Once one has failed nobody waits. */
static struct sync *take_cleared(struct syncs *syncs)
{
	struct sync *cleared = syncs->first_waiting, **end = &syncs->first_waiting;

	while (*end && (syncs->error || !syncs->first || syncs->first->number >= (*end)->number)) {
		(*end)->error = syncs->error;
		end = &(*end)->next;
	}
	if (end == &syncs->first_waiting)
		return NULL;
	syncs->first_waiting = *end;
	*end = NULL;
	return cleared;
}

bool sync_end(struct syncs *syncs, struct sync *sync, int error, bool wait)
{
	struct sync *cleared, *next;
	bool waits;

	pthread_mutex_lock(&syncs->lock);
	remove_from_way(syncs, sync);
	if (error && !syncs->error)
		syncs->error = error;
	sync->error = syncs->error;
	waits = wait && !syncs->error && syncs->first;
	cleared = take_cleared(syncs);
	if (waits)
		add_waiting(syncs, sync);
	pthread_mutex_unlock(&syncs->lock);
	for (; cleared; cleared = next) {
		next = cleared->next;
		cleared->cleared(cleared); /* by then it may be gone */
	}
	return !waits;
}
