/* pin-input: the PIN of a token that needs one: from a credential of systemd's, or asked for, as passphrases
 * are. */
#ifndef NDIO_PIN_INPUT_H
#define NDIO_PIN_INPUT_H

#include <stdbool.h>

#include "base/error.h"
#include "memory/secret.h"

/* For struct luks_tokens. opaque is unused. One thread at a time. */
int pin_input(void *opaque, const char *token, struct key *pin, struct error *err);

/* The PIN for a token that is to be made: "this TPM (systemd-tpm2)"; asked for twice if it is a new one. At a
 * terminal alone. */
int pin_input_first(const char *token, bool is_new, struct key *pin, struct error *err);

#endif
