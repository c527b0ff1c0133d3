/* A subrequest from above is carried by one of the queue's `carried`, which asks the target below
 * for one thing at a time:
 *
 *   ROOM    (a write) some tags are written, if too many are dirty
 *   LOAD    the chunks with its tags, those that aren't in memory
 *   DATA    its data; then tags are copied out, or in, where they are dirty
 *   TAGS    (a flush or FUA) all dirty tags, by a sweep (tag-sweep.h)
 *   FLUSH   and a flush below
 *
 * With a journal, data and tags of a write go into that (journal-writer.h); and a read asks it first: what
 * it has in memory comes from there, as far as it lies side by side. All other reads are as above. Over one
 * that somebody else left (journal-overlay.h) tags are put, and data come from there.
 *
 * With a trust file (areas.h), before all this:
 *
 *   AREA    all tags of the area, if they weren't read before: is it the one that is trusted?
 *
 * What reaches from one area into the next is done as far as it lies in the first: the channel asks
 * for the rest. No lock is held while anything is in flight but the sweeper's turn, and who wants
 * that while another has it goes on with its own queue until it is free: the other's I/O may need
 * that (connections that are lost come back all together). When many tags are dirty a thread beside the
 * queues writes them (tag-keeper.h), if below there are queues to spare.
 *
 * That no two writes of a block, and no read beside a write, are in flight at a time is for the
 * engine to see to (volume->tag_len). */
#include "integrity/target-integrity.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "base/clock.h"
#include "engine/subrequest.h"
#include "integrity/area-doubts.h"
#include "integrity/area-load.h"
#include "integrity/areas.h"
#include "integrity/bad-blocks.h"
#include "integrity/below.h"
#include "integrity/journal-overlay.h"
#include "integrity/journal-writer.h"
#include "integrity/tag-keeper.h"
#include "integrity/tag-sweep.h"
#include "integrity/tags.h"
#include "integrity/waiting-io.h"

#define ALIGN       4096 /* of memory and, at the least, of what lies below */
#define SWEEP_PAGES 64   /* dirty ones from which on they are written without a flush */
#define TURN_NAP    2    /* ms */
#define TELL_EVERY  1000 /* ms: of bad blocks, one line */
#define AREAS_SHARE 8    /* of the cache, for areas */

struct integrity_target {
	struct target target;
	struct target *below;
	uint64_t start; /* bytes: of the segment, below */
	struct layout layout;
	struct tags tags;
	struct areas areas;        /* without a trust file: zeroes */
	struct area_loader loader; /* of tags from below */
	struct tag_sweep sweep;    /* of dirty tags; without a journal, as is: */
	struct tag_keeper keeper;
	atomic_int lost;                 /* why tags couldn't be written at the end */
	struct journal_writer *journal;  /* or NULL: it is written directly, or */
	struct journal_overlay *overlay; /* only read, over this, or NULL */
	struct notice notice;
	void (*closed)(void *opaque);
	void *opaque;
	_Atomic uint64_t bad, untold, told_at; /* reads; ms */
	struct bad_blocks bad_blocks;
};

enum step { ROOM, AREA, LOAD, DATA, TAGS, FLUSH, JOURNAL };

struct carried {
	struct ndio_subrequest sub; /* below */
	struct carried *next;       /* in whichever list it is */
	struct ndio_subrequest *upper;
	enum step step;
	uint64_t len;               /* bytes of upper that this does */
	uint64_t asked;             /* bytes of the step's, in all */
	struct tag_chunk *chunk[2]; /* held; the second may be NULL */
	unsigned loading;           /* which of them */
	uint8_t *bytes;             /* what is loaded */
	struct area *area;          /* held, or NULL */
	struct area_load load;      /* of it */
	struct journal_order order; /* to the journal */
	int epoch;                  /* of a read that it knows of */
};

struct target_queue {
	struct integrity_target *all;
	struct below below;
	struct journal_seat *seat; /* or NULL: it writes directly */
	struct landed landed;
	struct carried *idle;
	struct carried *first_waiting; /* for the turn */
	unsigned nr_busy;              /* carried */
	struct tag_sweeper sweeper;    /* without a journal */
	struct carried carried[];
};

static struct integrity_target *to_integrity(const struct target *target)
{
	return (struct integrity_target *)target;
}

