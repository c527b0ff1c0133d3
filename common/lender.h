/* lender: a fixed number of channels, each lent to one thread at a time, for callers that block
 * until their request is done (nbdkit's threads). Whoever comes while none is left waits in
 * turn. */
#ifndef NDIO_LENDER_H
#define NDIO_LENDER_H

#include "channel.h"

struct lender;

/* Opens count channels. NULL with a message, and *errnum the positive errno. */
struct lender *lender_open(struct volume *volume, unsigned count,
			   const struct channel_options *options, int *errnum,
			   struct error *err);
void lender_close(struct lender *lender); /* nobody borrows; NULL is fine */

/* False where the bounce memory could not be pinned. */
bool lender_is_pinned(const struct lender *lender);

/* Would one of its channels send the request as a single subrequest? Then channels with more or
 * larger pieces would be no use to it. */
bool lender_suits(const struct lender *lender, const struct ndio_request *request);

/* Runs a request to its completion in the calling thread, waiting for its range and then for
 * a channel. Returns request->error. The caller keeps its reference. Any thread. */
int lender_run(struct lender *lender, struct ndio_request *request);

#endif
