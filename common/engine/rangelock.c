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
	idle = ranges->arrived == ranges->released;
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
	return a->start != b->start ? a->start < b->start :
				      a->rank[RANGE_LATEST] < b->rank[RANGE_LATEST];
}

static void range_sum_up(struct range *range)
{
	range->max_end = range->end;
	memcpy(range->max_rank, range->rank, sizeof(range->rank));
	for (unsigned side = 0; side < 2; side++) {
		const struct range *child = range->child[side];

		if (!child)
			continue;
		range->max_end = max_u64(range->max_end, child->max_end);
		for (unsigned by = 0; by < 2; by++)
			range->max_rank[by] = max_u64(range->max_rank[by], child->max_rank[by]);
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
	range_sum_up(tree);
}

/* All of one is before all of the other. */
static struct range *join(struct range_lock *ranges, struct range *before, struct range *behind)
{
	if (!before || !behind)
		return before ? before : behind;
	ranges->steps++;
	if (before->priority > behind->priority) {
		before->child[1] = join(ranges, before->child[1], behind);
		range_sum_up(before);
		return before;
	}
	behind->child[0] = join(ranges, before, behind->child[0]);
	range_sum_up(behind);
	return behind;
}

static void range_insert(struct range_lock *ranges, struct range **tree, struct range *range)
{
	struct range *before, *behind;

	range_sum_up(range);
	part(ranges, *tree, range, &before, &behind);
	*tree = join(ranges, join(ranges, before, range), behind);
}

static void erase(struct range_lock *ranges, struct range **tree, struct range *range)
{
	ranges->steps++;
	if (*tree == range) {
		*tree = join(ranges, range->child[0], range->child[1]);
		return;
	}
	erase(ranges, &(*tree)->child[is_before(*tree, range)], range);
	range_sum_up(*tree);
}

/* Of those that a range conflicts with, the one that ranks highest, and higher than the least. */
struct search {
	const struct range *of;
	enum range_rank by;
	uint64_t least;
	struct range *found; /* so far, or NULL: of the least rank */
};

static void find_in_tree(struct range_lock *ranges, struct range *tree, struct search *search)
{
	const struct range *of = search->of, *left, *right;
	unsigned by = search->by, first;

	if (!tree || tree->max_end <= of->start || tree->max_rank[by] <= search->least)
		return;
	ranges->steps++;
	if (tree->rank[by] > search->least && tree->start < of->end && tree->end > of->start) {
		search->found = tree;
		search->least = tree->rank[by];
	}
	/* The better side first: then there is mostly nothing to find on the other one. */
	left = tree->child[0];
	right = tree->child[1];
	first = left && right && right->max_rank[by] > left->max_rank[by];
	for (unsigned i = 0; i < 2; i++) {
		unsigned side = first ^ i;

		if (side == 0 || tree->start < of->end)
			find_in_tree(ranges, tree->child[side], search);
	}
}

/* ---- which trees ---- */

static struct range **tree_of(struct range_lock *ranges, const struct range *range)
{
	uint64_t region = range->start / REGION;
	bool is_across = region != (range->end - 1) / REGION;

	return &ranges->trees[is_across ? RANGE_REGIONS : region % RANGE_REGIONS][range->mode];
}

static bool conflict(enum range_mode a, enum range_mode b)
{
	return a == RANGE_PARTIAL || b == RANGE_PARTIAL || (a == RANGE_WRITE && b == RANGE_WRITE);
}

static void find_in(struct range_lock *ranges, unsigned region, struct search *search)
{
	for (unsigned mode = 0; mode < RANGE_MODES; mode++)
		if (conflict(mode, search->of->mode))
			find_in_tree(ranges, ranges->trees[region][mode], search);
}

/* The latest of all that are there and conflict with it, or the earliest of those that came before
 * it; or NULL. */
static struct range *find_blocker(struct range_lock *ranges, const struct range *range,
				  enum range_rank by)
{
	uint64_t first = range->start / REGION, count = (range->end - 1) / REGION - first + 1;
	struct search search = { .of = range, .by = by };

	if (by == RANGE_EARLIEST)
		search.least = range->rank[by];
	find_in(ranges, RANGE_REGIONS, &search);
	for (uint64_t i = 0; i < min_u64(count, RANGE_REGIONS); i++)
		find_in(ranges, (first + i) % RANGE_REGIONS, &search);
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

static void range_wait_for(struct range *range, struct range *blocker)
{
	range->blocker = blocker;
	range->next = NULL;
	*(blocker->first_waiting ? blocker->end_waiting : &blocker->first_waiting) = range;
	blocker->end_waiting = &range->next;
}

bool range_acquire(struct range_lock *ranges, struct range *range)
{
	struct range *blocker;

	pthread_mutex_lock(&ranges->lock);
	range->rank[RANGE_LATEST] = ++ranges->arrived;
	range->rank[RANGE_EARLIEST] = ~ranges->arrived;
	range->priority = scramble(ranges->arrived);
	range->blocker = range->first_waiting = NULL;
	range->child[0] = range->child[1] = NULL;
	blocker = find_blocker(ranges, range, RANGE_LATEST);
	if (blocker)
		range_wait_for(range, blocker);
	range_insert(ranges, tree_of(ranges, range), range);
	pthread_mutex_unlock(&ranges->lock);
	return !blocker;
}

void range_release(struct range_lock *ranges, struct range *range)
{
	struct range *waiting, *next;

	pthread_mutex_lock(&ranges->lock);
	assert(!range->blocker);
	erase(ranges, tree_of(ranges, range), range);
	ranges->released++;
	/* granted() runs under the mutex: once it has run, the range may be released and its memory
	 * reused by another thread. */
	for (waiting = range->first_waiting; waiting; waiting = next) {
		struct range *blocker = find_blocker(ranges, waiting, RANGE_EARLIEST);

		ranges->steps++;
		next = waiting->next;
		waiting->blocker = NULL;
		if (blocker)
			range_wait_for(waiting, blocker);
		else
			waiting->granted(waiting);
	}
	pthread_mutex_unlock(&ranges->lock);
}
