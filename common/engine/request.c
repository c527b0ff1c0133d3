/* The life of a request: made and checked; its range taken; running, in a channel; ended, when
 * nothing of it is in flight; completed, when it has been told (enum request_state). A flush
 * or FUA write that has ended may have to wait for others before it may say that data are
 * safe: see syncs.
 *
 * It is made by its caller's thread, which may block; everything from request_begin() on is
 * called by the thread that has the channel, except that resume(), and request_finish()
 * without one, come from whoever ended what it waited for.
 *
 * Invariants: the range is held from before it begins until it completes; the first error
 * stays; done() is called once; the last reference unpins and frees, and nobody else does. */
#include "engine/request.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "base/mutex.h"
#include "engine/probe.h"
#include "engine/volume.h"
#include "memory/pin.h"

const char *const op_names[] = {
	[OP_READ] = "read",   [OP_WRITE] = "write", [OP_ZERO] = "zero",       [OP_TRIM] = "trim",
	[OP_FLUSH] = "flush", [OP_CACHE] = "cache", [OP_EXTENTS] = "extents",
};

#define REQUEST_CACHE_MAX 256 /* kept for reuse; more are allocated and freed */

void request_cache_init(struct request_cache *cache)
{
	*cache = (struct request_cache){ .first = NULL };
	mutex_init_short(&cache->lock);
}

void request_cache_destroy(struct request_cache *cache)
{
	struct ndio_request *request;

	while ((request = cache->first)) {
		cache->first = request->next;
		free(request);
	}
	pthread_mutex_destroy(&cache->lock);
}

/* Zeroed, but for its debug_id. Not its last members: each bvec is written before it is read,
 * and they are a third of what another core may have used last. */
static struct ndio_request *request_alloc(struct request_cache *cache)
{
	struct ndio_request *request;
	uint64_t debug_id;

	pthread_mutex_lock(&cache->lock);
	debug_id = ++cache->last_debug_id;
	request = cache->first;
	if (request) {
		cache->first = request->next;
		cache->count--;
	}
	pthread_mutex_unlock(&cache->lock);
	if (!request)
		request = malloc(sizeof(*request));
	if (request) {
		memset(request, 0, offsetof(struct ndio_request, inline_bv));
		request->debug_id = debug_id;
	}
	return request;
}

static void request_recycle(struct request_cache *cache, struct ndio_request *request)
{
	bool kept;

	pthread_mutex_lock(&cache->lock);
	kept = cache->count < REQUEST_CACHE_MAX;
	if (kept) {
		request->next = cache->first;
		cache->first = request;
		cache->count++;
	}
	pthread_mutex_unlock(&cache->lock);
	if (!kept)
		free(request);
}

static int request_check(const struct volume *volume, enum op op, unsigned flags, uint64_t start,
			 uint64_t len)
{
	if (op_changes_data(op) && volume->readonly)
		return -EROFS;
	if ((op == OP_TRIM && !volume->can_trim) ||
	    (op == OP_FLUSH && !volume->target->can_flush) ||
	    ((flags & REQ_FUA) && !volume->target->can_fua) ||
	    (op == OP_CACHE && !volume->target->can_cache) ||
	    (op == OP_EXTENTS && !volume->can_extents) ||
	    (op == OP_ZERO && (flags & REQ_FAST_ZERO) && !volume->can_fast_zero))
		return -EOPNOTSUPP;
	if (start > volume->size || len > volume->size - start)
		return op_changes_data(op) ? -ENOSPC : -EINVAL;
	return 0;
}

static bool bvecs_are_registered(const struct bvec *bv, size_t count)
{
	while (count && pin_is_registered(bv[count - 1].base, bv[count - 1].len))
		count--;
	return count == 0;
}

static void bvecs_unpin(const struct bvec *bv, size_t count)
{
	while (count--)
		unpin_range(bv[count].base, bv[count].len);
}

/* All of them, or none. */
static int pin(const struct bvec *bv, size_t count)
{
	int ret = 0;

	for (size_t i = 0; i < count; i++) {
		ret = pin_range(bv[i].base, bv[i].len);
		if (ret < 0) {
			bvecs_unpin(bv, i);
			break;
		}
	}
	return ret;
}

