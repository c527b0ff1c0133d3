/* slot: a copy, and the pieces that are on their way through it: what copy.c and the kinds of endpoint
 * share, and nobody else sees. */
#ifndef NDIO_SLOT_H
#define NDIO_SLOT_H

#include <pthread.h>

#include "copy/copy.h"
#include "copy/digest.h"
#include "copy/rate.h"
#include "copy/todo.h"
#include "memory/secret.h"

#define COPY_WINDOW_MAX                                                                            \
	(1024 * 1024 * 1024) /* bytes whose extents are asked for at first, at most */

/* Of a slot's piece that the checksum has to have. */
enum slot_digest {
	DIGEST_NONE, /* no more, or never: zeroes that weren't read */
	DIGEST_WAITS,
	DIGEST_READ,
};

/* A buffer, and the piece of the disk that goes through it. */
struct slot {
	struct copy *copy;
	uint8_t *buffer;    /* copy->piece bytes */
	uint8_t *check;     /* likewise, for what the destination has, if it is compared */
	uint64_t check_len; /* so many bytes of the piece are to be there already */
	uint64_t offset, len;
	bool busy;     /* has a piece that isn't in the destination yet; for ever if that failed */
	bool full;     /* waits for its turn to go to a stream, */
	uint64_t sent; /* which has this many bytes of it */
	bool failed;
	bool zero;    /* it is all zeroes, which weren't read */
	bool written; /* all of it; the checksum may have to have it yet */
	enum slot_digest digest;
	unsigned outstanding; /* writes of it in flight, and one more while they are made */
};

/* Callbacks of the library's threads and the main thread share this, under the lock. It is held
 * while requests are made, so that once stop is set no more can be on their way to a volume
 * that is about to be closed. */
struct copy {
	struct endpoint *src, *dst;
	const struct copy_options *options;
	int wake_fd; /* an eventfd: something happened that the main thread waits for */
	struct secret_buffers buffers, checks;
	size_t sparse; /* bytes; see slot_run_length() */

	pthread_mutex_t lock;
	struct todo todo;   /* what is to be read, from a volume */
	uint64_t asked;     /* extents are known up to here, */
	uint64_t window;    /* this many bytes are asked for next, */
	bool asking;        /* or now */
	uint64_t next;      /* no slot has had what is from here on */
	uint64_t done;      /* bytes */
	unsigned in_flight; /* requests and slots with the library */
	bool stop;
	int error; /* why, and the sentence for it */
	struct error message;
	struct slot *slots;
	unsigned nr_slots;
	uint64_t piece; /* bytes */
	bool resuming;
	bool comparing;   /* only what differs is written */
	uint64_t changed; /* bytes that were, then */
	struct rate rate;
	bool held; /* by it: the main thread starts idle slots when it lets go */
	struct digest digest;
	struct resume resume;

	/* The main thread's own. */
	struct slot *filling;  /* from a stream */
	uint64_t filled;       /* bytes in it */
	bool ended;            /* the stream did */
	struct slot *draining; /* to a stream; its turn has come */
};

/* ---- the lock is held ---- */

/* Something happened that the main thread waits for. */
void copy_wake(struct copy *copy);

/* No more requests are made. The first sentence counts. */
void copy_stop(struct copy *copy, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same of what couldn't be done at an offset of one side. */
void copy_fail(struct copy *copy, int error, const struct endpoint *where, const char *what,
	       uint64_t offset);

/* A request, or a slot on its way, is no more. */
void copy_leave_flight(struct copy *copy);

/* May a piece be taken, as fast as the copy is to be? If not, idle slots are started later. */
bool copy_may_take(struct copy *copy);

/* The source gives each slot that is idle a piece, if it has one. */
void copy_start_idle_slots(struct copy *copy);

/* The piece has been read: the checksum may have it. */
void slot_read(struct slot *slot);

/* The piece is in the destination: the slot gets the next one, when the checksum has had this one. */
void slot_done(struct slot *slot);
void slot_release(struct slot *slot);

/* ---- without the lock ---- */

/* How many bytes of data, which lie at offset on the disk, are all zero, or all to be written as data. */
uint64_t slot_run_length(const uint8_t *data, uint64_t offset, uint64_t len, size_t sparse,
			 bool *zero);

#endif
