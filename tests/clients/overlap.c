/* overlap URI THREADS SECONDS [SEED]: writes that meet in the same blocks, against a model.
 *
 * First each thread owns every THREADS-th stripe of some areas, far narrower than a block in
 * the hottest one, and writes, zeroes, trims and reads only there: whatever its neighbours do
 * to the same blocks, its own bytes are the model's at any time. Then, in rounds, all threads
 * write at once where the ranges truly overlap: afterwards each byte is that of a writer that
 * covered it, or, where none did, what it was. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "client.h"

#define MAX_THREADS 64
#define MIB         (1 << 20)

struct area {
	uint64_t start, stripe, count;
	unsigned percent; /* of the operations */
};

static struct area areas[] = {
	{ .start = 0, .stripe = 171, .count = 400, .percent = 84 },
	{ .start = 2 * MIB, .stripe = 10007, .count = 400, .percent = 13 },
	{ .start = 8 * MIB, .stripe = 2000003, .percent = 3 },
};
#define AREAS (sizeof(areas) / sizeof(areas[0]))

/* Where the ranges overlap, in the second part. */
#define ARENA     (2 * MIB)
#define ARENA_LEN (2 * MIB)

struct worker {
	pthread_t thread;
	unsigned id;
	struct nbd_handle *nbd;
	uint64_t random;
	uint8_t *buf; /* as large as a stripe and some blocks around it */
	unsigned long ops;
	/* What it wrote in this round. */
	uint64_t start, len;
	uint8_t tag;
};

static const char *uri;
static unsigned threads;
static double deadline;
static uint64_t volume_size;
static uint8_t *model; /* a thread touches its own bytes only */
static struct worker workers[MAX_THREADS];
static pthread_barrier_t barrier;
static bool more; /* another round follows */
static atomic_uint mismatches;

static void mismatch(const char *what, uint64_t at, unsigned got, unsigned wanted)
{
	if (atomic_fetch_add(&mismatches, 1) < 10)
		fprintf(stderr, "%s: byte %#llx is %#x, not %#x\n", what, (unsigned long long)at,
			got, wanted);
}

static void check(int ret, const char *what, uint64_t start, uint64_t len)
{
	if (ret < 0)
		fail("%s of %llu at %llu: %s", what, (unsigned long long)len,
		     (unsigned long long)start, nbd_get_error());
}

static bool can(int answer)
{
	return answer > 0;
}

/* ---- stripes ---- */

/* Does the part of a stripe that lies in [start, end) hold what the model says? data holds
 * the bytes from start on. */
static void check_stripe(const struct area *area, uint64_t stripe, uint64_t start, uint64_t end,
			 const uint8_t *data, const char *what)
{
	uint64_t from = area->start + stripe * area->stripe;
	uint64_t to = from + area->stripe;

	from = from < start ? start : from;
	to = to > end ? end : to;
	if (from >= to || memcmp(data + (from - start), model + from, to - from) == 0)
		return;
	while (data[from - start] == model[from])
		from++;
	mismatch(what, from, data[from - start], model[from]);
}

/* Reads more than a range, by whole blocks or not, and checks what is the worker's in it. */
static void read_around(struct worker *w, const struct area *area, uint64_t start, uint64_t len)
{
	uint64_t end = start + len, stripe;

	if (random_below(&w->random, 2)) {
		start -= start % BLOCK;
		end += BLOCK - end % BLOCK;
	} else {
		start -= random_below(&w->random, 1 + (start < 700 ? start : 700));
		end += random_below(&w->random, 700);
	}
	check(nbd_pread(w->nbd, w->buf, end - start, start, 0), "read", start, end - start);
	stripe = start < area->start ? 0 : (start - area->start) / area->stripe;
	for (; stripe < area->count && area->start + stripe * area->stripe < end; stripe++)
		if (stripe % threads == w->id)
			check_stripe(area, stripe, start, end, w->buf, "among neighbours");
}

static void write_range(struct worker *w, uint64_t start, uint64_t len, uint32_t flags)
{
	uint8_t value = random_next(&w->random);

	for (uint64_t i = 0; i < len; i++)
		model[start + i] = value + i / 16;
	check(nbd_pwrite(w->nbd, model + start, len, start, flags), "write", start, len);
}

