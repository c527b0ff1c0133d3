/* inherit: sockets that somebody else has opened for this process. */
#ifndef NDIO_SERVE_INHERIT_H
#define NDIO_SERVE_INHERIT_H

#include "base/listen.h"

/* Those that systemd, or who does as it does, has opened for this process (sd_listen_fds(3)): how many,
 * 0 if there are none, or a negative errno with a message. Once. */
int listen_inherited(struct listener *listeners, size_t max, struct error *err);

#endif
