/* Granted in the order of arrival: a range waits for every earlier one that it conflicts with,
 * held or waiting, so nobody starves. A holder must not wait for another range. One mutex
 * guards all of it.
 *
 * A range that has to wait is known to the latest of those alone (its blocker); when that one
 * is released, to the earliest of those that are left. Mostly there are none: where many want
 * the same bytes, they stand in a line. What is in flight is kept in search trees (treaps) by
 * its place, each range in that of its region of the volume, or of those that don't lie in
 * one; so it costs next to nothing where nothing is near, and the logarithm of what is. */
#include "engine/rangelock.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "base/align.h"
#include "base/mutex.h"

#define REGION 65536 /* bytes */

void range_lock_init(struct range_lock *ranges)
{
	memset(ranges, 0, sizeof(*ranges));
	mutex_init_short(&ranges->lock);
}

bool range_lock_is_idle(struct range_lock *ranges)
{
	bool idle;

	pthread_mutex_lock(&ranges->lock);
	idle = !ranges->in_regions && !ranges->across.root[RANGE_READ] &&
	       !ranges->across.root[RANGE_WRITE] && !ranges->across.root[RANGE_PARTIAL];
	pthread_mutex_unlock(&ranges->lock);
	return idle;
}

void range_lock_destroy(struct range_lock *ranges)
{
	assert(range_lock_is_idle(ranges));
	pthread_mutex_destroy(&ranges->lock);
}

/* ---- the trees ---- */

static bool is_before(const struct range *a, const struct range *b)
{
	return a->start != b->start ? a->start < b->start : a->number < b->number;
}

static void sum_up(struct range *range)
{
	range->max_end = range->end;
	range->min_number = range->max_number = range->number;
	for (unsigned side = 0; side < 2; side++) {
		const struct range *child = range->child[side];

		if (!child)
			continue;
		range->max_end = child->max_end > range->max_end ? child->max_end : range->max_end;
		range->min_number = min_u64(range->min_number, child->min_number);
		if (child->max_number > range->max_number)
			range->max_number = child->max_number;
	}
}

/* Parts a tree into what is before the range and what is behind it. */
static void part(struct range_lock *ranges, struct range *tree, const struct range *at,
		 struct range **before, struct range **behind)
{
	if (!tree) {
		*before = *behind = NULL;
		return;
	}
	ranges->steps++;
	if (is_before(tree, at)) {
		*before = tree;
		part(ranges, tree->child[1], at, &tree->child[1], behind);
	} else {
		*behind = tree;
		part(ranges, tree->child[0], at, before, &tree->child[0]);
	}
	sum_up(tree);
}

/* All of one is before all of the other. */
static struct range *join(struct range_lock *ranges, struct range *before, struct range *behind)
{
	if (!before || !behind)
		return before ? before : behind;
	ranges->steps++;
	if (before->priority > behind->priority) {
		before->child[1] = join(ranges, before->child[1], behind);
		sum_up(before);
		return before;
	}
	behind->child[0] = join(ranges, before, behind->child[0]);
	sum_up(behind);
	return behind;
}

static void insert(struct range_lock *ranges, struct range **tree, struct range *range)
{
	ranges->steps++;
	if (!*tree || range->priority > (*tree)->priority) {
		part(ranges, *tree, range, &range->child[0], &range->child[1]);
		*tree = range;
	} else {
		insert(ranges, &(*tree)->child[is_before(*tree, range)], range);
	}
	sum_up(*tree);
}

static void erase(struct range_lock *ranges, struct range **tree, struct range *range)
{
	ranges->steps++;
	if (*tree == range) {
		*tree = join(ranges, range->child[0], range->child[1]);
		return;
	}
	erase(ranges, &(*tree)->child[is_before(*tree, range)], range);
	sum_up(*tree);
}

/* A range that somebody looks for: of those that it conflicts with, the latest that arrived,
 * or, with earliest, the earliest before it. */
struct search {
	const struct range *of;
	bool earliest;
	struct range *found; /* so far, or NULL */
};

/* May the tree have one that is better than what was found? */
static bool may_improve(const struct search *search, const struct range *tree)
{
	const struct range *found = search->found;

	if (!tree || tree->max_end <= search->of->start)
		return false;
	if (search->earliest)
		return tree->min_number < (found ? found : search->of)->number;
	return !found || tree->max_number > found->number;
}

