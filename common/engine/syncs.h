/* syncs: the flushes and FUA operations of a volume, of all its channels: which of them may say
 * that data are safe.
 *
 * All zeroes is a struct syncs in which nothing is under way. */
#ifndef NDIO_SYNCS_H
#define NDIO_SYNCS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct sync {
	/* Called once, by the thread that has seen the end of the last one that it waited for, when
	 * sync_end() had to return false. */
	void (*cleared)(struct sync *sync);
	int error; /* what it has to say, once sync_end() returned true or it is cleared */

	/* Private. */
	uint64_t number; /* in the order in which they began; or, once it waits, the first one that
			    it doesn't wait for */
	struct sync *prev, *next;
};

struct syncs {
	pthread_mutex_t lock;
	struct sync *first, *last; /* under way, oldest first */
	struct sync *first_waiting, *last_waiting;
	uint64_t begun;
	int error; /* of the first that failed, or 0 */
};

void syncs_destroy(struct syncs *syncs); /* nothing under way */

/* What that means to the user. */
#define SYNCS_FAILED "written data may be lost, so no flush succeeds until it is opened anew"

/* What every later one will say: a negative errno, or 0. */
int syncs_error(struct syncs *syncs);

/* Before the target is asked. The struct is the caller's, and stays in place to its end. */
void sync_begin(struct syncs *syncs, struct sync *sync);

/* The target's answer has been seen: 0, or a negative errno. True: sync->error can be told
 * now. False: sync->cleared() tells when; not for one that fails, nor without wait, for one
 * whose success doesn't depend on what others are told. Any thread. */
bool sync_end(struct syncs *syncs, struct sync *sync, int error, bool wait);

#endif
