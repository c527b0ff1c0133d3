/* header-integrity: makes a new LUKS2 header one of a volume with integrity, and what lies behind it.
 *
 * libcryptsetup formats those only where it has device-mapper, so its header is one without, and
 * the segment is written by ours: the metadata's JSON and its checksum. */
#ifndef NDIO_HEADER_INTEGRITY_H
#define NDIO_HEADER_INTEGRITY_H

#include <stdbool.h>

#include "base/error.h"
#include "header/header.h"

struct header_integrity {
	const char *cipher;        /* "aes-gcm-random" */
	const char *type;          /* "aead", as the segment has it */
	unsigned sector, tag_size; /* bytes */
	bool no_journal;           /* for whoever opens it */
};

/* In the memfd, where the only key slot is 0, and its key no segment's: it becomes that of the only
 * segment, with integrity. 0 or a negative errno with a message. */
int header_add_integrity(struct header *header, const struct header_integrity *integrity,
			 struct error *err);

/* Writes superblock and journal to the volume that data is of, from start, in bytes, to its end; the
 * superblock last. */
int header_write_integrity(struct header *data, const struct header_integrity *integrity,
			   uint64_t start, struct error *err);

#endif