static struct ndio_subrequest *poll_below(struct target_queue *queue, bool wait, int wake_fd)
{
	return queue->all->below->ops->poll(queue->below.queue, wait, wake_fd);
}

static void step_on(struct target_queue *queue, struct carried *carried);

static void land_all(struct target_queue *queue, struct ndio_subrequest *sub)
{
	struct ndio_subrequest *next;

	for (; sub; sub = next) {
		next = sub->next;
		if (!queue->seat || !journal_seat_land(queue->seat, sub))
			step_on(queue, (struct carried *)sub);
	}
}

static bool is_trusted(const struct integrity_target *all)
{
	return all->areas.trust;
}

/* ---- what is carried ---- */

static void let_go(struct target_queue *queue, struct carried *carried)
{
	for (unsigned i = 0; i < 2; i++) {
		tags_let_go(&queue->all->tags, carried->chunk[i]);
		carried->chunk[i] = NULL;
	}
}

static void finish(struct target_queue *queue, struct carried *carried, int64_t result)
{
	let_go(queue, carried);
	areas_let_go(&queue->all->areas, carried->area);
	carried->area = NULL;
	if (queue->seat)
		journal_seat_read_end(queue->seat, carried->epoch);
	carried->upper->result = result;
	landed_add(&queue->landed, carried->upper);
	carried->next = queue->idle;
	queue->idle = carried;
	queue->nr_busy--;
}

/* The next chunk that isn't in memory. False: all are. */
static bool load_tags(struct target_queue *queue, struct carried *carried)
{
	struct tags *tags = &queue->all->tags;

	for (unsigned i = 0; i < 2 && carried->chunk[i]; i++) {
		struct tag_chunk *chunk = carried->chunk[i];

		if (tags_is_valid(tags, chunk))
			continue;
		carried->loading = i;
		carried->bytes = aligned_alloc(ALIGN, TAG_CHUNK);
		if (!carried->bytes) {
			finish(queue, carried, -ENOMEM);
			return true;
		}
		carried->step = LOAD;
		carried->sub =
			below_sub(&queue->below, OP_READ, chunk->at, chunk->len, carried->bytes);
		below_ask(&queue->below, &carried->sub);
		return true;
	}
	return false;
}

static void move_data(struct target_queue *queue, struct carried *carried)
{
	const struct ndio_subrequest *upper = carried->upper;
	const struct integrity_target *all = queue->all;
	uint64_t at = all->overlay ?
			      journal_overlay_place(all->overlay, upper->start, &carried->len) :
			      layout_data_at(&all->layout, upper->start);

	carried->step = DATA;
	carried->sub = below_sub(&queue->below, upper->op, at, carried->len, upper->io_base);
	below_ask(&queue->below, &carried->sub);
}

/* ---- is it the one that is trusted? ---- */

static void tell_stale(struct target_queue *queue, const struct carried *carried)
{
	struct integrity_target *all = queue->all;
	uint64_t from = carried->area->number * all->layout.area_data;

	notice_tell(&all->notice,
		    "%s: integrity: bytes %" PRIu64 " to %" PRIu64
		    " aren't what they were: the disk is an older one, or was changed without the "
		    "trust file",
		    all->target.name, from,
		    min_u64(from + all->layout.area_data, all->layout.size) - 1);
}

/* A chunk was read. 0, or a negative errno. */
static int fill_chunk(struct target_queue *queue, struct carried *carried)
{
	bool first;
	int ret = area_load_chunk(&queue->all->loader, carried->area,
				  carried->chunk[carried->loading], carried->bytes, &first);

	if (first)
		tell_stale(queue, carried);
	return ret;
}

static void read_area(struct target_queue *queue, struct carried *carried)
{
	uint64_t len, at = area_load_next(&queue->all->loader, &carried->load, &len);

	carried->step = AREA;
	carried->sub = below_sub(&queue->below, OP_READ, at, len, carried->load.bytes);
	below_ask(&queue->below, &carried->sub);
}

static void give_order(struct target_queue *queue, struct carried *carried,
		       enum journal_order_kind kind);

