/* journal-replay: what a dm-integrity journal that is found on a disk means: which of its sections
 * are to be carried out, and how it goes on; the decision is the kernel's.
 *
 * The ring was written section by section, with a sequence number that goes up by one, mod 4, at each
 * wrap. Whoever crashed was about to write behind the newest section, perhaps several in one go, in
 * no order. So the newest number begins at section 0, the one before it goes on behind it:
 *
 *   section  0 1 2 3 4 5 6 7        "last" is 2, "wanted" is 1: taken are 3 to 7, then 0 to 2.
 *   number   2 2 2 1 1 1 1 1
 *
 * Taken are sections all of whose sectors have the number that is due there; the first other ends
 * it: what is behind it was never acknowledged. It does no harm that most of them have been in place
 * for long: all that is newer is carried out as well, behind them.
 *
 * If all are taken, the ring goes on as it is. Else it is erased: all sections unused, with a number
 * that makes that clear after another crash too.
 *
 * The journal is shown section by section, in order, once; what is remembered doesn't grow with it. */
#ifndef NDIO_JOURNAL_REPLAY_H
#define NDIO_JOURNAL_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "integrity/journal-section.h"
#include "integrity/layout.h"

struct journal_replay {
	const struct layout *layout;
	uint32_t seen;            /* sections */
	bool empty;               /* no entry was used so far */
	bool damaged;             /* a sector has no commit id: */
	uint32_t damaged_section; /* the first of them */
	unsigned damaged_sector;
	struct {
		bool occurs;
		uint32_t last;   /* section that has a sector with it */
		uint32_t behind; /* sections that follow it, all of the number before */
		bool ended;      /* something else came */
		uint32_t prefix; /* sections from 0 on, all of this number */
	} seqs[JOURNAL_SEQS];
};

/* What is to be done with it. */
struct journal_plan {
	uint32_t start;     /* the first section to be taken, */
	unsigned seq;       /* its number, */
	uint32_t take;      /* and how many, going round: those at the start have the next number */
	bool erase;         /* then; first section `start`, the one before it last */
	unsigned erase_seq; /* with this */
	uint32_t next;      /* where writing goes on, */
	unsigned next_seq;  /* with this */
};

void journal_replay_init(struct journal_replay *replay, const struct layout *layout);

/* The next section: from 0 to layout->sections - 1. */
void journal_replay_see(struct journal_replay *replay, const uint8_t *bytes);

/* When all were seen. 0; or -EIO with a message: a sector has no commit id, or all numbers occur,
 * which no crash does. Then it isn't known what was acknowledged, and the kernel fails all requests.
 * name is the disk's. */
int journal_replay_decide(const struct journal_replay *replay, const char *name,
			  struct journal_plan *plan, struct error *err);

/* The i-th section of those taken, i < plan->take, and its number. */
uint32_t journal_plan_section(const struct journal_plan *plan, const struct layout *layout,
			      uint32_t i, unsigned *seq);

#endif
