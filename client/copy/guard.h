/* guard: what a copy looks at before it writes: would it destroy something that the source doesn't
 * replace? And what it says of the content that it moves. */
#ifndef NDIO_GUARD_H
#define NDIO_GUARD_H

#include <stdbool.h>
#include <stddef.h>

#include "copy/endpoint.h"
#include "base/error.h"

#define GUARD_FIRST 8192 /* bytes at the source's start that guard_tell() looks at */

/* Both sides are open and nothing was written. Refuses a destination that holds a LUKS volume, unless
 * the source is one, and one with a file system or a partition table, unless the source has the like:
 * with overwrite, or after a YES at the terminal, it doesn't. A block device that is in use is refused
 * in any case. 0, or a negative errno with a message. */
int guard_destination(struct endpoint *source, struct endpoint *destination, bool overwrite,
		      struct error *err);

/* Says what is so of a source that starts with these bytes: that it is ciphertext, or that its
 * partition table won't be found in the destination. */
void guard_tell(const struct endpoint *source, const struct endpoint *destination, const void *first,
		size_t len);

/* Reads them, of a volume, and tells. */
void guard_look(struct endpoint *source, const struct endpoint *destination);

#endif
