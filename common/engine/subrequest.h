/* subrequest: a piece of a request that is in flight on the target on its own. */
#ifndef NDIO_SUBREQUEST_H
#define NDIO_SUBREQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/bvec.h"
#include "engine/request.h"

struct ndio_subrequest {
	struct ndio_subrequest *next; /* in whichever list it is */
	struct ndio_request *request; /* the channel's reference keeps it */

	/* What the target is asked. */
	enum op op;
	unsigned flags; /* REQ_FUA, REQ_MAY_TRIM, REQ_FAST_ZERO, REQ_ASIDE */
	uint64_t start; /* bytes, on the target */
	uint64_t len;   /* bytes; whole blocks for reads and writes */
	void *io_base;  /* the encrypted side: len bytes, contiguous */
	uint8_t *tags;  /* of its sectors, which the target keeps with them; or NULL */
	int64_t result; /* set by the target when it lands */

	/* The target's own; 0 when it is issued. */
	struct subrequest_progress {
		uint64_t arrived; /* of a read: a sum over the chunks that have come */
		uint64_t told;    /* of extents: bytes of which they were told */
		bool written;     /* of a change: what remains is a flush */
	} progress;
	void *wire; /* where it is in flight */

	/* The caller's side. */
	bool reads_block; /* of a partial write, to be changed and written back when it has landed */
	uint64_t offset;  /* on the volume, of the first byte at io_base */
	struct iter iter;
	unsigned lead;           /* bytes at io_base before the first of iter's */
	void *bounce;            /* its piece of the channel's bounce memory, for good */
	bool bounced;            /* io_base is there, and not in the caller's memory */
	uint64_t before, behind; /* bytes: transferred by earlier tries; for later ones */
};

/* Those of a queue that have landed, in the order of their landing. None: all zeroes. */
struct landed {
	struct ndio_subrequest *first, **end;
};

void landed_add(struct landed *landed, struct ndio_subrequest *sub);
struct ndio_subrequest *landed_take(struct landed *landed); /* all, and leaves it empty */

/* For a target that has found an extent, of len bytes, so many bytes behind the subrequest's
 * start: cuts it to what the caller asked for and tells it. 0, or the caller's negative errno.
 */
int subrequest_tell_extent(const struct ndio_subrequest *sub, uint64_t at, uint64_t len,
			   unsigned type);

#endif
