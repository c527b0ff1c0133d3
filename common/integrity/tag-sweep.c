#include "integrity/tag-sweep.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define MEMORY_ALIGN 4096
#define LETS         10          /* ms that others who want the turn are waited for */
#define BATCH        AREAS_PAGES /* pages, and so many chunks at the most */

/* ---- dirty tags ---- */

static void ask_sweep_below(struct tag_sweeper *sweeper, struct sweep *sweep)
{
	sweep->busy = true;
	sweeper->nr_sweeping++;
	below_ask(sweeper->below, &sweep->sub);
}

static bool sweep_one(struct tag_sweeper *sweeper, uint64_t turn, struct sweep *sweep)
{
	uint64_t at;

	if (!tags_take_chunk(sweeper->all->tags, turn, &sweep->run, sweep->bytes))
		return false;
	at = sweep->run.chunk->at + (uint64_t)sweep->run.first * TAG_PAGE;
	sweep->sub = below_sub(sweeper->below, OP_WRITE, at, (uint64_t)sweep->run.count * TAG_PAGE,
			       sweep->bytes);
	ask_sweep_below(sweeper, sweep);
	return true;
}

static void land_sweep(struct tag_sweeper *sweeper, struct sweep *sweep)
{
	int ret = below_land(sweeper->below, &sweep->sub);

	if (ret == 0)
		return;
	if (sweep->run.chunk)
		tags_wrote(sweeper->all->tags, &sweep->run, ret < 0);
	if (ret < 0)
		sweeper->error = ret;
	sweep->busy = false;
	sweeper->nr_sweeping--;
}

/* Waits, and takes what has landed. */
static void land_sweeps(struct tag_sweeper *sweeper, struct ndio_subrequest **late)
{
	const struct below *below = sweeper->below;
	struct ndio_subrequest *sub = below->target->ops->poll(below->queue, true, -1), *next;

	for (; sub; sub = next) {
		next = sub->next;
		if (sub->request == NULL && (uint8_t *)sub >= (uint8_t *)sweeper->sweeps &&
		    (uint8_t *)sub < (uint8_t *)(sweeper->sweeps + sweeper->depth)) {
			land_sweep(sweeper, (struct sweep *)sub);
		} else {
			sub->next = *late;
			*late = sub;
		}
	}
}

/* Writes all tags that are dirty now, in the calling thread, with the turn held. What else lands meanwhile is put
 * off: *late. 0 or a negative errno. */
static int sweep_all(struct tag_sweeper *sweeper, struct ndio_subrequest **late)
{
	uint64_t turn = tags_next_turn(sweeper->all->tags);
	bool more = true;

	sweeper->error = 0;
	while (more || sweeper->nr_sweeping) {
		for (unsigned i = 0; i < sweeper->depth && more && !sweeper->error; i++)
			if (!sweeper->sweeps[i].busy)
				more = sweep_one(sweeper, turn, &sweeper->sweeps[i]);
		if (sweeper->error)
			more = false;
		if (sweeper->nr_sweeping == 0)
			break;
		land_sweeps(sweeper, late);
	}
	return sweeper->error;
}

/* ---- dirty tags of trusted areas ---- */

/* Chunks whose tags are dirty, and what they become is intended. How many, or a negative errno. */
static int take_batch(struct tag_sweep *all, uint64_t turn, struct tag_run *runs, struct error *err)
{
	size_t pages;
	uint8_t *bytes = all->batch;
	int count = 0, ret = areas_make_room(all->areas, &pages, err);

	while (ret == 0 && pages >= TAG_PAGES &&
	       tags_take_chunk(all->tags, turn, &runs[count], bytes)) {
		pages -= runs[count].count;
		ret = areas_intend(all->areas, &runs[count], bytes, err);
		bytes += (size_t)runs[count++].count * TAG_PAGE;
	}
	if (ret == 0 && count > 0)
		ret = areas_sync(all->areas, err);
	for (int i = 0; ret < 0 && i < count; i++)
		tags_wrote(all->tags, &runs[i], true);
	return ret < 0 ? ret : count;
}

static struct sweep *idle_sweep(struct tag_sweeper *sweeper)
{
	for (unsigned i = 0; i < sweeper->depth; i++)
		if (!sweeper->sweeps[i].busy)
			return &sweeper->sweeps[i];
	return NULL;
}

/* All of them, whatever comes of one: each must be told. */
static int write_batch(struct tag_sweeper *sweeper, const struct tag_run *runs, int count,
		       struct ndio_subrequest **late)
{
	uint8_t *bytes = sweeper->all->batch;
	struct sweep *sweep;
	int done = 0;

	while (done < count || sweeper->nr_sweeping > 0) {
		while (done < count && (sweep = idle_sweep(sweeper))) {
			const struct tag_run *run = &runs[done];
			uint64_t at = run->chunk->at + (uint64_t)run->first * TAG_PAGE;
			size_t len = (size_t)run->count * TAG_PAGE;

			sweep->run = *run;
			sweep->sub = below_sub(sweeper->below, OP_WRITE, at, len, bytes);
			ask_sweep_below(sweeper, sweep);
			bytes += len;
			done++;
		}
		land_sweeps(sweeper, late);
	}
	return sweeper->error;
}

