/* asker: the passphrase from another program, which asks somebody for it (ask=). */
#ifndef NDIO_ASKER_H
#define NDIO_ASKER_H

#include "luks/luks.h"

/* value is the descriptor of a socket that keeps packets apart (SOCK_SEQPACKET). It is closed in what
 * is run from now on. NULL with an error told. */
const struct luks_asker *asker_open(const char *value);

/* Nobody will be asked any more. Harmless if nobody was to be. */
void asker_close(void);

#endif
