/* nbd-dial: a socket that is connected to an NBD server. */
#ifndef NDIO_NBD_DIAL_H
#define NDIO_NBD_DIAL_H

#include "base/deadline.h"
#include "base/error.h"
#include "nbd/nbd-uri.h"

/* Tries each address that the host has, until the deadline; finding them may take longer. A TCP
 * connection that is dead for answer_timeout seconds, or in whose middle somebody forgot it, is
 * found out by the kernel. The descriptor, which doesn't block, or a negative errno with a message
 * that has no name before it. */
int nbd_dial(const struct nbd_uri *uri, unsigned answer_timeout, const struct deadline *deadline,
	     struct error *err);

#endif
