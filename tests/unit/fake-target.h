/* fake-target: a target in memory that does what a real one may: subrequests land late, out of
 * order, short or with an error. It checks what it is asked, remembers it, and makes volumes
 * around itself. */
#ifndef NDIO_TESTS_FAKE_TARGET_H
#define NDIO_TESTS_FAKE_TARGET_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/channel.h"
#include "engine/request.h"
#include "engine/target.h"
#include "engine/volume.h"

#define FAKE_EVENTS   4096
#define FAKE_FAILURES 2
#define FAKE_QUEUES   16

/* Every write's plaintext may carry this, and no bounce memory of an encrypted volume may. */
#define FAKE_MARKER     "plaintext marker"
#define FAKE_MARKER_LEN 16

enum fake_order {
	FAKE_IN_ORDER,
	FAKE_REVERSED, /* of those in flight, the one that was issued last lands first */
	FAKE_RANDOM,
};

enum fake_event_kind {
	FAKE_ISSUE,
	FAKE_SUBMIT,
	FAKE_POLL,
	FAKE_LAND,
};

struct fake_event {
	enum fake_event_kind kind;
	/* Of the subrequest, as it was then, for FAKE_ISSUE and FAKE_LAND. */
	const struct ndio_request *request;
	enum op op;
	unsigned flags;
	uint64_t start, len;
	const void *io_base;
	int64_t result;
};

struct fake_target {
	struct target target;
	uint8_t *bytes;                /* all of it, target.size long */
	uint64_t data_start, data_end; /* nothing outside may be asked for */

	/* How it behaves. Change it only while nothing is in flight. */
	enum fake_order order;
	bool linger;  /* a poll lands some of what is in flight, as few as it may; else all */
	bool shorten; /* reads and writes transfer less than asked, in multiples of align */
	bool yield;   /* give other threads a chance in each poll */
	void (*in_poll)(void); /* called by each poll before anything lands; may be NULL */
	struct fake_failure {
		unsigned at; /* 1: the next subrequest to be issued. 0: none. */
		int error;   /* negative */
	} fail[FAKE_FAILURES];
	bool secret; /* look for the marker in what is written */

	/* What it saw. */
	pthread_mutex_t lock;
	unsigned random;
	unsigned issued, writes, fua_writes, flushes; /* flushes: those that landed */
	unsigned max_in_flight;                       /* in one queue */
	struct bvec bounce;                           /* that the last queue was opened with */
	struct fake_event events[FAKE_EVENTS];        /* the first so many */
	unsigned nr_events;
	unsigned violations;
	char violation[256]; /* the first one */
	struct target_queue *queues[FAKE_QUEUES];
};

struct fake_options {
	const char *cipher;   /* NULL: not encrypted */
	unsigned sector;      /* of the cipher */
	unsigned align;       /* of the target */
	unsigned mem_align;   /* 0: 1 */
	unsigned max_len;     /* 0: a mebibyte */
	uint64_t size;        /* of the volume */
	uint64_t data_offset; /* on the target; there is as much room after the volume */
	uint64_t iv_offset;   /* 512-byte units */
};

/* A volume that can do everything, on a new fake target full of noise. volume_close() frees
 * both. *fake is its target. The calling test fails if it can't be had. */
struct volume *fake_volume(const struct fake_options *options, struct fake_target **fake);

/* Makes the volume hold these bytes, volume->size of them. */
void fake_fill(struct volume *volume, const void *plain);

/* The calling test fails unless the volume holds exactly these bytes, each sector encrypted on
 * its own, and nothing around it has changed. */
void fake_assert_holds(struct volume *volume, const void *plain);

/* The calling test fails if the target was ever asked for something that it may not be. */
void fake_assert_obeyed(struct fake_target *fake);

/* assert_memory_equal(), fast where nothing differs. */
void fake_assert_same(const void *a, const void *b, size_t len);

/* Forgets the events and counts. */
void fake_forget(struct fake_target *fake);

/* Subrequests in flight, of one request or (NULL) of all. Only while no other thread drives. */
unsigned fake_in_flight(struct fake_target *fake, const struct ndio_request *request);

/* Is the marker in the bounce memory of the last queue? */
bool fake_marker_in_bounce(const struct fake_target *fake);

/* Noise, with the marker every 64 bytes. */
void fake_noise(void *buf, size_t len, unsigned *seed);

/* Starts a request with a reference for the channel. One round of the channel, which sleeps with wait
 * unless a request has ended before. */
void fake_start(struct channel *channel, struct ndio_request *request);
void fake_drive(struct channel *channel, bool wait, int wake_fd);

/* Runs one request to its end in the calling thread. Its error. The caller keeps its own
 * reference. */
int fake_run(struct channel *channel, struct ndio_request *request);

#endif