/* Its tags are in memory. */
static void go_on_loaded(struct target_queue *queue, struct carried *carried)
{
	if (carried->upper->op == OP_WRITE && queue->seat)
		give_order(queue, carried, ORDER_WRITE);
	else
		move_data(queue, carried);
}

static void load_and_go_on(struct target_queue *queue, struct carried *carried)
{
	if (!load_tags(queue, carried))
		go_on_loaded(queue, carried);
}

/* A piece of its tags has landed. */
static void go_on_with_area(struct target_queue *queue, struct carried *carried)
{
	bool first;
	int ret = area_load_landed(&queue->all->loader, &carried->load, &first);

	if (ret > 0) {
		read_area(queue, carried);
		return;
	}
	area_load_end(&carried->load);
	if (first && ret == -ESTALE)
		tell_stale(queue, carried);
	if (ret < 0)
		finish(queue, carried, ret);
	else
		load_and_go_on(queue, carried);
}

/* Its chunks are held. */
static void trust_area(struct target_queue *queue, struct carried *carried)
{
	struct integrity_target *all = queue->all;
	enum area_state state;

	carried->area = areas_hold(&all->areas, carried->upper->start / all->layout.area_data);
	if (!carried->area) {
		finish(queue, carried, -ENOMEM);
		return;
	}
	state = areas_state(&all->areas, carried->area);
	if (state == AREA_STALE) {
		finish(queue, carried, -ESTALE);
	} else if (state == AREA_GOOD) {
		load_and_go_on(queue, carried);
	} else if (area_load_begin(&all->loader, &carried->load, carried->area) == 0) {
		read_area(queue, carried);
	} else {
		area_load_end(&carried->load);
		finish(queue, carried, -ENOMEM);
	}
}

static void flush_below(struct target_queue *queue, struct carried *carried)
{
	carried->step = FLUSH;
	carried->sub = below_sub(&queue->below, OP_FLUSH, 0, 0, NULL);
	below_ask(&queue->below, &carried->sub);
}

/* Before anything is done; or when its data and its tags in memory are new, and what is left is a flush. */
static void want_turn(struct target_queue *queue, struct carried *carried, enum step step)
{
	carried->step = step;
	carried->next = queue->first_waiting;
	queue->first_waiting = carried;
}

static void end_data(struct target_queue *queue, struct carried *carried)
{
	struct integrity_target *all = queue->all;
	struct ndio_subrequest *upper = carried->upper;
	unsigned count = carried->len / all->layout.block;

	if (upper->op == OP_READ && all->overlay)
		journal_overlay_restore(all->overlay, upper->start, carried->len, upper->io_base);
	if (upper->op == OP_READ)
		tags_get(&all->tags, carried->chunk, upper->start, count, upper->tags);
	else
		tags_put(&all->tags, carried->chunk, upper->start, count, upper->tags);
	if (upper->op == OP_WRITE && carried->area)
		areas_touch(&all->areas, carried->area);
	let_go(queue, carried);
	if (upper->op == OP_WRITE && (upper->flags & REQ_FUA))
		want_turn(queue, carried, TAGS);
	else
		finish(queue, carried, carried->len);
}

/* What it asked for below has landed. */
static void step_on(struct target_queue *queue, struct carried *carried)
{
	int ret = below_land(&queue->below, &carried->sub);

	if (ret == 0)
		return;
	if (carried->step == LOAD && ret > 0)
		ret = fill_chunk(queue, carried);
	else if (carried->step == LOAD)
		free(carried->bytes);
	if (ret < 0 && carried->step == AREA)
		area_load_end(&carried->load);
	if (ret < 0) {
		finish(queue, carried, ret);
		return;
	}
	switch (carried->step) {
	case AREA:
		go_on_with_area(queue, carried);
		break;
	case LOAD:
		load_and_go_on(queue, carried);
		break;
	case DATA:
		end_data(queue, carried);
		break;
	case ROOM:
	case TAGS:
	case FLUSH:
	case JOURNAL:
		finish(queue, carried, carried->len);
		break;
	}
}

/* The chunks with its tags. False: no memory. */
static bool hold(struct target_queue *queue, struct carried *carried)
{
	struct tags *tags = &queue->all->tags;
	const struct layout *layout = &queue->all->layout;
	uint64_t start = carried->upper->start;
	uint64_t end =
		layout_tag_at(layout, start + carried->len - layout->block) + layout->tag_size;
	struct tag_chunk *first = tags_hold(tags, start);

	carried->chunk[0] = first;
	if (first && end > first->at + first->len) {
		carried->chunk[1] = tags_hold_next(tags, first);
		return carried->chunk[1];
	}
	return first;
}

