/* flush: has all that was written to an attached device flushed, as long as there is a server that could
 * do it. */
#ifndef NDIO_FLUSH_H
#define NDIO_FLUSH_H

#include "attach/attachment.h"

/* fd is the device, claimed. 0: what was written before is on the disk. -EBUSY with a message where
 * the server is away, unless nothing waits for it: it isn't waited for. A process that does so may
 * stay behind then, and has the device open, until the server is back or given up. */
int flush_device(const struct attachment *attachment, int fd, struct error *err);

#endif
