/* Threads, each with some operations in flight, chosen at random. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "registers.h"

#define MAX_ERRNO 200
#define NAP_US    10000 /* after an error: where all fails at once, nothing is learnt by haste */

static const struct disk_ops *ops;
static struct disk disk;
static struct lane lanes[MAX_LANES];
static pthread_t threads[MAX_LANES];
static bool stopping;

/* Under the mutex. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct counts counts;
static uint64_t by_errno[KINDS][MAX_ERRNO];
static uint64_t begun; /* operations */
static unsigned in_flight;
static uint64_t wait_after, ended_after; /* operations behind this one have ended */
static unsigned before_left;             /* in flight that began before it */

const char *const kind_names[KINDS] = { "read", "write", "zero", "trim", "flush" };

/* ---- what is asked for ---- */

static enum kind pick_kind(struct lane *lane)
{
	unsigned dice = random_below(&lane->random, 100);

	if (dice < 40)
		return READ;
	if (dice < 46 && disk.can_zero)
		return ZERO;
	if (dice < 49 && disk.can_trim && !options.no_trim)
		return TRIM;
	return dice < 53 ? FLUSH : WRITE;
}

static unsigned pick_count(struct lane *lane)
{
	unsigned dice = random_below(&lane->random, 100);

	if (dice < 60)
		return 1;
	return 1 + random_below(&lane->random, dice < 95 ? 8 : MAX_BLOCKS);
}

/* Half of all goes to a sixteenth of the blocks, where operations meet. */
static void pick_range(struct slot *slot)
{
	uint64_t *random = &slot->lane->random, blocks = model_blocks(), below;

	slot->count = pick_count(slot->lane);
	if (slot->count > blocks)
		slot->count = blocks;
	below = random_below(random, 2) ? blocks : blocks / 16;
	below = below > slot->count ? below - slot->count + 1 : 1;
	slot->first = random_below(random, below);
}

static void fill(const struct slot *slot)
{
	for (unsigned i = 0; i < slot->count; i++)
		stamp_write(slot->data + i * options.block, model_run(), slot->first + i,
			    slot->version[i], slot->lane->number);
}

static void pick(struct slot *slot)
{
	slot->kind = pick_kind(slot->lane);
	slot->fua = slot->kind != READ && slot->kind != FLUSH && disk.can_fua &&
		    random_below(&slot->lane->random, 8) == 0;
	for (unsigned tries = 0; tries < 8; tries++) {
		pick_range(slot);
		if (model_begin(slot))
			return;
	}
	slot->kind = READ;
	slot->fua = false;
	model_begin(slot);
}

/* ---- its begin and end ---- */

static void ended(struct slot *slot)
{
	pauses_ended(slot);
	model_end(slot);
	pthread_mutex_lock(&mutex);
	if (slot->error) {
		counts.errors[slot->kind]++;
		by_errno[slot->kind][slot->error < MAX_ERRNO ? slot->error : 0]++;
	} else {
		counts.done[slot->kind]++;
		counts.fua += slot->fua;
	}
	in_flight--;
	slot->busy = false;
	if (slot->number > wait_after)
		ended_after++;
	else if (before_left)
		before_left--;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&mutex);
	if (slot->error)
		usleep(NAP_US);
}

/* The model has been told. */
static void begin(struct slot *slot)
{
	struct lane *lane = slot->lane;
	int error;

	if (slot->kind == WRITE)
		fill(slot);
	else if (slot->kind == READ)
		memset(slot->data, 0x5a, slot->count * options.block);
	pthread_mutex_lock(&mutex);
	slot->number = ++begun;
	slot->begun = now();
	slot->error = 0;
	slot->busy = true;
	in_flight++;
	pthread_mutex_unlock(&mutex);
	error = ops->issue(lane, slot);
	if (error)
		lane_ended(slot, error);
}

/* By the disk, in the lane's thread; perhaps in a callback, where little may be done. */
void lane_ended(struct slot *slot, int error)
{
	slot->error = error;
	slot->next_done = slot->lane->done;
	slot->lane->done = slot;
}

static void collect(struct lane *lane, bool wait)
{
	struct slot *slot;

	if (!lane->done && wait)
		ops->wait(lane);
	while ((slot = lane->done)) {
		lane->done = slot->next_done;
		ended(slot);
	}
}

static bool is_busy(const struct lane *lane)
{
	for (unsigned i = 0; i < options.depth; i++)
		if (lane->slots[i].busy)
			return true;
	return false;
}

/* ---- what hangs ---- */

static bool shows_stuck(const struct slot *slot)
{
	if (!slot->busy || now() - slot->begun < options.stuck)
		return false;
	printf("stuck=%s first=%llu count=%u since=%.3f now=%.3f\n", kind_names[slot->kind],
	       (unsigned long long)slot->first, slot->count, slot->begun, now());
	return true;
}

