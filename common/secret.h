/* secret: memory for keys and passphrases: locked, not in core dumps, cleansed when freed. */
#ifndef NDIO_SECRET_H
#define NDIO_SECRET_H

#include <stddef.h>

#include "error.h"

/* Zeroed memory of its own pages, pinned (so pin_after_fork() locks it again) and
 * MADV_DONTDUMP. NULL with a message when it can't be had or can't be locked. size > 0. */
void *secret_alloc(size_t size, struct error *err);

/* Cleanses and frees. NULL is fine. size is that of the allocation. */
void secret_free(void *secret, size_t size);

/* Turns core dumps of this process off (PR_SET_DUMPABLE): OpenSSL's cipher contexts hold the
 * key in ordinary heap. Call before a key is unlocked. Idempotent. */
void secret_no_dumps(void);

#endif
