/* token-keyring: a passphrase that lies in the kernel's keyring, as a key of type "user", under a description
 * that the LUKS header has (cryptsetup's "luks2-keyring"). */
#ifndef NDIO_TOKEN_KEYRING_H
#define NDIO_TOKEN_KEYRING_H

#include <stddef.h>

#include "base/error.h"
#include "memory/secret.h"

struct json_object;

/* The description, for people; or "". */
void token_keyring_about(struct json_object *token, char *text, size_t size);

/* Looks for it in the keyrings of the calling thread, its process and its session. 0, or a negative errno and
 * why not. key_clear() is due either way. */
int token_keyring_open(struct json_object *token, struct key *pass, struct error *why);

#endif
