/* key-try: keys that are tried as soon as they were read, so that a wrong one that was typed can be
 * typed again. */
#ifndef NDIO_KEY_TRY_H
#define NDIO_KEY_TRY_H

#include "base/error.h"
#include "terminal/key-input.h"
#include "terminal/unlock.h"

/* Tries a key. -EPERM, with a message: it is the wrong one. Without data it is for tokens: -ENOKEY with a
 * message: none of them opens it. */
typedef int key_try_fn(void *opaque, const struct key *key, struct error *err);

/* Reads a key as key_read() does, and tries it; one that was asked for up to three times. What the
 * last try returned. If tokens are to be tried (how may be NULL: none), they come first. The caller ends
 * with key_clear(). */
int key_try(const struct key_source *source, const struct unlock_options *how, const char *prompt,
	    struct key *key, key_try_fn *try, void *opaque, struct error *err);

/* Tells at the terminal, once, that nothing hangs. */
void key_tell_deriving(void);

#endif