static bool improves(const struct search *search, const struct range *range)
{
	const struct range *found = search->found;

	if (range->start >= search->of->end || range->end <= search->of->start)
		return false;
	if (search->earliest)
		return range->number < (found ? found : search->of)->number;
	return !found || range->number > found->number;
}

/* Which of two children to look at first: then there is mostly nothing to find on the other side. */
static unsigned better_side(const struct search *search, const struct range *tree)
{
	const struct range *left = tree->child[0], *right = tree->child[1];

	if (!left || !right)
		return 0;
	return search->earliest ? right->min_number < left->min_number :
				  right->max_number > left->max_number;
}

static void find(struct range_lock *ranges, struct range *tree, struct search *search)
{
	unsigned first;

	if (!may_improve(search, tree))
		return;
	ranges->steps++;
	if (improves(search, tree))
		search->found = tree;
	first = better_side(search, tree);
	for (unsigned i = 0; i < 2; i++) {
		unsigned side = first ^ i;

		if (side == 0 || tree->start < search->of->end)
			find(ranges, tree->child[side], search);
	}
}

/* ---- which trees ---- */

static bool is_across(const struct range *range)
{
	return range->start / REGION != (range->end - 1) / REGION;
}

static struct range **tree_of(struct range_lock *ranges, const struct range *range)
{
	struct range_tree *tree = is_across(range) ?
					  &ranges->across :
					  &ranges->region[range->start / REGION % RANGE_REGIONS];

	return &tree->root[range->mode];
}

static bool conflict(enum range_mode a, enum range_mode b)
{
	return a == RANGE_PARTIAL || b == RANGE_PARTIAL || (a == RANGE_WRITE && b == RANGE_WRITE);
}

static void find_in(struct range_lock *ranges, const struct range_tree *tree, struct search *search)
{
	for (unsigned mode = 0; mode < RANGE_MODES; mode++)
		if (conflict(mode, search->of->mode))
			find(ranges, tree->root[mode], search);
}

/* One of those before it that it conflicts with, or NULL. */
static struct range *find_blocker(struct range_lock *ranges, const struct range *range,
				  bool earliest)
{
	uint64_t first = range->start / REGION, count = (range->end - 1) / REGION - first + 1;
	struct search search = { .of = range, .earliest = earliest };

	find_in(ranges, &ranges->across, &search);
	if (ranges->in_regions == 0)
		return search.found;
	for (uint64_t i = 0; i < min_u64(count, RANGE_REGIONS); i++)
		find_in(ranges, &ranges->region[(first + i) % RANGE_REGIONS], &search);
	return search.found;
}

/* ---- waiting ---- */

/* A priority that has nothing to do with places. */
static uint64_t scramble(uint64_t x)
{
	x = (x ^ x >> 32) * 0x9e3779b97f4a7c15;
	x = (x ^ x >> 29) * 0xd6e8feb86659fd93;
	return x ^ x >> 32;
}

static void wait_for(struct range *range, struct range *blocker)
{
	range->blocker = blocker;
	range->next = NULL;
	if (blocker->first_waiting)
		blocker->last_waiting->next = range;
	else
		blocker->first_waiting = range;
	blocker->last_waiting = range;
}

bool range_acquire(struct range_lock *ranges, struct range *range)
{
	struct range *blocker;

	pthread_mutex_lock(&ranges->lock);
	range->number = ranges->arrived++;
	range->priority = scramble(range->number);
	range->blocker = range->first_waiting = NULL;
	range->child[0] = range->child[1] = NULL;
	blocker = find_blocker(ranges, range, false);
	if (blocker)
		wait_for(range, blocker);
	insert(ranges, tree_of(ranges, range), range);
	ranges->in_regions += !is_across(range);
	pthread_mutex_unlock(&ranges->lock);
	return !blocker;
}

void range_release(struct range_lock *ranges, struct range *range)
{
	struct range *waiting, *next;

	pthread_mutex_lock(&ranges->lock);
	assert(!range->blocker);
	erase(ranges, tree_of(ranges, range), range);
	ranges->in_regions -= !is_across(range);
	/* granted() runs under the mutex: once it has run, the range may be released and its memory
	 * reused by another thread. */
	for (waiting = range->first_waiting; waiting; waiting = next) {
		struct range *blocker = find_blocker(ranges, waiting, true);

		ranges->steps++;
		next = waiting->next;
		waiting->blocker = NULL;
		if (blocker)
			wait_for(waiting, blocker);
		else
			waiting->granted(waiting);
	}
	pthread_mutex_unlock(&ranges->lock);
}
