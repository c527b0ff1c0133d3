#include "rangelock.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "mutex.h"

#define REGION 65536 /* bytes */

void range_lock_init(struct range_lock *ranges)
{
	mutex_init_short(&ranges->lock);
	ranges->first = ranges->last = NULL;
	memset(ranges->in_region, 0, sizeof(ranges->in_region));
	ranges->across = 0;
}

void range_lock_destroy(struct range_lock *ranges)
{
	assert(!ranges->first);
	pthread_mutex_destroy(&ranges->lock);
}

static bool conflict(const struct range *a, const struct range *b)
{
	if (a->end <= b->start || b->end <= a->start)
		return false;
	if (a->mode == RANGE_PARTIAL || b->mode == RANGE_PARTIAL)
		return true;
	return a->mode == RANGE_WRITE && b->mode == RANGE_WRITE;
}

/* The count that this range is a part of. */
static unsigned *count_of(struct range_lock *ranges, const struct range *range)
{
	uint64_t region = range->start / REGION;

	if (range->end > (region + 1) * REGION)
		return &ranges->across;
	return &ranges->in_region[region % RANGE_REGIONS];
}

/* Could one of those that are counted conflict with it? It isn't counted itself. */
static bool may_conflict(struct range_lock *ranges, const struct range *range)
{
	const unsigned *count = count_of(ranges, range);

	return ranges->across || (count == &ranges->across ? ranges->first != NULL : *count > 0);
}

bool range_acquire(struct range_lock *ranges, struct range *range)
{
	unsigned blockers = 0;

	pthread_mutex_lock(&ranges->lock);
	if (may_conflict(ranges, range))
		for (const struct range *r = ranges->first; r; r = r->next)
			blockers += conflict(r, range);
	++*count_of(ranges, range);
	range->blockers = blockers;
	range->next = NULL;
	range->prev = ranges->last;
	if (ranges->last)
		ranges->last->next = range;
	else
		ranges->first = range;
	ranges->last = range;
	pthread_mutex_unlock(&ranges->lock);
	return blockers == 0;
}

void range_release(struct range_lock *ranges, struct range *range)
{
	pthread_mutex_lock(&ranges->lock);
	assert(range->blockers == 0);
	--*count_of(ranges, range);
	/* granted() runs under the mutex: once it has run, the range may be released and its
	 * memory reused by another thread, and the walk still needs its next. */
	if (may_conflict(ranges, range))
		for (struct range *r = range->next; r; r = r->next)
			if (conflict(range, r) && --r->blockers == 0)
				r->granted(r);
	if (range->prev)
		range->prev->next = range->next;
	else
		ranges->first = range->next;
	if (range->next)
		range->next->prev = range->prev;
	else
		ranges->last = range->prev;
	pthread_mutex_unlock(&ranges->lock);
}