/* all: nothing that was dirty when the sweep began is so now. A flush that failed has failed for good: the kernel
 * tells of what is lost once, and a later one would succeed. */
static int flush_and_settle(struct tag_sweeper *sweeper, bool all, struct ndio_subrequest **late,
			    struct error *err)
{
	struct sweep *sweep = &sweeper->sweeps[0];

	if (sweeper->all->flush_error)
		return sweeper->all->flush_error;
	if (sweeper->all->flushes) {
		sweep->run = (struct tag_run){ 0 };
		sweep->sub = below_sub(sweeper->below, OP_FLUSH, 0, 0, NULL);
		ask_sweep_below(sweeper, sweep);
		while (sweeper->nr_sweeping > 0)
			land_sweeps(sweeper, late);
		sweeper->all->flush_error = sweeper->error;
	}
	return sweeper->error ? sweeper->error : areas_settle(sweeper->all->areas, all, err);
}

/* As sweep_all(). What is flushed is settled by the same sweep, so that nothing is intended in
 * between. */
static int sweep_trusted(struct tag_sweeper *sweeper, bool flush, struct ndio_subrequest **late,
			 struct error *err)
{
	struct tag_sweep *all = sweeper->all;
	uint64_t turn = tags_next_turn(all->tags);
	struct tag_run runs[BATCH];
	int ret = areas_begin(all->areas, err), count = 1;

	sweeper->error = 0;
	while (ret == 0 && count > 0) {
		count = take_batch(all, turn, runs, err);
		ret = count < 0 ? count : write_batch(sweeper, runs, count, late);
		/* Until nothing is dirty, areas aren't all what they are to be: that settles nothing. */
		all->unwritten = ret < 0 || (all->unwritten && count > 0);
		if (ret == 0 && !all->unwritten && areas_are_many(all->areas))
			ret = flush_and_settle(sweeper, false, late, err);
	}
	flush = flush || areas_are_full(all->areas);
	return ret == 0 && flush ? flush_and_settle(sweeper, true, late, err) : ret;
}

/* With the turn. With a trust file flush means that all is flushed below, too. */
static int sweep(struct tag_sweeper *sweeper, bool flush, struct ndio_subrequest **late)
{
	struct error err = { 0 };
	unsigned tries = 0;
	int ret;

	if (!sweeper->all->areas)
		return sweep_all(sweeper, late);
	do
		ret = sweep_trusted(sweeper, flush, late, &err);
	while (areas_try_again(ret, &tries));
	/* It stays so, and every round tries. */
	if (ret < 0 && err.text[0] && !sweeper->all->told) {
		sweeper->all->told = true;
		notice_tell(sweeper->all->notice, "%s", err.text);
	}
	return ret;
}

bool tag_sweep_try(struct tag_sweeper *sweeper, bool flush, struct ndio_subrequest **late, int *ret)
{
	bool taken = pthread_mutex_trylock(&sweeper->all->turn) == 0;

	atomic_store(&sweeper->all->wanted, !taken);
	if (!taken)
		return false;
	*ret = sweep(sweeper, flush, late);
	pthread_mutex_unlock(&sweeper->all->turn);
	return true;
}

void tag_sweep_wait(struct tag_sweeper *sweeper)
{
	struct ndio_subrequest *late = NULL;

	/* They look every now and then, and would hardly ever find it free. */
	for (unsigned i = 0; i < LETS && atomic_load(&sweeper->all->wanted); i++)
		poll(NULL, 0, 1);
	pthread_mutex_lock(&sweeper->all->turn);
	(void)sweep(sweeper, false, &late);
	pthread_mutex_unlock(&sweeper->all->turn);
	assert(!late);
}

/* ---- made ---- */

int tag_sweep_init(struct tag_sweep *all, struct tags *tags, struct areas *areas,
		   const struct notice *notice, bool flushes)
{
	*all = (struct tag_sweep){
		.tags = tags,
		.areas = areas,
		.notice = notice,
		.flushes = flushes,
		.batch = areas ? aligned_alloc(MEMORY_ALIGN, BATCH * TAG_PAGE) : NULL,
	};
	pthread_mutex_init(&all->turn, NULL);
	return areas && !all->batch ? -ENOMEM : 0;
}

void tag_sweep_destroy(struct tag_sweep *all)
{
	free(all->batch);
	if (all->tags)
		pthread_mutex_destroy(&all->turn);
}

bool tag_sweeper_open(struct tag_sweeper *sweeper, struct tag_sweep *all, const struct below *below,
		      unsigned depth)
{
	*sweeper = (struct tag_sweeper){
		.all = all,
		.below = below,
		.depth = depth,
		.sweeps = calloc(depth, sizeof(*sweeper->sweeps)),
	};
	if (!sweeper->sweeps)
		return false;
	for (unsigned i = 0; i < sweeper->depth; i++) {
		sweeper->sweeps[i].bytes = aligned_alloc(MEMORY_ALIGN, TAG_CHUNK);
		if (!sweeper->sweeps[i].bytes)
			return false;
	}
	return true;
}

void tag_sweeper_close(struct tag_sweeper *sweeper)
{
	for (unsigned i = 0; sweeper->sweeps && i < sweeper->depth; i++)
		free(sweeper->sweeps[i].bytes);
	free(sweeper->sweeps);
}
