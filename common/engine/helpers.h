/* helpers: threads on other cores that take over chunks of what a thread encrypts or decrypts. */
#ifndef NDIO_HELPERS_H
#define NDIO_HELPERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/cipher.h"
#include "engine/volume.h"

/* Bytes in one piece from which on it's worth to wake a helper. */
#define HELPERS_MIN_LEN (128 * 1024)

struct helpers;

/* One for each core that the process may use now, but no more than 4, and of 4 different cores;
 * none on a single core (or where the kernel counts more than 1024), and then all work is the
 * caller's own. Of a volume with a key, which outlives them. Starts threads: not across a fork.
 * 0, or a negative errno with a message. */
int helpers_open(struct volume *volume, struct helpers **helpers, struct error *err);
void helpers_close(struct helpers *helpers); /* idle; NULL is fine */

/* Calls the volume's cipher_fn with the caller's own cipher, except that a helper may do a part of it
 * at the same time. One caller has help at a time, and by one helper mostly; others
 * work alone, as all do where helpers is NULL. Any thread. */
int helpers_crypt(struct helpers *helpers, cipher_fn *crypt, struct cipher *cipher, uint64_t unit,
		  const void *in, void *out, size_t len, uint8_t *tags);

#endif