/* Past the journal: a read; or a write where there is none. */
static void go_in_place(struct target_queue *queue, struct carried *carried)
{
	if (!hold(queue, carried))
		finish(queue, carried, -ENOMEM);
	else if (is_trusted(queue->all))
		trust_area(queue, carried);
	else
		load_and_go_on(queue, carried);
}

/* ---- through the journal ---- */

static void carried_out_order(struct target_queue *queue, struct journal_order *order);

static void give_order(struct target_queue *queue, struct carried *carried,
		       enum journal_order_kind kind)
{
	const struct ndio_subrequest *upper = carried->upper;

	carried->step = JOURNAL;
	carried->order = (struct journal_order){
		.kind = kind,
		.offset = upper->start,
		.blocks = carried->len / queue->all->layout.block,
		.data = upper->io_base,
		.tags = upper->tags,
		.durable = upper->flags & REQ_FUA,
	};
	if (journal_seat_order(queue->seat, &carried->order))
		carried_out_order(queue, &carried->order);
}

static void read_over_journal(struct target_queue *queue, struct carried *carried)
{
	const struct ndio_subrequest *upper = carried->upper;
	unsigned block = queue->all->layout.block, blocks = carried->len / block;

	switch (journal_seat_look(queue->seat, upper->start, &blocks, upper->io_base, upper->tags,
				  &carried->epoch)) {
	case PLACE_MEMORY:
		finish(queue, carried, (int64_t)blocks * block);
		break;
	case PLACE_DISK:
		carried->len = (uint64_t)blocks * block;
		go_in_place(queue, carried);
		break;
	case PLACE_UNKNOWN:
		give_order(queue, carried, ORDER_READ);
		break;
	}
}

static void carried_out_order(struct target_queue *queue, struct journal_order *order)
{
	struct carried *carried =
		(struct carried *)((char *)order - offsetof(struct carried, order));

	if (order->result < 0)
		finish(queue, carried, order->result);
	else if (order->kind == ORDER_READ)
		read_over_journal(queue, carried);
	else
		finish(queue, carried, carried->len);
}

static void carried_out_orders(struct target_queue *queue, struct journal_order *order)
{
	struct journal_order *next;

	for (; order; order = next) {
		next = order->next;
		carried_out_order(queue, order);
	}
}

static void integrity_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	uint64_t area = queue->all->layout.area_data;
	struct carried *carried = queue->idle;

	assert(carried);
	queue->idle = carried->next;
	queue->nr_busy++;
	carried->upper = sub;
	carried->len = 0;
	carried->epoch = -1;
	if (op_carries_data(sub->op))
		carried->len = min_u64(sub->len, area - sub->start % area);
	else if (sub->op != OP_FLUSH)
		finish(queue, carried, -EOPNOTSUPP);
	if (sub->op == OP_FLUSH && queue->seat)
		give_order(queue, carried, ORDER_FLUSH);
	else if (sub->op == OP_FLUSH)
		want_turn(queue, carried, TAGS);
	else if (sub->op == OP_READ && queue->seat)
		read_over_journal(queue, carried);
	else if (sub->op == OP_WRITE && queue->seat && !is_trusted(queue->all))
		give_order(queue, carried, ORDER_WRITE);
	else if (sub->op == OP_WRITE && !queue->seat && tags_are_full(&queue->all->tags))
		want_turn(queue, carried, ROOM);
	else if (op_carries_data(sub->op))
		go_in_place(queue, carried);
}

/* ---- the queue ---- */

static void integrity_submit(struct target_queue *queue)
{
	queue->all->below->ops->submit(queue->below.queue);
}

