/* unlocking: what the command line says of opening a volume, as the library wants it. */
#ifndef NDIO_UNLOCKING_H
#define NDIO_UNLOCKING_H

#include <stdbool.h>

#include "library/ndio.h"
#include "memory/secret.h"
#include "terminal/unlock.h"

/* With this key; or if it has no data, by the tokens. */
void unlocking_set(const struct unlock_options *how, const struct key *key,
		   struct ndio_options *options);

#endif
