/* guard: would a copy destroy something that its source doesn't replace? */
#ifndef NDIO_GUARD_H
#define NDIO_GUARD_H

#include <stdbool.h>

#include "base/error.h"
#include "copy/endpoint.h"

/* Both sides are open and nothing was written. Refuses a destination that holds a LUKS volume, unless
 * the source is one, and one with a file system or a partition table, unless the source has the like:
 * with overwrite, or after a YES at the terminal, it doesn't. A block device that is in use is refused
 * in any case. 0, or a negative errno with a message. */
int guard_destination(struct endpoint *source, struct endpoint *destination, bool overwrite,
		      struct error *err);

#endif
