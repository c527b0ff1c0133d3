/* source: what is said of the content that a copy moves. */
#ifndef NDIO_SOURCE_H
#define NDIO_SOURCE_H

#include <stddef.h>

#include "copy/endpoint.h"

/* Says what is so of a source that starts with these bytes: that it is ciphertext, or that its
 * partition table won't be found in the destination. */
void source_tell(const struct endpoint *source, const struct endpoint *destination,
		 const void *first, size_t len);

/* Reads them, of a volume, and tells. */
void source_look(struct endpoint *source, const struct endpoint *destination);

#endif
