/* journal-act: carries out one of the journal's acts at a time, by several subrequests at once, in
 * one queue of the target below.
 *
 *   READ, WRITE   sections in pieces; a WRITE of several is made durable by one flush behind them
 *   COPY          data from the journal's memory as it lies there; tags through those in memory
 *                 (tags.h): loaded where they aren't, changed, and written as pages
 *   FLUSH         one of those below
 *
 * It takes no lock and doesn't wait; one thread at a time. */
#ifndef NDIO_JOURNAL_ACT_H
#define NDIO_JOURNAL_ACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/subrequest.h"
#include "integrity/below.h"
#include "integrity/journal.h"
#include "integrity/tags.h"

#define ACT_SLOTS 16 /* subrequests at once, of COPY; half of them of others, which are larger */

enum act_slot_state { SLOT_IDLE, SLOT_MOVES, SLOT_LOADS, SLOT_SWEEPS };

struct act_slot {
	struct ndio_subrequest sub; /* first */
	enum act_slot_state state;
	size_t first, count;        /* LOADS: blocks whose tags lie in these: */
	struct tag_chunk *chunk[2]; /* held; the second may be NULL */
	unsigned loading;           /* which of them, to here */
	uint8_t *loaded;
	struct tag_run run; /* SWEEPS */
	uint8_t *bytes;     /* TAG_CHUNK of them, of its own; of COPY only */
};

struct act_run {
	const struct layout *layout;
	struct tags *tags;
	bool tags_are_put;    /* those of COPY's blocks: they are dirty */
	enum journal_act act; /* or JOURNAL_NOTHING: it is idle */
	struct journal_work work;
	uint64_t asked;              /* READ, WRITE: bytes */
	size_t data_done, tags_done; /* COPY: blocks */
	bool flushed;
	int error;                    /* negative: it asks for nothing more */
	unsigned in_flight, nr_slots; /* at the most */
	struct act_slot slots[ACT_SLOTS];
};

/* For acts of this kind. 0 or -ENOMEM. */
int act_run_init(struct act_run *run, const struct layout *layout, struct tags *tags,
		 enum journal_act act);
void act_run_destroy(struct act_run *run); /* idle, or zeroed */

void act_run_begin(struct act_run *run, enum journal_act act, const struct journal_work *work);

/* Asks for as much as there is room for. True: it is over, run->error says how; and idle. */
bool act_run_go_on(struct act_run *run, const struct below *below);

/* Is it one of its subrequests? Then it has landed. */
bool act_run_owns(const struct act_run *run, const struct ndio_subrequest *sub);
void act_run_land(struct act_run *run, const struct below *below, struct ndio_subrequest *sub);

#endif