static void zero_range(struct worker *w, uint64_t start, uint64_t len, uint32_t flags)
{
	if (!can(nbd_can_zero(w->nbd)))
		return write_range(w, start, len, flags);
	if (random_below(&w->random, 2))
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	memset(model + start, 0, len);
	check(nbd_zero(w->nbd, len, start, flags), "zero", start, len);
}

/* What a trimmed range holds is anyone's guess: it is written again at once. */
static void trim_range(struct worker *w, uint64_t start, uint64_t len, uint32_t flags)
{
	if (can(nbd_can_trim(w->nbd)))
		check(nbd_trim(w->nbd, len, start, flags), "trim", start, len);
	write_range(w, start, len, 0);
}

static void one_operation(struct worker *w)
{
	uint64_t *r = &w->random;
	unsigned dice = random_below(r, 100), kind;
	const struct area *area = areas;
	uint64_t start, from = 0, len;
	uint32_t flags = random_below(r, 16) ? 0 : LIBNBD_CMD_FLAG_FUA;

	while (dice >= area->percent)
		dice -= area++->percent;
	start = area->start +
		(w->id + threads * random_below(r, area->count / threads)) * area->stripe;
	len = area->stripe;
	if (random_below(r, 3)) {
		from = random_below(r, len);
		len = 1 + random_below(r, len - from);
	}
	start += from;
	kind = random_below(r, 16);
	if (kind < 9)
		write_range(w, start, len, flags);
	else if (kind == 9)
		zero_range(w, start, len, flags);
	else if (kind == 10)
		trim_range(w, start, len, flags);
	if (kind > 10 || random_below(r, 4) == 0)
		read_around(w, area, start, len);
	w->ops++;
}

static void *stripes(void *opaque)
{
	struct worker *w = opaque;

	while (now() < deadline && atomic_load(&mismatches) == 0)
		one_operation(w);
	return NULL;
}

static void check_all(const char *what)
{
	struct nbd_handle *nbd = connect_to(uri);
	uint8_t *buf = malloc(MIB);

	for (uint64_t at = 0; at < volume_size; at += MIB) {
		check(nbd_pread(nbd, buf, MIB, at, 0), "read", at, MIB);
		for (unsigned i = 0; memcmp(buf, model + at, MIB) != 0 && i < MIB; i++)
			if (buf[i] != model[at + i]) {
				mismatch(what, at + i, buf[i], model[at + i]);
				break;
			}
	}
	free(buf);
	disconnect(nbd);
}

/* ---- overlapping ---- */

static void pick_range(struct worker *w, uint64_t window)
{
	uint64_t *r = &w->random;
	unsigned dice = random_below(r, 16);

	if (dice < 8) { /* a part of a block or of two */
		w->start = window + random_below(r, 8 * BLOCK);
		w->len = 1 + random_below(r, 5000);
	} else if (dice < 14) { /* whole blocks */
		w->start = window + BLOCK * random_below(r, 8);
		w->len = BLOCK * (1 + random_below(r, 4));
	} else { /* several pieces */
		w->start = window - random_below(r, ARENA_LEN / 4);
		w->len = ARENA_LEN / 4 + random_below(r, ARENA_LEN / 4);
	}
}

static void overlapping_write(struct worker *w, unsigned long round)
{
	uint32_t flags = random_below(&w->random, 32) ? 0 : LIBNBD_CMD_FLAG_FUA;
	unsigned kind = random_below(&w->random, 10);

	w->tag = kind ? 1 + (round * threads + w->id) % 255 : 0;
	if (w->tag == 0 && can(nbd_can_zero(w->nbd))) {
		check(nbd_zero(w->nbd, w->len, w->start, flags), "zero", w->start, w->len);
	} else {
		memset(w->buf, w->tag, w->len);
		check(nbd_pwrite(w->nbd, w->buf, w->len, w->start, flags), "write", w->start,
		      w->len);
	}
}