static int take_memory(struct ndio_request *request, const struct iovec *iov, size_t iov_count,
		       size_t bv_count)
{
	int ret;

	if (bv_count > REQUEST_INLINE_BVECS) {
		request->direct_bv = malloc(bv_count * sizeof(*request->direct_bv));
		if (!request->direct_bv)
			return -ENOMEM;
	} else {
		request->direct_bv = request->inline_bv;
	}
	request->direct_bv_count = bv_count;
	bvec_snapshot(request->direct_bv, iov, iov_count);
	request->iter = iter_over(request->direct_bv, request->len);
	if ((request->flags & REQ_PIN) && !bvecs_are_registered(request->direct_bv, bv_count)) {
		ret = pin(request->direct_bv, bv_count);
		if (ret < 0)
			return ret;
		request->direct_bv_unpin = true;
		stat_add(&request->volume->stats, pins, 1);
	}
	return 0;
}

/* Where the range lock is needed: a block that is read, changed and written back must not
 * cross another write; and a read must not see such a block half written, where a cipher
 * makes the neighbour's bytes in it change too. */
static void set_range(struct ndio_request *request)
{
	const struct volume *volume = request->volume;
	uint64_t end = request->start + request->len;
	bool changes = op_changes_data(request->op);
	bool reads = request->op == OP_READ && volume->reads_tear;
	/* And none must see a sector without its tag. */
	bool is_whole = is_aligned(request->start, volume->block) &&
			is_aligned(end, volume->block) && !volume->tag_len;

	request->has_range = (changes || reads) && request->len && volume->block > 1;
	if (!request->has_range)
		return;
	request->range.mode = reads ? RANGE_READ : is_whole ? RANGE_WRITE : RANGE_PARTIAL;
	request->range.start = round_down(request->start, volume->block);
	request->range.end = round_up(end, volume->block);
}

/* A trim is advice: it keeps to the whole blocks inside. */
static void shrink_to_blocks(struct ndio_request *request)
{
	uint64_t block = request->volume->block;
	uint64_t start = round_up(request->start, block);
	uint64_t end = round_down(request->start + request->len, block);

	request->start = start;
	request->len = end > start ? end - start : 0;
}

void request_unpin(struct ndio_request *request)
{
	if (!request->direct_bv_unpin)
		return;
	bvecs_unpin(request->direct_bv, request->direct_bv_count);
	request->direct_bv_unpin = false;
	stat_add(&request->volume->stats, unpins, 1);
}

static void request_free(struct ndio_request *request)
{
	PROBE2(request_free, request->debug_id, request->direct_bv_unpin);
	request_unpin(request);
	if (request->direct_bv != request->inline_bv)
		free(request->direct_bv);
	stat_sub(&request->volume->stats, in_flight, 1);
	request_recycle(&request->volume->requests, request);
}

int request_make(struct volume *volume, enum op op, unsigned flags, uint64_t start, uint64_t len,
		 const struct iovec *iov, size_t iov_count, struct ndio_request **result)
{
	struct ndio_request *request;
	size_t bv_count = 0;
	int ret = 0;

	if (op_carries_data(op))
		ret = bvec_measure(iov, iov_count, &bv_count, &len);
	if (ret == 0)
		ret = request_check(volume, op, flags, start, len);
	if (ret < 0)
		return ret;
	request = request_alloc(&volume->requests);
	if (!request)
		return -ENOMEM;
	request->volume = volume;
	request->op = op;
	request->flags = flags;
	request->start = start;
	request->len = len;
	atomic_init(&request->ref, 1);
	stat_add(&volume->stats, in_flight, 1);
	if (op == OP_TRIM)
		shrink_to_blocks(request);
	else if (op == OP_ZERO)
		request->iter = iter_of_zeroes(len);
	if (op_carries_data(op))
		ret = take_memory(request, iov, iov_count, bv_count);
	if (ret < 0) {
		request_free(request);
		return ret;
	}
	set_range(request);
	request->is_sync = op == OP_FLUSH || (op_changes_data(op) && (flags & REQ_FUA));
	PROBE4(request_make, request->debug_id, op, start, len);
	*result = request;
	return 0;
}

