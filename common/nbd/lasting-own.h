/* lasting-own: what the two files of lasting share. */
#ifndef NDIO_LASTING_OWN_H
#define NDIO_LASTING_OWN_H

#include <pthread.h>
#include <stdatomic.h>

#include "nbd/lasting.h"
#include "nbd/session-memory.h"

/* A link's place. Under the lock. */
struct seat {
	struct target_queue *queue; /* whose it is; NULL: nobody looks after it */
	int nudge_fd;               /* wakes that queue */
	struct nbd_link *fresh;     /* connected, and not yet its queue's */
};

struct lasting {
	struct lasting_options options;

	pthread_mutex_t lock; /* of all that follows, and around every call to the session */
	pthread_cond_t changed;
	struct session session;
	struct session_memory memory;
	struct seat seat[SESSION_LINKS];
	struct error why; /* the last connection was lost, without a name */

	/* Of the thread that dials. */
	pthread_t thread;
	unsigned nr_queues; /* it runs while there are any */
	bool stop;
	int64_t asleep_until;          /* of clock_ms(); INT64_MIN: it is awake */
	int64_t hurry_at;              /* until when a lost server is waited for, or INT64_MAX */
	uint64_t dial_epoch;           /* what it dials for, or 0 */
	atomic_bool dial_over;         /* what it dials is to be no more */
	unsigned refused;              /* so often in a row, by TLS */
	int64_t lost_at;               /* what was told of last */
	uint64_t replayed, sent_again; /* when it was told of last */
};

/* With the lock held. The queue finds that it has something to do, if the seat has one; all that have
 * are told so, but for that of the link `own`, which may be SESSION_LINKS. True: there is something
 * to do for a link without a queue. */
void lasting_nudge(const struct seat *seat);
bool lasting_wake(struct lasting *lasting, unsigned own);

/* With the lock held: nothing that was sent on it lands any more. One that isn't needed any more is told
 * goodbye, and what is in doubt is reset. */
void lasting_end_link(const struct lasting *lasting, struct nbd_link *link);

/* With the first queue, and the last. 0, or a negative errno with a message. */
int lasting_start_dialling(struct lasting *lasting, struct error *err);
void lasting_stop_dialling(struct lasting *lasting);

#endif
