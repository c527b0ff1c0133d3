/* header-edit: writes a header that was changed in its memfd back to the volume, in an order
 * that leaves one that opens after a crash at any point. */
#ifndef NDIO_HEADER_EDIT_H
#define NDIO_HEADER_EDIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "header/header-proof.h"
#include "header/header.h"

enum header_change {
	HEADER_ADDED,    /* key slots were only added since the last write */
	HEADER_REMOVED,  /* or only removed */
	HEADER_CHANGED,  /* LUKS2: or one has got another key, in another area */
	HEADER_LABELLED, /* or it has other names, or one of its slots another priority */
	HEADER_RESIZED,  /* or its data another length */
	HEADER_SEALED,   /* or it is sealed anew */
	HEADER_ERASED,   /* or no key slot is left */
	HEADER_RESTORED, /* or all of it may be another: no order leaves one that opens at every moment */
	HEADER_CONVERTED, /* likewise */
	HEADER_NEW,       /* all of it: see header_write_new() */
};

/* Writes what differs from what the volume had: the areas of key slots in use, flush, one copy
 * of the metadata, flush, the other, flush, then the areas no longer in use, flush. (LUKS1 has
 * one copy: when a key was added, the bytes from 512 up come before the first 512; when one
 * was removed, after.) A copy that was found stale comes first, else the first copy does.
 *
 * Before, all that will be written over is read again; -EBUSY, and nothing was written, if it
 * isn't what it was. proof, unless it is NULL, has to open what was written, of LUKS2 while one copy
 * still is as it was: else all is put back. What was written is read again, before the old areas
 * are wiped. Signals wait from here on: deferral_end() is the caller's. A failure's message says
 * what state it leaves.
 *
 * May be called again after the next change. Needs header_load_areas(). */
int header_write_back(struct header *header, enum header_change change,
		      const struct header_proof *proof, struct error *err);

struct header_range {
	uint64_t offset, len; /* bytes */
};

/* Puts a new header where something else may have been: nothing that could be taken for a
 * header is left before the first byte of the new one is written, and of that the beginning
 * comes last. The volume's first end bytes and the nr_wipe ranges, zeroed as well, lose what
 * they had. proof has to open it in the end. Signals wait from here on, as above. */
int header_write_new(struct header *header, uint64_t end, const struct header_range *wipe,
		     size_t nr_wipe, const struct header_proof *proof, struct error *err);

#endif
