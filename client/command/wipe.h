/* wipe: a volume with integrity is written full of zeroes, so that all of it can be read. */
#ifndef NDIO_WIPE_H
#define NDIO_WIPE_H

#include "base/error.h"
#include "memory/key-file.h"

/* With a trust file, or NULL. Shows how far it has come, if stderr is a terminal. 0 or a negative errno with a
 * message. */
int wipe_volume(const char *locator, const struct key *key, const char *trust,
		unsigned answer_timeout, struct error *err);

#endif
