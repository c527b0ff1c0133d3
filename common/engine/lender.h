/* lender: a fixed number of channels, each lent to one thread at a time, for callers that block
 * until their request is done (nbdkit's threads). Whoever comes while none is left waits in
 * turn, and so do reads while the target has enough of them. */
#ifndef NDIO_LENDER_H
#define NDIO_LENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/channel.h"

struct lender;

struct lender_options {
	unsigned channels;
	struct channel_options channel;
	uint64_t read_depth; /* bytes that the target is asked for at once (depth.h), or 0 */
	uint64_t small_read; /* but reads of so many bytes, or fewer, don't wait for others */
	unsigned patience;   /* milliseconds that the others wait, at most */
	bool helped;         /* large pieces of a volume with a key: see helpers.h */
};

/* NULL with a message, and *errnum the positive errno. */
struct lender *lender_open(struct volume *volume, const struct lender_options *options,
			   int *errnum, struct error *err);
void lender_close(struct lender *lender); /* nobody borrows; NULL is fine */

/* False where the bounce memory could not be pinned. */
bool lender_is_pinned(const struct lender *lender);

/* Would one of its channels send the request as a single subrequest? Then channels with more or
 * larger pieces would be no use to it. */
bool lender_suits(const struct lender *lender, const struct ndio_request *request);

/* Runs a request to its completion in the calling thread, waiting for its range, for its turn if
 * it is a read, and then for a channel. Returns request->error. The caller keeps its reference.
 * Any thread. */
int lender_run(struct lender *lender, struct ndio_request *request);

#endif
