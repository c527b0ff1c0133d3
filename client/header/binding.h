/* binding: a volume bound to what opens it without a person: a token in its LUKS2 header, and a key slot that
 * opens with what that tells. As clevis and systemd-cryptenroll do it, whose programs make the tokens, and
 * which understand them; but in the memfd, so that a remote header is edited as carefully as any.
 *
 * Clevis is run before the header is locked: it waits for a server. What seals to a TPM needs the volume key,
 * and is run on the memfd. */
#ifndef NDIO_BINDING_H
#define NDIO_BINDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "header/header.h"
#include "header/kdf.h"
#include "memory/secret.h"

struct binding {
	const struct binding_kind *kind; /* set by binding_take() */
	const char *what, *config;       /* its operands, or NULL */
	const char *thumbprint;    /* of the signing key that a Tang server has to have; or NULL */
	bool trust;                /* whatever key it has */
	const char *pcrs;          /* that a TPM seals to: "7+11"; or NULL: as systemd likes */
	bool with_pin;             /* a TPM wants one besides */
	unsigned wait;             /* seconds that one may be silent, or 0 */
	struct key pass;           /* what is held; made by binding_prepare() */
	struct key pin;            /* likewise, of a TPM or smart card; or there is none */
	struct json_object *token; /* likewise; or NULL: it is made by binding_add() */
};

/* Takes "tang URL", "tpm2", "pkcs11 URI", "keyring DESCRIPTION" or "clevis PIN CONFIG". NULL, or what is wrong. */
const char *binding_take(struct binding *binding, int count, char **operands);

/* Makes what can be made without the volume. May ask at the terminal whether a server is trusted, or for a PIN.
 * binding_clear() is due either way. 0, or a negative errno with a message. */
int binding_prepare(struct binding *binding, struct error *err);
void binding_clear(struct binding *binding);

/* For struct luks_tokens, with the binding as opaque: the PIN that was asked for, and then others. */
int binding_pin(void *opaque, const char *token, struct key *pin, struct error *err);

/* Adds the key slot (slot, or CRYPT_ANY_SLOT) and the token to the memfd. The token's number, or a negative errno
 * with a message; then what is in the memfd is of no use. */
int binding_add(struct binding *binding, struct header *header, const void *volume_key,
		size_t key_len, const struct kdf_options *kdf, int slot, struct error *err);

/* The key slots that go with a token, a bit each: those that are its alone, and of which nobody knows the
 * passphrase. -ENOENT: there is no such token. */
int binding_slots(struct header *header, int token, uint32_t *slots, struct error *err);

/* Removes it and these slots from the memfd. */
int binding_remove(struct header *header, int token, uint32_t slots, struct error *err);

#endif
