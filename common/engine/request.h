/* request: one caller's read, write or other operation, from submission to completion.
 *
 * After netfs in the Linux kernel. A request owns all that is needed to send it again: its
 * snapshot of the caller's iovec array, its pins, its range. It is allocated, completed and
 * freed here and nowhere else. */
#ifndef NDIO_REQUEST_H
#define NDIO_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/annotate.h"
#include "engine/bvec.h"
#include "engine/rangelock.h"
#include "engine/syncs.h"

struct volume;

enum op {
	OP_READ,
	OP_WRITE,
	OP_ZERO,
	OP_TRIM,
	OP_FLUSH,
	OP_CACHE,
	OP_EXTENTS,
};

/* Does it move the caller's bytes; may it change the volume's? */
static inline bool op_carries_data(enum op op)
{
	return op == OP_READ || op == OP_WRITE;
}

static inline bool op_changes_data(enum op op)
{
	return op == OP_WRITE || op == OP_ZERO || op == OP_TRIM;
}

enum request_flag {
	REQ_FUA = 1 << 0,       /* on stable storage before completion */
	REQ_PIN = 1 << 1,       /* keep the caller's memory resident until freed */
	REQ_MAY_TRIM = 1 << 2,  /* OP_ZERO may leave a hole */
	REQ_FAST_ZERO = 1 << 3, /* OP_ZERO fails with EOPNOTSUPP rather than be slow */
	REQ_ASIDE = 1 << 4,     /* OP_FLUSH: who asks goes on meanwhile, if that can be */
};

extern const char *const op_names[]; /* "read", for messages */

enum request_state {
	REQUEST_MADE,    /* nothing was asked of the target */
	REQUEST_RUNNING, /* a channel has it */
	REQUEST_ENDED,   /* nothing of it is in flight, nor will be; it may wait for other syncs */
	REQUEST_COMPLETED, /* and it has been told */
};

/* Why a reference is held; a trace of one request reads as a story. */
enum request_ref {
	REF_CALLER,
	REF_CHANNEL, /* of whoever runs it, from before it waits for its range until it has completed */
};

/* What is known of an extent: it takes no space; it reads as zeroes. NBD's numbers. */
enum extent_type {
	EXTENT_HOLE = 1 << 0,
	EXTENT_ZERO = 1 << 1,
};

/* Told of each extent that OP_EXTENTS finds, in order, from the thread that runs the
 * request. offset and len are bytes on the volume. A negative errno stops; it becomes the
 * request's error. */
typedef int extent_fn(void *opaque, uint64_t offset, uint64_t len, unsigned type);

#define REQUEST_INLINE_BVECS 8

struct ndio_request {
	struct ndio_request *next; /* in whichever list it is */
	struct volume *volume;
	enum op op;
	enum request_state state;
	unsigned flags;
	uint64_t start, len; /* bytes, on the volume */
	uint64_t debug_id;   /* counts up from 1 in each volume */
	atomic_uint ref;

	struct bvec *direct_bv COUNTED_BY(direct_bv_count); /* the caller's memory */
	size_t direct_bv_count;
	bool direct_bv_unpin; /* this request pinned it */

	struct iter iter;        /* the unencrypted side: what isn't split off yet */
	uint64_t split;          /* bytes split off into subrequests so far */
	unsigned nr_outstanding; /* subrequests in flight; only the channel's thread touches it */
	int error;               /* the first one, negative, or 0 */

	atomic_uint *load;  /* the worker's count of requests that aren't complete */
	struct range range; /* held from before it starts until it completes, if has_range */
	bool has_range;
	bool is_sync;     /* a flush, or a change with FUA: */
	struct sync sync; /* under way from when a channel takes it until it ends */
	int sync_error;   /* of what was asked of the target, negative, or 0 */

	/* Called, by any thread, when what it had to wait for has come: its range, or, once it has
	 * ended, other syncs: then the callee has request_finish() called, and where it is NULL that
	 * thread does so itself. With what is the callee's own. For a range it may not be NULL, and
	 * is called under the ranges' mutex: it hands on, and neither waits nor takes a range. */
	void (*resume)(struct ndio_request *request);
	void *waiter;

	/* Called once, at completion, on the thread that runs the channel: nothing will touch
	 * the caller's memory any more. May be NULL. */
	void (*done)(struct ndio_request *request);
	void *opaque;      /* done's own */
	extent_fn *extent; /* of OP_EXTENTS, with its own opaque */
	void *extent_opaque;

	/* From here on nothing is zeroed when it is made. */
	struct bvec inline_bv[REQUEST_INLINE_BVECS];
};

/* Makes a request with one reference, REF_CALLER. The iovec array is snapshot: it may be
 * reused on return; the memory it describes stays untouched by its owner until completion.
 * For reads and writes start and the bytes in iov say where; for the others len says how
 * much and iov is unused; OP_FLUSH takes none.
 *
 * -EINVAL bytes overflow, or beyond the end (-ENOSPC for writes); -EROFS; -EOPNOTSUPP an
 * operation that the volume can't do; -ENOMEM; with REQ_PIN what pin_range() gives. Then
 * nothing was kept. */
int request_make(struct volume *volume, enum op op, unsigned flags, uint64_t start, uint64_t len,
		 const struct iovec *iov, size_t iov_count, struct ndio_request **request);

void request_get(struct ndio_request *request, enum request_ref why);
/* The last reference frees: unpins, releases the bvec list. May block (munlock). */
void request_put(struct ndio_request *request, enum request_ref why);

/* Undoes its pins before it is freed: for a thread that may block, where a worker could hold
 * the last reference. Once completed. */
void request_unpin(struct ndio_request *request);

/* Takes the first error; later ones are ignored. error is negative. */
void request_fail(struct ndio_request *request, int error);

/* Nothing left to split off, by success or by failure. */
bool request_all_split(const struct ndio_request *request);

/* Takes its range, if it needs one, before it begins. True: it has it. False: resume() tells when. */
bool request_take_range(struct ndio_request *request);

/* A channel has it, and may ask the target. */
void request_begin(struct ndio_request *request);

/* Takes that back: nothing was sent of it, and another channel will begin it. */
void request_unbegin(struct ndio_request *request);

/* Nothing of it is in flight any more: finishes it, if it needn't wait for other syncs. */
void request_end(struct ndio_request *request);

/* Completes one that has ended, after resume() if it had to wait, and puts REF_CHANNEL. */
void request_finish(struct ndio_request *request);

/* Freed requests are kept for reuse, so that none is allocated in the steady state. */
struct request_cache {
	pthread_mutex_t lock;
	struct ndio_request *first;
	unsigned count;
	uint64_t last_debug_id;
};
void request_cache_init(struct request_cache *cache);
void request_cache_destroy(struct request_cache *cache);

#endif
