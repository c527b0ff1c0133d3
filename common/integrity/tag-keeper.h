/* tag-keeper: a thread that sweeps (tag-sweep.h) when many tags are dirty, with a queue of its own, so that no queue
 * with requests stands still for that.
 *
 *   (no thread) --many are dirty--> SLEEPS <--> SWEEPS --the last queue is closed--> (no thread)
 *
 * It is there only where the target below has queues to spare (a file). Where it isn't, whoever finds many dirty
 * sweeps himself. Flushes sweep by themselves, all the same, and so does who can't write any more for all that is
 * dirty. What fails stays dirty, and is tried when somebody asks again. */
#ifndef NDIO_TAG_KEEPER_H
#define NDIO_TAG_KEEPER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "integrity/tag-sweep.h"

#define KEEPER_DEPTH 16 /* subrequests at once */

struct tag_keeper {
	struct tag_sweep *all;
	struct below below; /* its queue: of the thread */
	struct tag_sweeper sweeper;
	pthread_t thread;

	atomic_bool asked; /* and it hasn't begun since */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	unsigned nr_users;
	bool there, ending, refused; /* the thread; it is to go; there is none to be had */
};

/* What it points to stays. start: bytes, of the segment. */
void tag_keeper_init(struct tag_keeper *keeper, struct tag_sweep *all, struct target *below,
		     uint64_t start);
void tag_keeper_destroy(struct tag_keeper *keeper); /* no users; harmless on a zeroed struct */

/* A queue is there, or goes: with the last one the thread does, when it has ended what it was at. */
void tag_keeper_enter(struct tag_keeper *keeper);
void tag_keeper_leave(struct tag_keeper *keeper);

/* Many are dirty. False: there is no thread for that. */
bool tag_keeper_ask(struct tag_keeper *keeper);

#endif
