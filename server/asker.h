/* asker: the passphrase from another program, which asks somebody for it (ask=). */
#ifndef NDIO_ASKER_H
#define NDIO_ASKER_H

#include "base/error.h"
#include "luks/luks.h"

/* Whether the descriptor is a socket that keeps packets apart (SOCK_SEQPACKET). It is closed in what
 * is run from now on. 0, or a negative errno with a message. */
int asker_check(int fd, struct error *err);

/* Sends a packet with err's text and a newline, and receives one with a passphrase and a newline: for a
 * struct luks_asker, whose opaque points to the descriptor. */
int asker_ask(void *opaque, struct key *key, struct error *err);

#endif
