/* pin-input: the PIN of a token that needs one: from a credential of systemd's, or asked for, as passphrases
 * are. */
#ifndef NDIO_PIN_INPUT_H
#define NDIO_PIN_INPUT_H

#include "base/error.h"
#include "memory/secret.h"

/* For struct luks_tokens. opaque is unused. One thread at a time. */
int pin_input(void *opaque, const char *token, struct key *pin, struct error *err);

#endif
