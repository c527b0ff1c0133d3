/* token-plugin: tokens that libcryptsetup opens by a plugin of its own, which other packages bring: systemd's
 * for TPMs and security keys. */
#ifndef NDIO_TOKEN_PLUGIN_H
#define NDIO_TOKEN_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "luks/luks-memfd.h"
#include "memory/secret.h"

bool token_plugin_has(const char *type);

/* Opens one of the key slots that the token is assigned to, each of which may be tried: its number, and the
 * volume key, key_len bytes. pin may be NULL. -ENOANO: it needs a PIN, or another one; or another negative
 * errno: why says what is wrong. */
int token_plugin_open(struct luks_memfd *memfd, int number, const char *type, const struct key *pin,
		      void *key, size_t key_len, struct error *why);

#endif