/* Those who want the turn, if it is free, by one sweep. */
static void sweep_for_waiting(struct target_queue *queue)
{
	struct ndio_subrequest *late = NULL;
	struct carried *carried, *next;
	bool flush = false;
	int ret;

	for (carried = queue->first_waiting; carried; carried = carried->next)
		flush |= carried->step == TAGS;
	if (!queue->first_waiting || !tag_sweep_try(&queue->sweeper, flush, &late, &ret))
		return;
	carried = queue->first_waiting;
	queue->first_waiting = NULL;
	for (; carried; carried = next) {
		next = carried->next;
		if (ret < 0)
			finish(queue, carried, ret);
		else if (carried->step == ROOM)
			go_in_place(queue, carried);
		else if (is_trusted(queue->all))
			finish(queue, carried, carried->len);
		else
			flush_below(queue, carried);
	}
	land_all(queue, late);
}

/* Many dirty tags are written before somebody asks for it. */
static void sweep_some(struct target_queue *queue)
{
	struct ndio_subrequest *late = NULL;
	int ret; /* those that failed are dirty still: a flush tells */

	if (tags_dirty_pages(&queue->all->tags) < SWEEP_PAGES ||
	    tag_keeper_ask(&queue->all->keeper) ||
	    !tag_sweep_try(&queue->sweeper, false, &late, &ret))
		return;
	land_all(queue, late);
}

static void nap(int wake_fd, int ms)
{
	poll(&(struct pollfd){ .fd = wake_fd, .events = POLLIN }, 1, ms);
}

/* Nothing is asked for: what is dirty is written when that has been so for a while, and until then it
 * sleeps here. False: there is nothing, or another is at it. */
static bool rest_dirty(struct target_queue *queue, int wake_fd)
{
	struct ndio_subrequest *late = NULL;
	int ret;

	if (wake_fd < 0 || queue->nr_busy > 0 || tags_dirty_pages(&queue->all->tags) == 0 ||
	    !below_is_up(&queue->below))
		return false;
	if (below_rest(&queue->below, wake_fd))
		return true;
	if (!tag_sweep_try(&queue->sweeper, false, &late, &ret))
		return false;
	land_all(queue, late);
	return ret == 0;
}

/* Who polls without a descriptor may not do so again when all he has has landed: then what this queue
 * does for the journal is done first. */
static void journal_end_acts(struct target_queue *queue)
{
	while (queue->nr_busy == 0 && journal_seat_acts(queue->seat) > 0) {
		land_all(queue, poll_below(queue, true, -1));
		carried_out_orders(queue, journal_seat_go_on(queue->seat, false));
	}
}

static struct ndio_subrequest *journal_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	struct journal_seat *seat = queue->seat;
	bool stays = wake_fd >= 0, naps;
	int fd = journal_seat_descriptor(seat, wake_fd, &naps);

	carried_out_orders(queue, journal_seat_go_on(seat, stays || queue->nr_busy > 0));
	wait = wait && !queue->landed.first;
	if (wait && stays && queue->nr_busy == 0 && journal_seat_acts(seat) == 0 &&
	    journal_seat_rest(seat, fd))
		wait = false;
	if (wait && naps) {
		nap(wake_fd, TURN_NAP);
		wait = false;
	}
	land_all(queue, poll_below(queue, wait, fd));
	carried_out_orders(queue, journal_seat_go_on(seat, stays || queue->nr_busy > 0));
	if (!stays)
		journal_end_acts(queue);
	return landed_take(&queue->landed);
}

static struct ndio_subrequest *integrity_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	if (queue->seat)
		return journal_poll(queue, wait, wake_fd);
	sweep_for_waiting(queue);
	if (queue->landed.first)
		wait = false;
	/* Until another has swept. */
	if (wait && queue->first_waiting) {
		nap(wake_fd, TURN_NAP);
		wait = false;
	}
	if (wait && rest_dirty(queue, wake_fd))
		wait = false;
	land_all(queue, poll_below(queue, wait, wake_fd));
	sweep_some(queue);
	return landed_take(&queue->landed);
}

static bool integrity_is_up(const struct target_queue *queue)
{
	return below_is_up(&queue->below);
}

static void integrity_cancel(struct target_queue *queue)
{
	if (queue->seat)
		journal_seat_cancel(queue->seat);
	queue->all->below->ops->cancel(queue->below.queue);
}

static void free_tag_queue(struct target_queue *queue)
{
	tag_sweeper_close(&queue->sweeper);
	free(queue);
}

