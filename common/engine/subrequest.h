/* subrequest: a piece of a request that is in flight on the target on its own. */
#ifndef NDIO_SUBREQUEST_H
#define NDIO_SUBREQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/bvec.h"
#include "engine/request.h"

struct target_queue;

struct ndio_subrequest {
	struct ndio_subrequest *next; /* in whichever list it is */
	struct ndio_request *request; /* the channel's reference keeps it */

	/* What the target is asked. A partial write is a read first, then a write. */
	enum op op;
	unsigned flags;  /* REQ_FUA, REQ_MAY_TRIM, REQ_FAST_ZERO */
	uint64_t start;  /* bytes, on the target */
	uint64_t len;    /* bytes; whole blocks for reads and writes */
	void *io_base;   /* the encrypted side: len bytes, contiguous */
	int64_t result;  /* set by the target when it lands */
	uint64_t own;    /* the target's own; 0 when it is issued */
	struct target_queue *queue; /* likewise: where it is in flight */

	/* The caller's side. */
	uint64_t offset; /* on the volume, of the first byte at io_base */
	struct iter iter;
	unsigned lead;   /* bytes at io_base before the first of iter's */
	bool partial;    /* a block read, changed and written back */
	void *bounce;    /* the pool's piece that io_base is in, or NULL */
	uint64_t landed; /* bytes transferred by earlier tries */
};

/* For a target that has found an extent, of len bytes, so many bytes behind the subrequest's
 * start: cuts it to what the caller asked for and tells it. 0, or the caller's negative errno. */
int subrequest_tell_extent(const struct ndio_subrequest *sub, uint64_t at, uint64_t len,
			   unsigned type);

#endif
