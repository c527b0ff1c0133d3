#include "integrity/journal-writer.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/align.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "integrity/areas.h"
#include "integrity/journal-act.h"
#include "integrity/journal-areas.h"
#include "memory/huge.h"

#define LOOK_BLOCKS 16 /* copied from memory with the lock held */
#define NO_EPOCH    (-1)

struct journal_seat {
	struct journal_writer *writer;
	struct journal_seat *next; /* of all */
	struct below below;
	struct journal_order *first, **end; /* that wait */
	unsigned nr_acts;                   /* that its queue does */
	int nudge_fd, epoll_fd;             /* or -1 */
	bool canceled;
	bool waits, nudged; /* with the lock held */
};

struct journal_writer {
	struct journal_writer_options options;
	pthread_mutex_t lock;
	bool started;           /* there is a journal: */
	struct journal journal; /* of it */
	uint8_t *memory;        /* huge_map() */
	size_t memory_len;
	struct journal_areas *areas; /* or NULL: nothing is told to a trust file */
	struct act_run runs[JOURNAL_ACTS];
	struct journal_seat *doer[JOURNAL_ACTS]; /* of those under way */
	struct journal_seat *seats;
	unsigned nr_seats; /* but for the keeper's */
	bool told;         /* that it failed */

	struct journal_seat *keeper; /* NULL: there is none */
	pthread_t keeper_thread;
	bool keeper_rests; /* until it is nudged: all is in place */
	bool ending;       /* it is to close the journal, and to end */
};

struct journal_writer *journal_writer_new(const struct journal_writer_options *options)
{
	struct journal_writer *writer = calloc(1, sizeof(*writer));

	if (!writer)
		return NULL;
	writer->options = *options;
	mutex_init_short(&writer->lock);
	return writer;
}

void journal_writer_free(struct journal_writer *writer)
{
	if (!writer)
		return;
	assert(!writer->seats && !writer->started);
	pthread_mutex_destroy(&writer->lock);
	free(writer);
}

bool journal_writer_keeps(const struct journal_writer *writer)
{
	return writer->options.below->max_queues == UINT_MAX;
}

/* ---- with the lock held ---- */

static void nudge(struct journal_seat *seat)
{
	if (seat->nudged || seat->nudge_fd < 0)
		return;
	seat->nudged = true;
	eventfd_write(seat->nudge_fd, 1);
}

static void nudge_waiting(struct journal_writer *writer, const struct journal_seat *but)
{
	for (struct journal_seat *seat = writer->seats; seat; seat = seat->next)
		if (seat->waits && seat != but)
			nudge(seat);
}

static bool is_starting(const struct journal_writer *writer)
{
	return writer->started && writer->journal.state < JOURNAL_RUNNING;
}

/* Is there something that isn't in its place? */
static bool is_unsettled(const struct journal_writer *writer)
{
	const struct journal *journal = &writer->journal;

	return writer->started && journal->state == JOURNAL_RUNNING &&
	       (journal->used > 0 || journal->placed < journal->open);
}

/* What was in the journal was carried out, and checked, when the disk was opened: what is there now was
 * handed back. */
static void begin_copy(struct journal_writer *writer)
{
	if (writer->journal.state == JOURNAL_REPLAYING)
		writer->runs[JOURNAL_COPY].error = -ESTALE;
	areas_copy(writer->options.areas);
}

/* Whoever is to do them, all that can be done has somebody then. */
static void take_acts(struct journal_seat *seat)
{
	struct journal_writer *writer = seat->writer;
	struct journal_seat *doer = writer->keeper ? writer->keeper : seat;
	struct journal_work work;
	enum journal_act act;

	while (writer->started &&
	       (act = journal_next(&writer->journal, &work)) != JOURNAL_NOTHING) {
		assert(!writer->doer[act]);
		writer->doer[act] = doer;
		act_run_begin(&writer->runs[act], act, &work);
		if (act == JOURNAL_COPY && writer->areas)
			begin_copy(writer);
		if (doer != seat)
			nudge(doer);
	}
}

/* ---- acts ---- */

