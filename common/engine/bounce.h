/* bounce: the memory that channels move data through where the caller's can't be used.
 *
 * Allocated once, pinned if the locked-memory limit allows it and some is left for keys, which come
 * later too and can't do without, and kept out of core dumps.
 * Nothing in it outlives it: it is cleansed. */
#ifndef NDIO_BOUNCE_H
#define NDIO_BOUNCE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "engine/bvec.h"

/* For whoever has some that isn't pinned to tell. */
#define BOUNCE_UNPINNED                                                                            \
	"warning: buffers can't be locked in memory, the limit (ulimit -l) is too low: "           \
	"what passes through them, plaintext too, may be written to swap"

#define BOUNCE_LEAVES ((size_t)256 << 10) /* bytes of the limit that stay free for keys */

struct bounce {
	struct bvec area; /* whole pages */
	bool pinned;      /* false where the locked-memory limit forbids it */
};

/* len bytes, whole pages, of zeroes. With huge it is on huge pages if the kernel gives them: a
 * piece on those is one run of physical memory, so that the disk is told of one run and not of
 * one a page. But a ring that registers a part of a huge page is charged for all of it. 0, or
 * -ENOMEM. That it could not be pinned is no error: see bounce->pinned. */
int bounce_init(struct bounce *bounce, size_t len, bool huge, struct error *err);
void bounce_destroy(struct bounce *bounce); /* harmless on a zeroed struct */

/* The index-th of the shares of len bytes, whole pages, that it divides into. */
struct bvec bounce_share(const struct bounce *bounce, unsigned index, size_t len);

#endif
