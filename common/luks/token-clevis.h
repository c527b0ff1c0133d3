/* token-clevis: what clevis has bound to a LUKS header: a passphrase, encrypted as a JWE (RFC 7516) to what a
 * Tang server, a TPM, or some of several of these (SSS) hold. Clevis' own programs decrypt and encrypt it.
 *
 * A header is hostile: it says which server is asked. Nothing of it gets to another program but the JWE, as
 * its standard input, of the letters that such a one has. */
#ifndef NDIO_TOKEN_CLEVIS_H
#define NDIO_TOKEN_CLEVIS_H

#include <stddef.h>

#include "base/error.h"
#include "memory/secret.h"

struct json_object;

#define CLEVIS_PASSPHRASE_MAX 1024 /* bytes; clevis makes some 44 */

/* How it is held, for people: "tang http://host", "tpm2"; or "". */
void token_clevis_about(struct json_object *token, char *text, size_t size);

/* Decrypts the passphrase. 0, or a negative errno and why not. key_clear() is due either way. */
int token_clevis_open(struct json_object *token, unsigned ms, struct key *pass, struct error *why);

#endif
