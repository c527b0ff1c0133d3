#include "command/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "engine/cipher.h"
#include "memory/secret.h"

#define CIPHER_PIECE (256 * 1024) /* bytes, as a request's pieces are */
#define THREADS_MAX  256

/* ---- a volume ---- */

struct bench_slot {
	uint8_t *buffer;
	uint64_t offset;
	int64_t began; /* see clock_ns() */
};

struct bench_run {
	struct ndio_volume *volume;
	const char *name;
	const struct bench_pattern *pattern;
	struct ndio_queue *queue;
	struct secret_buffers buffers;
	struct bench_slot slots[BENCH_DEPTH];
	uint64_t blocks; /* of the volume */
	uint64_t next;   /* the block, or the state of what makes numbers */
	unsigned in_flight;
	uint64_t total_ns;
	struct bench_result *result;
};

/* xorshift64*: as good as any for where to read. */
static uint64_t next_block(struct bench_run *run)
{
	if (!run->pattern->random)
		return run->next++ % run->blocks;
	run->next ^= run->next >> 12;
	run->next ^= run->next << 25;
	run->next ^= run->next >> 27;
	return run->next * UINT64_C(2685821657736338717) % run->blocks;
}

static int bench_failed(const struct bench_run *run, uint64_t offset, int ret, struct error *err)
{
	return error_set(err, -ret, "%s: %s at %" PRIu64 ": %s", run->name,
			 run->pattern->write ? "write" : "read", offset,
			 ndio_reason(run->volume, ret));
}

static int bench_ask(struct bench_run *run, struct bench_slot *slot, struct error *err)
{
	const struct ndio_completion completion = { .queue = run->queue, .opaque = slot };
	const struct iovec iov = { slot->buffer, run->pattern->block };
	int ret;

	slot->offset = next_block(run) * run->pattern->block;
	slot->began = clock_ns();
	ret = run->pattern->write ?
		      ndio_aio_pwritev(run->volume, &iov, 1, slot->offset, 0, &completion) :
		      ndio_aio_preadv(run->volume, &iov, 1, slot->offset, 0, &completion);
	if (ret < 0)
		return bench_failed(run, slot->offset, ret, err);
	run->in_flight++;
	return 0;
}

static void bench_count(struct bench_run *run, const struct bench_slot *slot)
{
	uint64_t took = clock_ns() - slot->began;

	run->result->requests++;
	run->total_ns += took;
	if (took > run->result->worst_ns)
		run->result->worst_ns = took;
}

/* Takes what has ended; each is followed by another one until the time is over. */
static int bench_reap(struct bench_run *run, int64_t end, struct error *err)
{
	struct ndio_event events[BENCH_DEPTH];
	int n = ndio_queue_reap(run->queue, events, BENCH_DEPTH, -1), ret = 0;

	if (n < 0)
		return n == -EINTR ? 0 : bench_failed(run, 0, n, err);
	for (int i = 0; i < n; i++) {
		struct bench_slot *slot = events[i].opaque;

		run->in_flight--;
		if (ret < 0)
			continue;
		if (events[i].error < 0)
			ret = bench_failed(run, slot->offset, events[i].error, err);
		else
			bench_count(run, slot);
		if (ret == 0 && clock_ns() < end)
			ret = bench_ask(run, slot, err);
	}
	return ret;
}

static int bench_loop(struct bench_run *run, unsigned ms, struct error *err)
{
	int64_t start = clock_ns(), end = start + ms * INT64_C(1000000);
	int ret = 0, failed = 0;
	struct error later;

	for (unsigned i = 0; i < run->pattern->depth && ret == 0; i++)
		ret = bench_ask(run, &run->slots[i], err);
	while (run->in_flight && ret == 0)
		ret = bench_reap(run, end, err);
	/* Nothing may land in the buffers later. */
	while (run->in_flight && failed == 0)
		failed = bench_reap(run, 0, &later) == -EBADF;
	run->result->seconds = (clock_ns() - start) / 1e9;
	if (run->result->requests)
		run->result->mean_ns = run->total_ns / run->result->requests;
	return ret;
}