static int tell_trust(struct journal_writer *writer, int ret, const struct error *err)
{
	if (ret < 0 && err->text[0])
		notice_tell(writer->options.notice, "%s", err->text);
	return ret;
}

/* Before sections are written. What their areas become is safe in the trust file then. 0, or a negative
 * errno: then nothing is written any more. */
static int before_commit(struct journal_writer *writer, const struct journal_work *work)
{
	const struct layout *layout = writer->options.layout;
	uint32_t buffer = (work->bytes - writer->memory) / layout->section_len;
	struct error err = { 0 };

	if (!writer->areas)
		return 0;
	return tell_trust(writer,
			  journal_areas_intend(writer->areas, buffer * layout->entries, work->count,
					       work->bytes, &err),
			  &err);
}

/* They are durable, and nobody was told. */
static int after_commit(struct journal_writer *writer)
{
	struct error err = { 0 };

	return writer->areas ? tell_trust(writer, journal_areas_wrote(writer->areas, &err), &err) :
			       0;
}

static void tell_that_failed(struct journal_writer *writer)
{
	const struct journal *journal = &writer->journal;
	const char *name = writer->options.name;

	if (journal->why.text[0])
		notice_tell(writer->options.notice, "%s", journal->why.text);
	notice_tell(
		writer->options.notice,
		"%s: integrity: the journal: %s: nothing is written any more, until it is opened "
		"anew",
		name, target_reason(writer->options.below, -journal->error));
}

static void have_done(struct journal_seat *seat, enum journal_act act)
{
	struct journal_writer *writer = seat->writer;
	struct act_run *run = &writer->runs[act];
	bool tell;

	if (act == JOURNAL_WRITE && !run->error)
		run->error = after_commit(writer);
	if (act == JOURNAL_COPY && !run->error && writer->areas)
		areas_copied(writer->options.areas);
	pthread_mutex_lock(&writer->lock);
	writer->doer[act] = NULL;
	seat->nr_acts--;
	journal_landed(&writer->journal, act, run->error);
	tell = writer->journal.state == JOURNAL_FAILED && !writer->told;
	writer->told |= tell;
	nudge_waiting(writer, seat);
	pthread_mutex_unlock(&writer->lock);
	if (tell)
		tell_that_failed(writer);
}

/* Those that the seat's queue does: which, by bits. With the lock held. */
static unsigned own_acts(struct journal_seat *seat)
{
	unsigned acts = 0;

	seat->nr_acts = 0;
	for (enum journal_act act = 0; act < JOURNAL_ACTS; act++)
		if (seat->writer->doer[act] == seat) {
			acts |= 1u << act;
			seat->nr_acts++;
		}
	return acts;
}

/* True: one of them is over, so there may be others. */
static bool do_acts(struct journal_seat *seat, unsigned acts)
{
	struct journal_writer *writer = seat->writer;
	bool over = false;

	for (enum journal_act act = 0; act < JOURNAL_ACTS; act++) {
		struct act_run *run = &writer->runs[act];

		if (!(acts & 1u << act))
			continue;
		if (act == JOURNAL_WRITE && run->asked == 0 && !run->error)
			run->error = before_commit(writer, &run->work);
		if (!act_run_go_on(run, &seat->below))
			continue;
		have_done(seat, act);
		over = true;
	}
	return over;
}

bool journal_seat_land(struct journal_seat *seat, struct ndio_subrequest *sub)
{
	for (enum journal_act act = 0; act < JOURNAL_ACTS; act++) {
		struct act_run *run = &seat->writer->runs[act];

		if (!act_run_owns(run, sub))
			continue;
		act_run_land(run, &seat->below, sub);
		return true;
	}
	return false;
}

unsigned journal_seat_acts(const struct journal_seat *seat)
{
	return seat->nr_acts;
}

/* ---- orders ---- */

/* Puts blocks as long as there is room. 1: all; 0: not yet; or a negative errno. With the lock held,
 * which it lets go meanwhile. */
