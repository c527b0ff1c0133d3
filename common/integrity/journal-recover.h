/* journal-recover: carries out what somebody who was cut off left in a journal, and leaves it empty; for
 * who opens a volume and doesn't keep one himself, or is about to read what is in place. It waits for
 * all that it does. */
#ifndef NDIO_JOURNAL_RECOVER_H
#define NDIO_JOURNAL_RECOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "integrity/layout.h"

/* Places are in bytes of the segment: multiples of 4096, and so are lengths, but those of data, which
 * are whole blocks of the layout. Memory is aligned to 4096 bytes, but that of data to 512. 0, or a
 * negative errno; reason, as error_reason(), says what that means here. */
struct journal_io {
	int (*read)(void *disk, uint64_t at, void *bytes, size_t len);
	int (*write)(void *disk, uint64_t at, const void *bytes, size_t len, bool fua);
	int (*flush)(void *disk);
	const char *(*reason)(void *disk, int errnum);
	void *disk;
	const char *name; /* for messages */
};

/* Has it blocks that may not be in their places? Only entries are read. 1 or 0, or a negative errno with
 * a message. */
int journal_is_left(const struct journal_io *io, const struct layout *layout, struct error *err);

/* Brings them there, and empties it. What was done when it fails, or is cut off, is done again by the next
 * one. 0; or -EIO: it is damaged; or another negative errno; with a message. */
int journal_recover(const struct journal_io *io, const struct layout *layout, struct error *err);

#endif
