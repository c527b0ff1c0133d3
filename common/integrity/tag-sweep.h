/* tag-sweep: writes dirty tags (tags.h) to where they belong; with a trust file, in the steps that areas.h has.
 *
 * One queue at a time sweeps, in its own thread, by its own connection or ring: it has the turn, the only mutex
 * under which there is I/O. Who wants it while another has it is told so, and goes on with his own queue
 * meanwhile: the other's I/O may need that. What else of the queue's lands while it sweeps is kept for the
 * caller. Where a sweep fails, what it didn't write is dirty as before, and the next one tries. */
#ifndef NDIO_TAG_SWEEP_H
#define NDIO_TAG_SWEEP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/notice.h"
#include "engine/subrequest.h"
#include "integrity/areas.h"
#include "integrity/below.h"
#include "integrity/tags.h"

#define SWEEP_DEPTH 4 /* subrequests at once, in a queue that has more than one for others, too */

/* Of all queues of a target together. */
struct tag_sweep {
	struct tags *tags;
	struct areas *areas; /* or NULL: there is no trust file */
	const struct notice *notice;
	bool flushes; /* below can, and has something to */
	pthread_mutex_t turn;
	uint8_t *batch; /* with the turn: pages that are written after one sync of the trust file */
	bool told;      /* the same: what is wrong with the file */
	bool unwritten; /* the same: tags that were intended, by an error */
	int flush_error;    /* the same: of a flush by a sweep */
	atomic_bool wanted; /* who wanted the turn last didn't get it */
};

/* A run of dirty pages on its way; or, without a chunk, a flush behind them. */
struct sweep {
	struct ndio_subrequest sub;
	struct tag_run run;
	uint8_t *bytes;
	bool busy;
};

/* One of its queues. */
struct tag_sweeper {
	struct tag_sweep *all;
	const struct below *below;
	struct sweep *sweeps; /* as many as: */
	unsigned depth, nr_sweeping;
	int error;
};

/* What it points to stays. 0 or -ENOMEM. */
int tag_sweep_init(struct tag_sweep *all, struct tags *tags, struct areas *areas,
		   const struct notice *notice, bool flushes);
void tag_sweep_destroy(struct tag_sweep *all); /* harmless on a zeroed struct */

/* By so many subrequests at once. False: no memory; close it all the same. */
bool tag_sweeper_open(struct tag_sweeper *sweeper, struct tag_sweep *all, const struct below *below,
		      unsigned depth);
void tag_sweeper_close(struct tag_sweeper *sweeper); /* harmless on a zeroed struct */

/* Writes all that is dirty when it begins. flush, with a trust file: and what was flushed below is what counts alone. What
 * else landed is put before *late. *ret: 0, or a negative errno. False: another has the turn. */
bool tag_sweep_try(struct tag_sweeper *sweeper, bool flush, struct ndio_subrequest **late,
		   int *ret);

/* The same in a queue that has nothing else, when the turn is free. What fails is dirty all the same. */
void tag_sweep_wait(struct tag_sweeper *sweeper);

#endif
