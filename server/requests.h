/* requests: one of a client's, from its callback to its end. */
#ifndef NDIO_REQUESTS_H
#define NDIO_REQUESTS_H

#include "engine/request.h"
#include "nbd/fence.h"

/* Of this connection. buf and extent are NULL where op has none. 0, or -1 with nbdkit's error set.
 * Any thread. */
int requests_run(struct fence_handle *handle, enum op op, unsigned flags, uint64_t offset,
		 uint32_t count, void *buf, extent_fn *extent, void *opaque);

#endif