void lanes_end_if_stuck(void)
{
	bool stuck = false;

	pthread_mutex_lock(&mutex);
	for (unsigned l = 0; l < options.lanes; l++)
		for (unsigned i = 0; i < options.depth; i++)
			stuck |= shows_stuck(&lanes[l].slots[i]);
	pthread_mutex_unlock(&mutex);
	if (!stuck)
		return;
	fflush(stdout);
	_exit(3);
}

/* ---- one after the other ---- */

static void run_one(struct slot *slot, enum kind kind, uint64_t first, unsigned count)
{
	slot->kind = kind;
	slot->fua = false;
	slot->first = first;
	slot->count = count;
	model_begin(slot);
	begin(slot);
	while (slot->busy) {
		collect(slot->lane, true);
		lanes_end_if_stuck();
	}
}

static void run_over_all(enum kind kind)
{
	struct slot *slot = &lanes[0].slots[0];

	for (uint64_t first = 0; first < model_blocks(); first += MAX_BLOCKS) {
		uint64_t left = model_blocks() - first;

		run_one(slot, kind, first, left < MAX_BLOCKS ? left : MAX_BLOCKS);
	}
}

void lanes_look(void)
{
	run_one(&lanes[0].slots[0], FLUSH, 0, 0);
	run_over_all(READ);
}

/* ---- the threads ---- */

static bool is_stopping(void)
{
	return __atomic_load_n(&stopping, __ATOMIC_ACQUIRE);
}

static void *run(void *opaque)
{
	struct lane *lane = opaque;

	while (!is_stopping() || is_busy(lane)) {
		for (unsigned i = 0; i < options.depth && !is_stopping(); i++) {
			if (lane->slots[i].busy)
				continue;
			pick(&lane->slots[i]);
			begin(&lane->slots[i]);
		}
		collect(lane, true);
	}
	return NULL;
}

static void lane_init(struct lane *lane, unsigned number)
{
	lane->number = number;
	lane->random = (options.seed << 8 | number) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	lane->slots = calloc(options.depth, sizeof(lane->slots[0]));
	for (unsigned i = 0; lane->slots && i < options.depth; i++) {
		struct slot *slot = &lane->slots[i];

		slot->lane = lane;
		slot->data = aligned_alloc(4096, (size_t)MAX_BLOCKS * options.block);
		slot->acked = malloc(model_blocks() * sizeof(slot->acked[0]));
		if (!slot->data || !slot->acked)
			fail("registers: no memory");
	}
	if (!lane->slots)
		fail("registers: no memory");
	ops->lane_open(lane);
}

static void init(const struct disk_ops *disk_ops, const struct disk *that)
{
	ops = disk_ops;
	disk = *that;
	for (unsigned i = 0; i < options.lanes; i++)
		lane_init(&lanes[i], i);
}

void lanes_start(const struct disk_ops *disk_ops, const struct disk *that)
{
	init(disk_ops, that);
	run_over_all(WRITE); /* version 1 of each */
	run_one(&lanes[0].slots[0], FLUSH, 0, 0);
	for (unsigned i = 0; i < options.lanes; i++)
		if (pthread_create(&threads[i], NULL, run, &lanes[i]) != 0)
			fail("registers: no threads");
}

void lanes_verify(const struct disk_ops *disk_ops, const struct disk *that)
{
	options.lanes = options.depth = 1;
	init(disk_ops, that);
	run_over_all(READ);
}

void lanes_stop(void)
{
	__atomic_store_n(&stopping, true, __ATOMIC_RELEASE);
	lanes_wait(0);
	for (unsigned i = 0; i < options.lanes; i++)
		pthread_join(threads[i], NULL);
}

void lanes_close(void)
{
	for (unsigned l = 0; l < options.lanes; l++) {
		ops->lane_close(&lanes[l]);
		for (unsigned i = 0; i < options.depth; i++) {
			free(lanes[l].slots[i].data);
			free(lanes[l].slots[i].acked);
		}
		free(lanes[l].slots);
	}
}

/* ---- for others ---- */

static void wait_a_second(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	pthread_cond_timedwait(&changed, &mutex, &until);
}

void lanes_wait(uint64_t count)
{
	double look_at = now() + 1;

	pthread_mutex_lock(&mutex);
	wait_after = begun;
	ended_after = 0;
	before_left = in_flight;
	while (ended_after < count || before_left) {
		wait_a_second();
		if (now() < look_at)
			continue;
		pthread_mutex_unlock(&mutex);
		lanes_end_if_stuck();
		pthread_mutex_lock(&mutex);
		look_at = now() + 1;
	}
	pthread_mutex_unlock(&mutex);
}

void lanes_counts(struct counts *to)
{
	pthread_mutex_lock(&mutex);
	*to = counts;
	pthread_mutex_unlock(&mutex);
}

void lanes_print_errors(void)
{
	for (unsigned kind = 0; kind < KINDS; kind++)
		for (unsigned error = 0; error < MAX_ERRNO; error++)
			if (by_errno[kind][error])
				printf("error=%s operation=%s count=%llu\n", strerrorname_np(error),
				       kind_names[kind], (unsigned long long)by_errno[kind][error]);
}