static int put_blocks(struct journal_writer *writer, struct journal_order *order)
{
	const struct layout *layout = writer->options.layout;
	struct journal *journal = &writer->journal;
	uint32_t entry;
	int got;

	while (order->blocks > 0) {
		got = journal_reserve(journal, order->offset / LAYOUT_SECTOR, order->blocks,
				      &entry);
		if (got <= 0)
			return got;
		pthread_mutex_unlock(&writer->lock);
		for (int i = 0; i < got; i++) {
			if (writer->areas)
				journal_areas_hold(writer->areas, entry + i,
						   order->offset + (uint64_t)i * layout->block);
			journal_fill(journal, entry + i, order->data + (size_t)i * layout->block,
				     order->tags + (size_t)i * layout->tag_size);
		}
		pthread_mutex_lock(&writer->lock);
		order->mark = journal_filled(journal, entry, got);
		order->blocks -= got;
		order->offset += (uint64_t)got * layout->block;
		order->data += (size_t)got * layout->block;
		order->tags += (size_t)got * layout->tag_size;
	}
	if (writer->keeper_rests)
		nudge(writer->keeper);
	return 1;
}

static int why_not(const struct journal_seat *seat)
{
	if (seat->canceled)
		return -ECANCELED;
	return below_is_up(&seat->below) ? 0 : -ENOTCONN;
}

/* 1: carried out; 0: it waits; or a negative errno. With the lock held, which it may let go meanwhile. */
static int carry_order(struct journal_seat *seat, struct journal_order *order)
{
	struct journal_writer *writer = seat->writer;
	int ret = why_not(seat);

	if (ret < 0)
		return ret;
	if (order->kind == ORDER_READ)
		return !is_starting(writer);
	if (order->kind == ORDER_WRITE && order->blocks > 0) {
		ret = put_blocks(writer, order);
		if (ret <= 0 || !order->durable)
			return ret;
		journal_commit(&writer->journal, order->mark);
	}
	return writer->started ? journal_is_durable(&writer->journal, order->mark) : 1;
}

static void carry_waiting(struct journal_seat *seat, struct journal_order **ended)
{
	struct journal_order **at = &seat->first, *order;
	bool starved = false;
	int ret;

	while ((order = *at)) {
		bool puts = order->kind == ORDER_WRITE && order->blocks > 0;

		ret = puts && starved ? 0 : carry_order(seat, order);
		if (ret == 0) {
			starved |= order->kind == ORDER_WRITE && order->blocks > 0;
			at = &order->next;
			continue;
		}
		order->result = ret < 0 ? ret : 0;
		*at = order->next;
		order->next = *ended;
		*ended = order;
	}
	seat->end = at;
}

struct journal_order *journal_seat_go_on(struct journal_seat *seat, bool stays)
{
	struct journal_writer *writer = seat->writer;
	struct journal_order *ended = NULL;
	eventfd_t ignored;
	unsigned acts;

	do {
		pthread_mutex_lock(&writer->lock);
		if (seat->nudged)
			(void)eventfd_read(seat->nudge_fd, &ignored);
		seat->nudged = false;
		carry_waiting(seat, &ended);
		seat->waits = seat->first;
		if (writer->keeper || ((stays || seat->waits) && why_not(seat) == 0))
			take_acts(seat);
		else
			nudge_waiting(writer, seat);
		acts = own_acts(seat);
		pthread_mutex_unlock(&writer->lock);
	} while (acts && do_acts(seat, acts));
	return ended;
}

void journal_seat_cancel(struct journal_seat *seat)
{
	seat->canceled = true;
}

/* ---- reads ---- */

enum journal_place journal_seat_look(struct journal_seat *seat, uint64_t offset, unsigned *blocks,
				     uint8_t *data, uint8_t *tags, int *epoch)
{
	struct journal_writer *writer = seat->writer;
	const struct layout *layout = writer->options.layout;
	struct journal *journal = &writer->journal;
	enum journal_place place = PLACE_DISK;
	uint64_t sector = offset / LAYOUT_SECTOR;
	bool in_memory = false;

	*epoch = NO_EPOCH;
	pthread_mutex_lock(&writer->lock);
	if (is_starting(writer)) {
		place = PLACE_UNKNOWN;
	} else if (writer->started) {
		*blocks = journal_look(journal, sector, *blocks, &in_memory);
		if (in_memory) {
			place = PLACE_MEMORY;
			*blocks = min_u64(*blocks, LOOK_BLOCKS);
		} else {
			*epoch = journal_read_begin(journal);
		}
	}
	for (unsigned i = 0; in_memory && i < *blocks; i++)
		journal_read(journal, sector + (uint64_t)i * layout->block_sectors,
			     data + (size_t)i * layout->block, tags + (size_t)i * layout->tag_size);
	pthread_mutex_unlock(&writer->lock);
	return place;
}