int bench_volume(struct ndio_volume *volume, const char *name, uint64_t size,
		 const struct bench_pattern *pattern, unsigned ms, struct bench_result *result,
		 struct error *err)
{
	struct bench_run run = { .volume = volume,
				 .name = name,
				 .pattern = pattern,
				 .blocks = size / pattern->block,
				 .result = result,
				 .next = pattern->random ? (uint64_t)clock_ns() | 1 : 0 };
	int ret;

	*result = (struct bench_result){ 0 };
	ret = secret_buffers_make(&run.buffers, (size_t)pattern->depth * pattern->block, err);
	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < pattern->depth; i++)
		run.slots[i].buffer = (uint8_t *)run.buffers.base + (size_t)i * pattern->block;
	if (pattern->write && RAND_bytes(run.buffers.base, run.buffers.size) != 1)
		ret = error_set(err, EIO, "%s: no noise to write", name);
	if (ret == 0 && ndio_queue_new(&run.queue) < 0)
		ret = error_set(err, ENOMEM, "%s: %s", name, ndio_error());
	if (ret == 0)
		ret = bench_loop(&run, ms, err);
	ndio_queue_free(run.queue);
	secret_buffers_free(&run.buffers);
	return ret;
}

/* ---- a cipher ---- */

struct bench_core {
	pthread_t thread;
	const char *name;
	unsigned key_len, sector, ms;
	double per_second;
	int ret;
	struct error err;
};

static void *bench_core_run(void *opaque)
{
	struct bench_core *core = opaque;
	uint8_t key[64];
	uint8_t *data = aligned_alloc(4096, CIPHER_PIECE);
	struct cipher *cipher = NULL;
	int64_t start, now;
	uint64_t bytes = 0;

	core->ret = -ENOMEM;
	if (data && RAND_bytes(key, sizeof(key)) == 1)
		cipher = cipher_new(core->name, key, core->key_len, core->sector, &core->err);
	if (cipher) {
		memset(data, 1, CIPHER_PIECE);
		core->ret = 0;
		start = now = clock_ns();
		while (core->ret == 0 && now - start < core->ms * INT64_C(1000000)) {
			core->ret = cipher_decrypt(cipher, 0, data, data, CIPHER_PIECE, NULL);
			bytes += CIPHER_PIECE;
			now = clock_ns();
		}
		core->per_second = bytes * 1e9 / (now - start + 1);
	}
	cipher_free(cipher);
	free(data);
	return NULL;
}

int bench_cipher(const char *cipher, unsigned key_bits, unsigned sector, unsigned threads,
		 unsigned ms, double *per_second, struct error *err)
{
	struct bench_core *cores;
	int ret = cipher_supported(cipher, key_bits / 8, err);
	unsigned started = 0;

	*per_second = 0;
	if (ret < 0)
		return ret;
	threads = threads < THREADS_MAX ? threads : THREADS_MAX;
	cores = calloc(threads, sizeof(*cores));
	if (!cores)
		return error_set(err, ENOMEM, "no memory to try the cipher");
	for (; started < threads && ret == 0; started += ret == 0) {
		cores[started] = (struct bench_core){
			.name = cipher, .key_len = key_bits / 8, .sector = sector, .ms = ms
		};
		ret = -thread_start(&cores[started].thread, bench_core_run, &cores[started]);
	}
	if (ret < 0)
		error_set(err, -ret, "no thread to try the cipher in");
	for (unsigned i = 0; i < started; i++) {
		pthread_join(cores[i].thread, NULL);
		*per_second += cores[i].per_second;
		if (cores[i].ret < 0 && ret == 0)
			ret = error_set(err, -cores[i].ret, "%s: it can't be tried: %s", cipher,
					strerror(-cores[i].ret));
	}
	free(cores);
	return ret;
}
