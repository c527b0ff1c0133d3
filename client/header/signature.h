/* signature: does a volume look as if it were in use? Asks libblkid, and looks for anything
 * that isn't zero, in the first and the last MiB. */
#ifndef NDIO_SIGNATURE_H
#define NDIO_SIGNATURE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "header/header-edit.h"

#define SIGNATURES_MAX 16

struct signatures {
	char text[128]; /* "an ext4 file system", "data"; "" where nothing was found */
	struct header_range magic[SIGNATURES_MAX]; /* what makes them be recognized */
	size_t nr_magic;
	bool unsure; /* there are data, of which a limit on the size of files shows too little */
	bool luks;   /* a LUKS volume is among them */
};

/* Looks at the volume that header_open() opened. */
int signatures_find(struct header *header, struct signatures *found, struct error *err);

#endif