void journal_seat_read_end(struct journal_seat *seat, int epoch)
{
	if (epoch == NO_EPOCH)
		return;
	pthread_mutex_lock(&seat->writer->lock);
	journal_read_end(&seat->writer->journal, epoch);
	pthread_mutex_unlock(&seat->writer->lock);
}

/* ---- sleeping ---- */

static void make_nudge(struct journal_seat *seat)
{
	if (seat->nudge_fd < 0)
		seat->nudge_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static bool epoll_watch(int epoll_fd, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* One for both, and always the same for a queue: a ring goes on waiting for what it was told first. */
static void make_epoll(struct journal_seat *seat, int wake_fd)
{
	make_nudge(seat);
	if (seat->nudge_fd < 0 || seat->epoll_fd >= 0)
		return;
	seat->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (seat->epoll_fd < 0 ||
	    (epoll_watch(seat->epoll_fd, seat->nudge_fd) && epoll_watch(seat->epoll_fd, wake_fd)))
		return;
	close(seat->epoll_fd);
	seat->epoll_fd = -1;
}

int journal_seat_descriptor(struct journal_seat *seat, int wake_fd, bool *nap)
{
	if (wake_fd >= 0)
		make_epoll(seat, wake_fd);
	*nap = seat->first && (wake_fd >= 0 ? seat->epoll_fd : seat->nudge_fd) < 0;
	if (wake_fd >= 0)
		return seat->epoll_fd >= 0 ? seat->epoll_fd : wake_fd;
	return seat->first ? seat->nudge_fd : -1;
}

bool journal_seat_rest(struct journal_seat *seat, int wake_fd)
{
	struct journal_writer *writer = seat->writer;
	bool unsettled;

	pthread_mutex_lock(&writer->lock);
	unsettled = !writer->keeper && is_unsettled(writer) && why_not(seat) == 0;
	pthread_mutex_unlock(&writer->lock);
	if (!unsettled)
		return false;
	if (!below_rest(&seat->below, wake_fd)) {
		pthread_mutex_lock(&writer->lock);
		if (is_unsettled(writer))
			journal_settle(&writer->journal);
		pthread_mutex_unlock(&writer->lock);
	}
	return true;
}

/* ---- seats ---- */

static struct journal_seat *seat_new(struct journal_writer *writer, const struct below *below)
{
	struct journal_seat *seat = calloc(1, sizeof(*seat));

	if (!seat)
		return NULL;
	*seat = (struct journal_seat){
		.writer = writer,
		.below = *below,
		.end = &seat->first,
		.nudge_fd = -1,
		.epoll_fd = -1,
	};
	return seat;
}

/* With the lock held. */
static void link_seat(struct journal_seat *seat)
{
	seat->next = seat->writer->seats;
	seat->writer->seats = seat;
}

static void unlink_seat(struct journal_seat *seat)
{
	struct journal_seat **at = &seat->writer->seats;

	while (*at != seat)
		at = &(*at)->next;
	*at = seat->next;
}

static void seat_free(struct journal_seat *seat)
{
	if (seat->epoll_fd >= 0)
		close(seat->epoll_fd);
	if (seat->nudge_fd >= 0)
		close(seat->nudge_fd);
	free(seat);
}

struct journal_seat *journal_seat_open(struct journal_writer *writer, const struct below *below)
{
	struct journal_seat *seat = seat_new(writer, below);

	if (!seat)
		return NULL;
	pthread_mutex_lock(&writer->lock);
	link_seat(seat);
	writer->nr_seats++;
	pthread_mutex_unlock(&writer->lock);
	return seat;
}

/* ---- the keeper ---- */

/* What has landed below is its own. */
static void seat_round(struct journal_seat *seat, int fd)
{
	struct ndio_subrequest *sub, *next;

	for (sub = seat->below.target->ops->poll(seat->below.queue, true, fd); sub; sub = next) {
		next = sub->next;
		if (!journal_seat_land(seat, sub))
			assert(false);
	}
}

/* Without the lock. False: nothing came. */
static bool keeper_rest(const struct journal_seat *seat, bool unsettled)
{
	struct pollfd nudge = { .fd = seat->nudge_fd, .events = POLLIN };

	return unsettled ? below_rest(&seat->below, seat->nudge_fd) : poll(&nudge, 1, -1) != 0;
}

/* False: it is to end. */
static bool keeper_sleep(struct journal_seat *seat)
{
	struct journal_writer *writer = seat->writer;
	bool unsettled, over;

	pthread_mutex_lock(&writer->lock);
	unsettled = is_unsettled(writer);
	over = writer->ending && writer->journal.state != JOURNAL_CLOSING;
	writer->keeper_rests = !unsettled && !over;
	pthread_mutex_unlock(&writer->lock);
	if (over)
		return false;
	if (!keeper_rest(seat, unsettled)) {
		pthread_mutex_lock(&writer->lock);
		if (is_unsettled(writer))
			journal_settle(&writer->journal);
		pthread_mutex_unlock(&writer->lock);
	}
	return true;
}

static void *keeper_main(void *opaque)
{
	struct journal_seat *seat = opaque;

	for (;;) {
		journal_seat_go_on(seat, true);
		if (seat->nr_acts > 0)
			seat_round(seat, seat->nudge_fd);
		else if (!keeper_sleep(seat))
			return NULL;
	}
}

/* With the lock held. Without a keeper it goes by whoever polls. */
static void start_keeper(struct journal_writer *writer)
{
	struct below below = { .target = writer->options.below, .start = writer->options.start };
	struct journal_seat *seat;
	struct error err;

	if (!journal_writer_keeps(writer))
		return;
	below.queue =
		below.target->ops->queue_open(below.target, JOURNAL_ROOM, (struct bvec){ 0 }, &err);
	if (!below.queue)
		return;
	seat = seat_new(writer, &below);
	if (seat)
		make_nudge(seat);
	if (seat && seat->nudge_fd >= 0) {
		writer->keeper = seat;
		if (thread_start(&writer->keeper_thread, keeper_main, seat) == 0) {
			link_seat(seat);
			return;
		}
		writer->keeper = NULL;
	}
	if (seat)
		seat_free(seat);
	below.target->ops->queue_close(below.queue);
}

static void end_keeper(struct journal_writer *writer)
{
	struct journal_seat *seat = writer->keeper;

	pthread_mutex_lock(&writer->lock);
	writer->ending = true;
	nudge(seat);
	pthread_mutex_unlock(&writer->lock);
	pthread_join(writer->keeper_thread, NULL);
	writer->keeper = NULL;
	writer->ending = false;
	unlink_seat(seat);
	seat->below.target->ops->queue_close(seat->below.queue);
	seat_free(seat);
}

/* ---- the first write, and the last seat ---- */

static void free_journal(struct journal_writer *writer)
{
	for (enum journal_act act = 0; act < JOURNAL_ACTS; act++)
		act_run_destroy(&writer->runs[act]);
	journal_destroy(&writer->journal);
	journal_areas_free(writer->areas);
	writer->areas = NULL;
	if (writer->memory)
		munmap(writer->memory, writer->memory_len);
	writer->memory = NULL;
}

/* The section where writing goes on is to be found, so it begins to read. With the lock held. */
static int start_journal(struct journal_writer *writer)
{
	const struct journal_writer_options *options = &writer->options;
	const struct layout *layout = options->layout;
	unsigned buffers =
		min_u64(journal_buffers(layout), max_u64(options->memory / layout->section_len,
							 min_u64(2, layout->sections)));
	int ret = 0;

	if (options->areas)
		buffers = min_u64(buffers, max_u64(JOURNAL_AREAS_ENTRIES / layout->entries,
						   min_u64(2, layout->sections)));
	writer->memory_len = buffers * layout->section_len;
	writer->memory = huge_map(writer->memory_len);
	if (!writer->memory ||
	    journal_init(&writer->journal, layout, options->name, writer->memory, buffers) < 0)
		ret = -ENOMEM;
	for (enum journal_act act = 0; act < JOURNAL_ACTS && ret == 0; act++)
		ret = act_run_init(&writer->runs[act], layout, options->tags, act);
	if (ret == 0 && options->areas) {
		writer->runs[JOURNAL_COPY].tags_are_put = true;
		writer->areas =
			journal_areas_new(options->areas, options->tags, buffers * layout->entries);
		ret = writer->areas ? 0 : -ENOMEM;
	}
	if (ret < 0) {
		free_journal(writer);
		return ret;
	}
	writer->started = true;
	writer->told = false;
	start_keeper(writer);
	return 0;
}

bool journal_seat_order(struct journal_seat *seat, struct journal_order *order)
{
	struct journal_writer *writer = seat->writer;
	int ret = 0;

	order->mark = 0;
	pthread_mutex_lock(&writer->lock);
	if (!writer->started && order->kind == ORDER_WRITE)
		ret = start_journal(writer);
	if (order->kind == ORDER_FLUSH && writer->started)
		order->mark = journal_flush(&writer->journal);
	/* Behind those that came before. */
	if (ret == 0 && !seat->first)
		ret = carry_order(seat, order);
	pthread_mutex_unlock(&writer->lock);
	order->result = ret < 0 ? ret : 0;
	if (ret != 0)
		return true;
	make_nudge(seat);
	order->next = NULL;
	*seat->end = order;
	seat->end = &order->next;
	return false;
}

/* Until all is in its place, and the journal empty. */
static void empty_alone(struct journal_seat *seat)
{
	struct journal_writer *writer = seat->writer;

	while (why_not(seat) == 0 && writer->journal.state == JOURNAL_CLOSING) {
		journal_seat_go_on(seat, true);
		if (seat->nr_acts > 0)
			seat_round(seat, -1);
	}
}

static void end_journal(struct journal_seat *seat)
{
	struct journal_writer *writer = seat->writer;
	const struct journal *journal = &writer->journal;
	bool lost;

	pthread_mutex_lock(&writer->lock);
	if (journal->state == JOURNAL_RUNNING && (writer->keeper || why_not(seat) == 0))
		journal_close(&writer->journal);
	pthread_mutex_unlock(&writer->lock);
	if (writer->keeper)
		end_keeper(writer);
	else
		empty_alone(seat);
	lost = journal->used > 0 || journal->committed < journal->open;
	if (lost && journal->state >= JOURNAL_RUNNING)
		notice_tell(writer->options.notice,
			    "%s: integrity: what was written since the last flush is lost",
			    writer->options.name);
	while (seat->nr_acts > 0) { /* of one that failed */
		seat_round(seat, -1);
		journal_seat_go_on(seat, false);
	}
	free_journal(writer);
	writer->started = false;
}

/* Without it, it is seen again. */
static void record_seen(struct journal_writer *writer)
{
	struct areas *areas = writer->options.areas;
	struct error err = { 0 };
	int ret;

	if (areas->read_only || !areas_has_doubts(areas))
		return;
	ret = areas_begin(areas, &err);
	if (ret == 0)
		ret = areas_sync(areas, &err);
	tell_trust(writer, ret, &err);
}

void journal_seat_close(struct journal_seat *seat)
{
	struct journal_writer *writer = seat->writer;
	bool last;

	assert(!seat->first);
	journal_seat_go_on(seat, false);
	while (seat->nr_acts > 0) {
		seat_round(seat, -1);
		journal_seat_go_on(seat, false);
	}
	pthread_mutex_lock(&writer->lock);
	last = --writer->nr_seats == 0;
	pthread_mutex_unlock(&writer->lock);
	if (last && writer->started)
		end_journal(seat);
	if (last && writer->options.areas)
		record_seen(writer);
	pthread_mutex_lock(&writer->lock);
	unlink_seat(seat);
	pthread_mutex_unlock(&writer->lock);
	seat_free(seat);
}