void request_get(struct ndio_request *request, enum request_ref why)
{
	unsigned was = atomic_fetch_add_explicit(&request->ref, 1, memory_order_relaxed);

	assert(was > 0);
	PROBE3(request_get, request->debug_id, was + 1, why);
}

void request_put(struct ndio_request *request, enum request_ref why)
{
	uint64_t debug_id = request->debug_id;
	unsigned was = atomic_fetch_sub_explicit(&request->ref, 1, memory_order_acq_rel);

	assert(was > 0);
	PROBE3(request_put, debug_id, was - 1, why);
	if (was == 1)
		request_free(request);
}

void request_fail(struct ndio_request *request, int error)
{
	assert(error < 0);
	if (request->error == 0)
		request->error = error;
	PROBE2(request_fail, request->debug_id, error);
}

bool request_all_split(const struct ndio_request *request)
{
	uint64_t all = request->op == OP_FLUSH ? 1 : request->len;

	return request->error || request->split >= all;
}

/* Ends it, once. Releases its range, counts, calls done. */
static void request_complete(struct ndio_request *request)
{
	struct stats *stats = &request->volume->stats;
	uint64_t bytes = request->error ? 0 : request->len;

	assert(request->state == REQUEST_ENDED && request->nr_outstanding == 0);
	request->state = REQUEST_COMPLETED;
	if (request->has_range)
		range_release(&request->volume->ranges, &request->range);
	if (request->op == OP_READ) {
		stat_add(stats, reads, 1);
		stat_add(stats, bytes_read, bytes);
	} else if (request->op == OP_WRITE) {
		stat_add(stats, writes, 1);
		stat_add(stats, bytes_written, bytes);
	} else {
		stat_add(stats, others, 1);
	}
	if (request->error)
		stat_add(stats, errors, 1);
	PROBE3(request_complete, request->debug_id, request->error, request->len);
	if (request->done)
		request->done(request);
	if (request->load)
		atomic_fetch_sub(request->load, 1);
}

static void range_granted(struct range *range)
{
	struct ndio_request *request =
		(struct ndio_request *)((char *)range - offsetof(struct ndio_request, range));

	assert(request->resume);
	request->resume(request);
}

bool request_take_range(struct ndio_request *request)
{
	if (!request->has_range)
		return true;
	request->range.granted = range_granted;
	return range_acquire(&request->volume->ranges, &request->range);
}

void request_finish(struct ndio_request *request)
{
	if (request->is_sync && request->sync.error && !request->error)
		request->error = request->sync.error;
	request_complete(request);
	request_put(request, REF_CHANNEL);
}

static void sync_cleared(struct sync *sync)
{
	struct ndio_request *request =
		(struct ndio_request *)((char *)sync - offsetof(struct ndio_request, sync));

	if (request->resume)
		request->resume(request);
	else
		request_finish(request);
}

void request_begin(struct ndio_request *request)
{
	assert(request->state == REQUEST_MADE);
	request->state = REQUEST_RUNNING;
	if (!request->is_sync)
		return;
	request->sync.cleared = sync_cleared;
	sync_begin(&request->volume->syncs, &request->sync);
}

void request_unbegin(struct ndio_request *request)
{
	assert(request->state == REQUEST_RUNNING);
	request->state = REQUEST_MADE;
	if (request->is_sync)
		sync_end(&request->volume->syncs, &request->sync, 0, false);
}

void request_end(struct ndio_request *request)
{
	struct volume *volume = request->volume;
	/* Only a write itself is told its own: a zero or a trim with FUA is one, and a flush. */
	bool is_told = request->op == OP_WRITE && volume->target->fua_is_own;
	bool wait = !request->error && !is_told;

	assert(request->state == REQUEST_RUNNING);
	request->state = REQUEST_ENDED;
	if (!request->is_sync ||
	    sync_end(&volume->syncs, &request->sync, request->sync_error, wait))
		request_finish(request);
}
