/* worker: a thread that owns a channel and runs the requests that others hand to it.
 *
 * One whose way to the target is lost gets no more of them, and hands on what it hasn't begun,
 * as long as another's is there. */
#ifndef NDIO_WORKER_H
#define NDIO_WORKER_H

#include "engine/channel.h"

struct workers;

/* Starts up to count workers: fewer where the target takes fewer queues. after_round, unless
 * it is NULL, is called on each worker's thread whenever it has called done() for all that had
 * landed, so that these can be told together. 0, or a negative errno with a message. Starts
 * threads: not across a fork. */
int workers_open(struct volume *volume, unsigned count, const struct channel_options *options,
		 void (*after_round)(void), struct workers **workers, struct error *err);

/* Waits until every request has completed; with cancel those that aren't done are failed with
 * -ECANCELED instead, and still complete once. No more may be submitted. Not to be called
 * from a request's done(). NULL is fine. */
void workers_close(struct workers *workers, bool cancel);

/* How many there are. */
unsigned workers_count(const struct workers *workers);

/* False where the bounce memory could not be pinned. */
bool workers_are_pinned(const struct workers *workers);

/* Hands a request over, and takes REF_CHANNEL for it; returns at once. request->done() is
 * called on the worker's thread, where it may submit more but must not wait. Any thread. */
void workers_submit(struct workers *workers, struct ndio_request *request);

/* The same, and waits for the completion. Returns request->error. Uses request->done. */
int workers_run(struct workers *workers, struct ndio_request *request);

#endif
