/* target: the interface to where the encrypted side goes: a file, a block device, an NBD server.
 *
 * A target knows nothing of LUKS or ciphers. Its queues carry subrequests: one queue a channel,
 * used by one thread at a time; different queues of one target are used in parallel. */
#ifndef NDIO_TARGET_H
#define NDIO_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/bvec.h"

struct ndio_subrequest;
struct target_queue;
struct target;

struct target_ops {
	/* For headers, before there are queues: reads len bytes at offset, both aligned as the
	 * target needs it. Blocks. The bytes read, 0 at the end, or a negative errno. */
	int64_t (*read)(struct target *target, void *buf, size_t len, uint64_t offset);

	/* A queue for up to depth subrequests at once. bounce is the memory that most of them
	 * will use; it outlives the queue. NULL with a message. */
	struct target_queue *(*queue_open)(struct target *target, unsigned depth,
					   struct bvec bounce, struct error *err);
	void (*queue_close)(struct target_queue *queue); /* nothing in flight */

	/* Takes a subrequest: op, flags, start, len, and io_base for those that carry data.
	 * Whatever comes of it, it lands once, in a list that poll() returns, with its result
	 * set: bytes transferred (perhaps fewer than len; 0 where a file ends), or a negative
	 * errno. What isn't sent yet is sent by submit() or poll(). */
	void (*issue)(struct target_queue *queue, struct ndio_subrequest *sub);
	void (*submit)(struct target_queue *queue);

	/* Those that have landed, linked by ->next. With wait it sleeps until there are some, if
	 * any is in flight, or until wake_fd, unless it is -1, can be read. */
	struct ndio_subrequest *(*poll)(struct target_queue *queue, bool wait, int wake_fd);

	/* Can subrequests be sent? Until it can again they fail. NULL: always. */
	bool (*is_up)(const struct target_queue *queue);

	/* Makes all that is in flight land soon, with an error where it isn't done. The queue
	 * takes no more. Called by the queue's own thread. */
	void (*cancel)(struct target_queue *queue);

	void (*close)(struct target *target); /* every queue is closed */
};

struct target {
	const struct target_ops *ops;
	char *name;            /* a path or URI, for messages */
	const char *timed_out; /* what ETIMEDOUT means here, in words; or NULL */
	uint64_t size;         /* bytes */
	uint32_t align;        /* offsets and lengths are multiples of this power of two */
	uint32_t mem_align;    /* and so are addresses of this one */
	bool any_size;   /* where the size is no multiple of align, the block at the end is read and
			       written as if it were there: the rest of it reads as zeroes */
	uint32_t atomic; /* bytes that a write replaces at once for every read; 1: none do */
	uint64_t max_len;    /* bytes in one read or write at the most */
	uint64_t max_other;  /* and in any other operation; a multiple of align */
	unsigned max_queues; /* open at once */
	bool readonly;
	bool rotational;
	bool direct; /* the page cache isn't involved */
	bool can_flush;
	bool can_fua;
	bool fua_is_own; /* a FUA write can't succeed while another is told its error: see syncs */
	bool can_trim;
	bool can_zero;
	bool can_fast_zero;
	bool can_extents;
	bool can_cache;
};

/* Fills buf with len bytes at offset, whatever the alignment, by ops->read(). 0 or a negative
 * errno; -EIO beyond the end. */
int target_read(struct target *target, void *buf, size_t len, uint64_t offset);

/* Why an operation on it failed, as error_reason() has it, but in words of its own where it has some.
 * errnum is positive. */
const char *target_reason(const struct target *target, int errnum);

#endif
