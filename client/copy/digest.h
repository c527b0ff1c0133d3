/* digest: the checksum of all that a copy reads, in the disk's order, though its pieces come in any.
 *
 * A thread of its own takes the pieces in order: a slot keeps its buffer until its turn has come,
 * and gets its next piece only then. Since pieces are given out in order, what the thread waits for is
 * always on its way; and no more than the copy's slots are ever ahead of it. Whatever lies between
 * two pieces is zeroes that weren't read: they are part of the sum. */
#ifndef NDIO_DIGEST_H
#define NDIO_DIGEST_H

#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct copy;

#define DIGEST_TEXT (2 * EVP_MAX_MD_SIZE + 1)

/* All but the sum itself under the copy's lock. */
struct digest {
	EVP_MD_CTX *sum; /* NULL: none is wanted. The thread's */
	pthread_t thread;
	bool running;
	bool end;               /* it has to */
	pthread_cond_t changed; /* a slot was read, or a piece was given out */
	uint64_t upto;          /* bytes: all below is in the sum */
};

/* Does OpenSSL have this one, "sha256"? */
bool digest_is_known(const char *name);

/* Starts it, and its thread. 0, or a negative errno with a message. Both without the lock. */
int digest_start(struct copy *copy, const char *name, struct error *err);
void digest_stop(struct copy *copy);

/* The lock is held. */
void digest_wake(struct copy *copy);

/* Is everything that was given out in it? The lock is held. */
bool digest_is_done(const struct copy *copy);

/* In hexadecimal, once it has stopped and was done; "" where none was wanted. */
int digest_text(struct copy *copy, char text[DIGEST_TEXT], struct error *err);

#endif