/* One subrequest at a time has a plain system call below, and no ring: so do its tags. */
static unsigned sweeper_depth(unsigned depth)
{
	return depth > 1 ? SWEEP_DEPTH : 1;
}

/* What it may ask below at once, beside what it carries. */
static unsigned depth_below(const struct integrity_target *all, unsigned depth)
{
	if (all->journal && !journal_writer_keeps(all->journal))
		return depth + JOURNAL_ROOM;
	return depth > 1 && !all->journal ? depth + SWEEP_DEPTH : depth;
}

static bool open_below(struct target_queue *queue, unsigned depth, struct bvec bounce,
		       struct error *err)
{
	struct integrity_target *all = queue->all;
	struct below *below = &queue->below;

	*below = (struct below){ .target = all->below, .start = all->start };
	below->queue =
		all->below->ops->queue_open(all->below, depth_below(all, depth), bounce, err);
	if (!below->queue || !all->journal)
		return below->queue;
	queue->seat = journal_seat_open(all->journal, below);
	if (queue->seat)
		return true;
	all->below->ops->queue_close(below->queue);
	error_set(err, ENOMEM, "%s: no memory for a queue", all->target.name);
	return false;
}

static struct target_queue *integrity_queue_open(struct target *target, unsigned depth,
						 struct bvec bounce, struct error *err)
{
	struct integrity_target *all = to_integrity(target);
	struct target_queue *queue = calloc(1, sizeof(*queue) + depth * sizeof(queue->carried[0]));

	if (!queue || (!all->journal && !tag_sweeper_open(&queue->sweeper, &all->sweep,
							  &queue->below, sweeper_depth(depth)))) {
		if (queue)
			free_tag_queue(queue);
		error_set(err, ENOMEM, "%s: no memory for a queue", target->name);
		return NULL;
	}
	queue->all = all;
	for (unsigned i = 0; i < depth; i++) {
		queue->carried[i].next = queue->idle;
		queue->idle = &queue->carried[i];
	}
	if (!open_below(queue, depth, bounce, err)) {
		free_tag_queue(queue);
		return NULL;
	}
	if (!all->journal)
		tag_keeper_enter(&all->keeper);
	return queue;
}

/* Each that goes sweeps, since nobody knows whose flush is the last. While another does, its connection may need
 * this one's (those that are lost come back all together), so this goes on with its own. What only stays
 * in doubt is no loss. */
static void sweep_at_end(struct target_queue *queue)
{
	struct integrity_target *all = queue->all;
	struct ndio_subrequest *late = NULL;
	int ret;

	if (tags_dirty_pages(&all->tags) == 0 &&
	    !(is_trusted(all) && areas_has_doubts(&all->areas)))
		return;
	while (below_is_up(&queue->below)) {
		if (tag_sweep_try(&queue->sweeper, true, &late, &ret)) {
			assert(!late); /* nothing of ours is in flight */
			if (ret < 0)
				atomic_store(&all->lost, ret);
			return;
		}
		land_all(queue, poll_below(queue, false, -1));
		nap(-1, TURN_NAP);
	}
}

static void integrity_queue_close(struct target_queue *queue)
{
	assert(queue->nr_busy == 0 && !queue->landed.first);
	if (queue->seat) {
		journal_seat_close(queue->seat);
	} else {
		tag_keeper_leave(&queue->all->keeper);
		sweep_at_end(queue);
	}
	queue->all->below->ops->queue_close(queue->below.queue);
	free_tag_queue(queue);
}

/* ---- the target ---- */

/* Of a volume's own sectors, for headers: there are none here. */
static int64_t integrity_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	(void)target;
	(void)buf;
	(void)len;
	(void)offset;
	return -EOPNOTSUPP;
}

static void tell_lost(struct integrity_target *all)
{
	if (!all->journal && tags_dirty_pages(&all->tags) > 0)
		notice_tell(&all->notice,
			    "%s: integrity: writing tags: %s: blocks that were written since the "
			    "last flush can't be read any more",
			    all->target.name, target_reason(all->below, -all->lost));
}

static void integrity_close(struct target *target)
{
	struct integrity_target *all = to_integrity(target);

	tell_lost(all);
	journal_writer_free(all->journal);
	journal_overlay_close(all->overlay);
	areas_destroy(&all->areas);
	tag_keeper_destroy(&all->keeper);
	tag_sweep_destroy(&all->sweep);
	tags_destroy(&all->tags);
	all->below->ops->close(all->below);
	if (all->closed)
		all->closed(all->opaque);
	free(all);
}

