/* nbd-dial: a socket that is connected to an NBD server. */
#ifndef NDIO_NBD_DIAL_H
#define NDIO_NBD_DIAL_H

#include <stdint.h>

#include "error.h"
#include "nbd-uri.h"

/* Tries each address that the host has, until the deadline (of clock_ms()); finding them may take
 * longer. The descriptor, which doesn't block, or a negative errno with a message that has no
 * name before it. */
int nbd_dial(const struct nbd_uri *uri, int64_t deadline, struct error *err);

/* Makes room in a Unix socket for a large write, so that who sends it doesn't wait for who receives
 * it; the kernel may give less (net.core.wmem_max). nbd_dial() has done it; a TCP socket's room
 * grows by itself. */
void nbd_make_room(int fd);

/* Waits for one of these events of poll(2), until the deadline. 0, or -ETIMEDOUT. */
int nbd_wait(int fd, short events, int64_t deadline);

#endif
