/* secret: memory for keys and passphrases: locked, not in core dumps, cleansed when freed. */
#ifndef NDIO_SECRET_H
#define NDIO_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

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

/* A passphrase, or what a key file holds. It stays in its place while it grows, so that only what
 * it needs is locked, once: the locked-memory limit may be as low as a few pages. */
struct key {
	void *data;    /* not NULL once it was made, even if the key is empty */
	size_t len;    /* bytes of the key */
	size_t locked; /* bytes from data that can be used, at least len */
	size_t room;   /* bytes of addresses */
};

/* Addresses for a key of up to max bytes, max > 0, with a page of them locked. 0, or a negative
 * errno with a message; key_clear() is due either way. */
int key_make(struct key *key, size_t max, struct error *err);

/* Locks some more, as much as a quarter of what is. -ENOBUFS where there is no more room. */
int key_grow(struct key *key, struct error *err);

/* Lets go of what isn't used behind the key. */
void key_fit(struct key *key);

/* Makes one of these bytes. As key_make(). */
int key_set(struct key *key, const void *data, size_t len, struct error *err);

/* Cleanses and frees. Harmless on a zeroed struct. */
void key_clear(struct key *key);

/* Turns core dumps of this process off (PR_SET_DUMPABLE): OpenSSL's cipher contexts hold the
 * key in its heap. Call before a key is unlocked. Idempotent. */
void secret_no_dumps(void);

/* Turns them off again in a fork's child, where a change of user may have undone it; if they were. */
void secret_after_fork(void);

#endif