static const struct target_ops integrity_ops = {
	.read = integrity_read,
	.queue_open = integrity_queue_open,
	.queue_close = integrity_queue_close,
	.issue = integrity_issue,
	.submit = integrity_submit,
	.poll = integrity_poll,
	.is_up = integrity_is_up,
	.cancel = integrity_cancel,
	.close = integrity_close,
};

static int read_layout(struct integrity_target *all, const struct target_integrity_options *options,
		       struct error *err)
{
	const char *name = all->below->name;
	uint8_t bytes[SUPERBLOCK_LEN];
	struct superblock superblock;
	int ret = target_read(all->below, bytes, sizeof(bytes), options->start);

	if (ret < 0)
		return error_set(err, -ret, "%s: integrity: reading the superblock: %s", name,
				 target_reason(all->below, -ret));
	ret = superblock_read(bytes, name, &superblock, err);
	if (ret < 0)
		return ret;
	if (superblock.block != options->block || superblock.tag_size != options->tag_size)
		return error_set(
			err, EINVAL,
			"%s: integrity: the superblock has blocks of %u bytes with tags of "
			"%u, the LUKS header's cipher %u with %u",
			name, superblock.block, superblock.tag_size, options->block,
			options->tag_size);
	return layout_make(&superblock, options->room, name, &all->layout, err);
}

/* Somebody who was cut off leaves blocks in the journal whose place has something older, or half of it. */
static int carry_out_journal(struct integrity_target *all,
			     const struct target_integrity_options *options, struct error *err)
{
	struct waiting_io io;
	struct journal_io calls;
	int ret = waiting_io_open(&io, all->below, all->start, err);

	if (ret < 0)
		return ret;
	calls = waiting_io_calls(&io);
	ret = journal_is_left(&calls, &all->layout, err);
	if (ret > 0 && options->recover)
		ret = journal_recover(&calls, &all->layout, err);
	else if (ret > 0 && options->over_journal)
		ret = journal_overlay_open(&calls, &all->layout, &all->overlay, err);
	else if (ret > 0)
		ret = error_set(err, EUCLEAN,
				"%s: integrity: its journal has blocks that aren't in their place "
				"yet: open it for writing once",
				all->below->name);
	if (ret == 0 && !options->over_journal && is_trusted(all))
		ret = area_doubts_settle(&all->areas, &calls, all->below->can_flush, err);
	waiting_io_close(&io);
	return ret;
}

/* As much as has its tags in two chunks. */
static uint64_t max_len(const struct layout *layout)
{
	return (uint64_t)(TAG_CHUNK / layout->tag_size) * layout->block;
}

static struct target describe(const struct integrity_target *all)
{
	const struct target *below = all->below;

	return (struct target){
		.ops = &integrity_ops,
		.name = below->name,
		.timed_out = below->timed_out,
		.size = all->layout.size,
		.align = all->layout.block,
		.mem_align = below->mem_align,
		.atomic = 1,
		.max_len = min_u64(below->max_len, max_len(&all->layout)),
		.max_other = UINT64_MAX / 2 + 1,
		.max_queues = below->max_queues,
		.readonly = below->readonly || all->overlay,
		.rotational = below->rotational,
		.direct = below->direct,
		.can_flush = below->can_flush,
		.can_fua = below->can_flush,
	};
}

static struct area_loader loader_of(struct integrity_target *all)
{
	return (struct area_loader){
		.layout = &all->layout,
		.tags = &all->tags,
		.areas = is_trusted(all) ? &all->areas : NULL,
		.overlay = all->overlay,
	};
}

static int open_tags(struct integrity_target *all, const struct target_integrity_options *options,
		     struct error *err)
{
	uint64_t cache = options->cache ? options->cache : INTEGRITY_CACHE;
	const struct journal_writer_options journal = {
		.below = all->below,
		.start = all->start,
		.layout = &all->layout,
		.tags = &all->tags,
		.areas = is_trusted(all) ? &all->areas : NULL,
		.memory = cache / 2,
		.notice = &all->notice,
		.name = all->below->name,
	};

