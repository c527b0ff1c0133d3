/* lender: channels for callers that block until their request is done (nbdkit's threads). */
#ifndef NDIO_LENDER_H
#define NDIO_LENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/channel.h"

struct lender;

struct lender_options {
	/* Wide ones, in which a large request is in flight as a whole; and, unless there are to be 0,
	 * narrow ones, of one piece each, which cost so little that many threads find one. */
	unsigned wide_channels, narrow_channels;
	struct channel_options wide, narrow;

	/* Of large reads that take turns at the disk; all 0: what suits a disk. */
	struct lender_turns {
		uint64_t depth;    /* bytes that it's asked for at once, see depth.h */
		uint64_t small;    /* reads of so many bytes, or fewer, don't wait for others */
		unsigned patience; /* milliseconds that the others wait, at most */
	} turns;
};

/* 0, or a negative errno with a message. Starts threads: not across a fork. */
int lender_open(struct volume *volume, const struct lender_options *options, struct lender **lender,
		struct error *err);
void lender_close(struct lender *lender); /* nobody borrows; NULL is fine */

/* False where the bounce memory could not be pinned. */
bool lender_is_pinned(const struct lender *lender);

/* Runs a request to its completion in the calling thread, waiting for its range, for its turn
 * if it is a read, and then for a channel. Returns request->error. The caller keeps its
 * reference. Any thread. */
int lender_run(struct lender *lender, struct ndio_request *request);

#endif
