/* fence: what a server does so that nothing of a client's old connections is run any more once the
 * client has come back by new ones.
 *
 * A client that survives the loss of its connections gives them all a session, which it has drawn
 * by lot, and an epoch that counts up with each coming back. Both are at the end of the export's
 * name that it asks for (session-name.h). What doesn't end exactly so has no session, and is never
 * fenced.
 *
 *     fence_open -> fence_enter, fence_leave ... (many at once) -> fence_close
 *
 * fence_open() of a newer epoch makes all handles of older ones refuse what comes, and returns
 * when what they run has ended. */
#ifndef NDIO_FENCE_H
#define NDIO_FENCE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "nbd/session-name.h"

struct fence_handle; /* a connection, from its opening on */

struct fences {
	pthread_mutex_t mutex;
	pthread_cond_t changed; /* what fence_open() waits for */
	struct fence_handle *handles;
	char identity[96]; /* who the server is: "ndio VERSION instance=HEX32[ fences]" */
};

#define FENCES_INIT                                                                                \
	{                                                                                          \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER            \
	}

/* By the process that serves: draws the instance by lot, which no other process has. That it fences it
 * tells only if it is the last one before the disk: what a gateway that was killed had sent on may
 * still be run behind it, and the next one's fence knows nothing of that. 0, or a negative errno. */
int fences_identify(struct fences *fences, bool last, struct error *err);

/* Frees the handles that were left open. Nobody may use one any more. */
void fences_clear(struct fences *fences);

/* The session and the epoch at the end of an export's name. False if it has none. */
bool fence_parse(const char *name, uint8_t session[SESSION_ID], uint64_t *epoch);

/* A connection to the export of this name. May block: as long as anything is run that an older
 * epoch of its session has entered, and no longer. 0; or -ESTALE if a newer epoch is known, or
 * becomes known meanwhile; or -ENOMEM. Any thread. */
int fence_open(struct fences *fences, const char *name, struct fence_handle **opened,
	       struct error *err);

/* The same in two steps, for who may not block: fence_begin() fences the older epochs, 0 or -ENOMEM; and
 * what it gives may run requests once fence_ready() is 0. -EAGAIN, without wait: older epochs still run
 * something, so ask again; -ESTALE. Either way it ends with fence_close(). */
int fence_begin(struct fences *fences, const char *name, struct fence_handle **begun,
		struct error *err);
int fence_ready(struct fence_handle *handle, bool wait, struct error *err);

/* Around each request: nothing may be done for it outside of the two. fence_enter() is 0, or
 * -ESHUTDOWN, and then it isn't left, if a newer epoch was opened. Any thread, many at once. */
int fence_enter(struct fence_handle *handle);
void fence_leave(struct fence_handle *handle);

/* When nothing is run any more by this handle. A session is forgotten with the last of its
 * handles: there is nothing then that could be fenced. */
void fence_close(struct fence_handle *handle);

#endif