	if (options->journal) {
		all->journal = journal_writer_new(&journal);
		if (!all->journal)
			return error_set(err, ENOMEM, "%s: no memory", all->below->name);
		cache -= journal.memory;
	}
	tags_init(&all->tags, &all->layout, cache);
	return 0;
}

static int open_areas(struct integrity_target *all, const struct target_integrity_options *options,
		      struct error *err)
{
	uint64_t cache = options->cache ? options->cache : INTEGRITY_CACHE;
	int ret;

	ret = areas_init(&all->areas, &all->layout, options->trust, options->trust_read_only,
			 cache / AREAS_SHARE, all->below->name, err);
	all->areas.journaled = options->journal;
	return ret;
}

static int open_sweep(struct integrity_target *all, const struct target_integrity_options *options,
		      struct error *err)
{
	bool flushes = all->below->can_flush && !all->below->readonly && !all->overlay;

	if (options->journal ||
	    tag_sweep_init(&all->sweep, &all->tags, is_trusted(all) ? &all->areas : NULL,
			   &all->notice, flushes) == 0)
		return 0;
	return error_set(err, ENOMEM, "%s: no memory", all->below->name);
}

int target_integrity_open(struct target *below, const struct target_integrity_options *options,
			  struct target **target, struct error *err)
{
	struct integrity_target *all = calloc(1, sizeof(*all));
	int ret;

	if (!all)
		return error_set(err, ENOMEM, "%s: no memory", below->name);
	all->below = below;
	all->start = options->start;
	all->notice = options->notice;
	ret = read_layout(all, options, err);
	if (ret == 0 && options->check)
		ret = options->check(options->opaque, &all->layout, err);
	if (ret == 0 && options->trust)
		ret = open_areas(all, options, err);
	if (ret == 0)
		ret = carry_out_journal(all, options, err);
	if (ret == 0)
		ret = open_sweep(all, options, err);
	if (ret == 0)
		ret = open_tags(all, options, err);
	if (ret < 0) {
		journal_overlay_close(all->overlay);
		tag_sweep_destroy(&all->sweep);
		areas_destroy(&all->areas);
		free(all);
		return ret;
	}
	if (!all->journal)
		tag_keeper_init(&all->keeper, &all->sweep, below, all->start);
	all->loader = loader_of(all);
	all->lost = -ENOTCONN;
	all->closed = options->closed;
	all->opaque = options->opaque;
	all->target = describe(all);
	*target = &all->target;
	return 0;
}

/* ---- what is told ---- */

void target_integrity_tell_bad(struct target *target, uint64_t offset, bool never_written)
{
	struct integrity_target *all = to_integrity(target);
	uint64_t now = clock_ms(), before = atomic_load(&all->told_at), untold;
	char more[64] = "";

	atomic_fetch_add(&all->bad, 1);
	bad_blocks_add(&all->bad_blocks, offset);
	if ((before && now - before < TELL_EVERY) ||
	    !atomic_compare_exchange_strong(&all->told_at, &before, now)) {
		atomic_fetch_add(&all->untold, 1);
		return;
	}
	untold = atomic_exchange(&all->untold, 0);
	if (untold)
		snprintf(more, sizeof(more), " (and %" PRIu64 " more since this was last said)",
			 untold);
	notice_tell(&all->notice,
		    "%s: integrity: byte %" PRIu64 ", which is at %" PRIu64 " here, %s%s",
		    target->name, offset, all->start + layout_data_at(&all->layout, offset),
		    never_written ? "was never written" : "isn't what was written there", more);
}

bool target_is_integrity(const struct target *target)
{
	return target->ops == &integrity_ops;
}

void target_integrity_facts(struct target *target, struct target_integrity_facts *facts)
{
	struct integrity_target *all = to_integrity(target);

	*facts = (struct target_integrity_facts){
		.layout = all->layout,
		.bad = atomic_load(&all->bad),
		.bad_blocks = bad_blocks_count(&all->bad_blocks),
		.trusted = is_trusted(all),
		.stale = is_trusted(all) ? areas_stale(&all->areas) : 0,
		.dirty_pages = tags_dirty_pages(&all->tags),
		.areas = is_trusted(all) ? areas_count(&all->areas) : 0,
	};
}
