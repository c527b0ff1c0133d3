/* bounce: the memory that channels move data through where the caller's can't be used.
 *
 * Allocated and pinned once, kept out of core dumps, and on huge pages where the kernel gives
 * them: a piece on those is one run of physical memory, so that the disk is told of one run and
 * not of one a page. Nothing in it outlives it: it is cleansed. */
#ifndef NDIO_BOUNCE_H
#define NDIO_BOUNCE_H

#include <stdbool.h>
#include <stddef.h>

#include "bvec.h"
#include "error.h"

struct bounce {
	struct bvec area; /* whole pages */
	bool pinned;      /* false where the locked-memory limit forbids it */
};

/* len bytes, whole pages, of zeroes. 0, or -ENOMEM. That it could not be pinned is no error: see
 * bounce->pinned. */
int bounce_init(struct bounce *bounce, size_t len, struct error *err);
void bounce_destroy(struct bounce *bounce); /* harmless on a zeroed struct */

/* The index-th of the shares of len bytes, whole pages, that it divides into. */
struct bvec bounce_share(const struct bounce *bounce, unsigned index, size_t len);

#endif
