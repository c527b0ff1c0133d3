/* secret: memory for keys and passphrases: locked, not in core dumps, cleansed when freed. */
#ifndef NDIO_SECRET_H
#define NDIO_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

/* Zeroed memory of its own pages, pinned (so pin_after_fork() locks it again) and
 * MADV_DONTDUMP. NULL with a message when it can't be had or can't be locked. size > 0. */
void *secret_alloc(size_t size, struct error *err);

/* Cleanses and frees. NULL is fine. size is that of the allocation. */
void secret_free(void *secret, size_t size);

/* Much memory for plaintext that is on its way. */
struct secret_buffers {
	void *base; /* pages of its own, zeroed at first; NULL: none */
	size_t size;
	bool locked;
};

/* Makes size > 0 bytes of it: MADV_DONTDUMP, and locked where the locked-memory limit has room: such
 * buffers are worth having in any case. Where they aren't locked err says why. 0, or a negative errno
 * with a message when they can't be had. */
int secret_buffers_make(struct secret_buffers *buffers, size_t size, struct error *err);

/* Cleanses and frees. Harmless on a zeroed struct. */
void secret_buffers_free(struct secret_buffers *buffers);

/* Turns core dumps of this process off (PR_SET_DUMPABLE): OpenSSL's cipher contexts hold the
 * key in ordinary heap. Call before a key is unlocked. Idempotent. */
void secret_no_dumps(void);

#endif
