/* key-try: keys that are tried as soon as they were read, so that a wrong one that was typed can be
 * typed again. */
#ifndef NDIO_KEY_TRY_H
#define NDIO_KEY_TRY_H

#include "base/error.h"
#include "terminal/key-input.h"

/* Tries a key. -EPERM, with a message: it is the wrong one. */
typedef int key_try_fn(void *opaque, const struct key *key, struct error *err);

/* Reads a key as key_read() does, and tries it; one that was asked for up to three times. What the
 * last try returned. The caller ends with key_clear(). */
int key_try(const struct key_source *source, const char *prompt, struct key *key, key_try_fn *try,
	    void *opaque, struct error *err);

/* Tells at the terminal, once, that nothing hangs. */
void key_tell_deriving(void);

#endif