/* After a round, by one thread. */
static void judge(struct worker *judge_worker)
{
	static uint8_t data[ARENA_LEN], covered[ARENA_LEN], explained[ARENA_LEN];
	uint64_t low = ARENA_LEN, high = 0;

	for (unsigned t = 0; t < threads; t++) {
		uint64_t start = workers[t].start - ARENA, end = start + workers[t].len;

		low = start < low ? start : low;
		high = end > high ? end : high;
	}
	low -= low % BLOCK;
	high += BLOCK - high % BLOCK;
	high = high > ARENA_LEN ? ARENA_LEN : high;
	check(nbd_pread(judge_worker->nbd, data + low, high - low, ARENA + low, 0), "read", low,
	      high - low);
	memset(covered + low, 0, high - low);
	memset(explained + low, 0, high - low);
	for (unsigned t = 0; t < threads; t++) {
		uint64_t start = workers[t].start - ARENA;

		for (uint64_t i = start; i < start + workers[t].len; i++) {
			covered[i] = 1;
			explained[i] |= data[i] == workers[t].tag;
		}
	}
	for (uint64_t i = low; i < high; i++) {
		if (!explained[i] && (covered[i] || data[i] != model[ARENA + i]))
			mismatch(covered[i] ? "no writer's" : "nobody wrote it", ARENA + i, data[i],
				 model[ARENA + i]);
	}
	memcpy(model + ARENA + low, data + low, high - low);
}

static void *rounds(void *opaque)
{
	struct worker *w = opaque;
	bool go_on = true;

	for (unsigned long round = 0; go_on; round++) {
		uint64_t window = ARENA + ARENA_LEN / 4 + BLOCK * (round * 8 % 64);

		pick_range(w, window);
		pthread_barrier_wait(&barrier);
		overlapping_write(w, round);
		w->ops++;
		pthread_barrier_wait(&barrier);
		if (w->id == 0) {
			judge(w);
			more = now() < deadline && atomic_load(&mismatches) == 0;
		}
		pthread_barrier_wait(&barrier);
		go_on = more;
	}
	return NULL;
}

/* ---- the whole ---- */

static void run_all(void *(*what)(void *), const char *name, double seconds)
{
	unsigned long ops = 0;

	deadline = now() + seconds;
	for (unsigned t = 0; t < threads; t++)
		if (pthread_create(&workers[t].thread, NULL, what, &workers[t]) != 0)
			fail("can't make a thread");
	for (unsigned t = 0; t < threads; t++) {
		pthread_join(workers[t].thread, NULL);
		ops += workers[t].ops;
		workers[t].ops = 0;
	}
	printf("%s: %lu operations, %u mismatches\n", name, ops, mismatches);
}

static void set_up(uint64_t seed)
{
	struct nbd_handle *nbd = connect_to(uri);
	struct area *wide = &areas[AREAS - 1];

	wide->count = threads;
	volume_size = wide->start + wide->count * wide->stripe;
	volume_size += MIB - volume_size % MIB;
	if (nbd_get_size(nbd) < (int64_t)volume_size)
		fail("the volume must have %llu bytes", (unsigned long long)volume_size);
	model = calloc(1, volume_size);
	for (uint64_t at = 0; at < volume_size; at += MIB)
		check(nbd_pwrite(nbd, model + at, MIB, at, 0), "write", at, MIB);
	disconnect(nbd);
	pthread_barrier_init(&barrier, NULL, threads);
	for (unsigned t = 0; t < threads; t++)
		workers[t] = (struct worker){
			.id = t,
			.nbd = connect_to(uri),
			.random = (seed * MAX_THREADS + t + 1) * 0x9e3779b97f4a7c15,
			.buf = malloc(wide->stripe + 2 * BLOCK),
		};
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 0) : (uint64_t)time(NULL);
	double seconds;

	if (argc < 4)
		fail("usage: overlap URI THREADS SECONDS [SEED]");
	uri = argv[1];
	threads = atoi(argv[2]);
	seconds = atof(argv[3]);
	if (threads < 1 || threads > MAX_THREADS)
		fail("overlap: 1 to %d threads", MAX_THREADS);
	printf("seed %llu\n", (unsigned long long)seed);
	set_up(seed);
	run_all(stripes, "stripes", seconds / 2);
	if (mismatches == 0)
		check_all("after the stripes");
	if (mismatches == 0)
		run_all(rounds, "overlapping", seconds / 2);
	if (mismatches == 0)
		check_all("at the end");
	for (unsigned t = 0; t < threads; t++) {
		disconnect(workers[t].nbd);
		free(workers[t].buf);
	}
	pthread_barrier_destroy(&barrier);
	free(model);
	return mismatches > 0;
}
