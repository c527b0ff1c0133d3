/* luks-tokens: opening a header by its tokens, which tell where a passphrase comes from without a person, or
 * with little of one: a Tang server, a TPM, a security key, the kernel's keyring.
 *
 * Only where its user asks for that: a header from the network is hostile, and its tokens say whom we talk to.
 * Kinds are known by name; nothing else is loaded or run. */
#ifndef NDIO_LUKS_TOKENS_H
#define NDIO_LUKS_TOKENS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "luks/luks-json.h"
#include "luks/luks-memfd.h"
#include "luks/luks-slots.h"
#include "memory/secret.h"

#define LUKS_ANY_TOKEN  (-1)
#define LUKS_MAX_TOKEN  31
#define LUKS_TOKEN_WAIT 30 /* seconds */

struct luks_tokens {
	int number; /* the only one that is tried, or LUKS_ANY_TOKEN */
	unsigned
		wait; /* seconds that what holds the passphrase may be silent; 0: LUKS_TOKEN_WAIT */
	/* Makes the PIN of a token: "disk.luks: token 1 (systemd-fido2)". err says why the one before isn't
	 * it; the first time it is empty. 0, or a negative errno with a message: there is none. NULL:
	 * nobody is asked. */
	int (*pin)(void *opaque, const char *token, struct key *pin, struct error *err);
	void *opaque;
};

#define LUKS_TOKEN_ABOUT 128 /* bytes */

/* What the header's JSON says of how a token's passphrase is held, for people: "tang http://host"; or "". */
void luks_token_about(struct json_object *token, char *text, size_t size);

/* The key slots that it is assigned to, a bit each. */
uint32_t luks_token_slots(struct json_object *token);

/* As luks_slots_open(), by pass->tokens in the order of their numbers. -ENOKEY: none opens it; the message
 * says of each why. Blocks, as long as each may be silent. */
int luks_tokens_open(struct luks_memfd *memfd, const struct luks_pass *pass, const char *cipher,
		     void **key, size_t *key_len, struct error *err);

#endif
