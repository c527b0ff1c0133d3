/* edges: a volume's first and last MiB in a private memfd, sparse to the volume's size, where libblkid
 * can look at them.
 *
 * A limit on the size of files (ulimit -f) counts for a memfd as well. Where the volume is longer than
 * that, whole MiB are left out in the middle: what lies near either end is there, and as aligned as it
 * was, but the disk seems to be smaller than it says of itself. */
#ifndef NDIO_EDGES_H
#define NDIO_EDGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "header/header.h"

struct edges {
	uint64_t size; /* bytes, of the volume */
	uint64_t len;  /* of the memfd: less only below a limit */
	int fd;        /* -1: there is none */
	bool used;     /* there is something that isn't zero */
};

/* Reads them, of the volume that header_open() opened. edges_close() is due from here on, whatever
 * fails. 0, or a negative errno with a message: -EFBIG where the limit has no room for them. */
int edges_read(struct edges *edges, struct header *header, struct error *err);
void edges_close(struct edges *edges);

/* Are MiB left out? */
bool edges_shortened(const struct edges *edges);

/* Where on the volume is what lies there in the memfd? */
uint64_t edges_offset(const struct edges *edges, uint64_t at);

/* Does the volume have these bytes there? Only the edges are known. */
bool edges_have(const struct edges *edges, const void *bytes, size_t len, uint64_t offset);

#endif
