/* listen: sockets that clients connect to. */
#ifndef NDIO_LISTEN_H
#define NDIO_LISTEN_H

#include <stddef.h>

#include "base/error.h"

#define LISTEN_MAX  16 /* sockets: a host's name may have several addresses */
#define LISTEN_NAME 128

struct listener {
	int fd;                 /* doesn't block */
	char name[LISTEN_NAME]; /* where: "127.0.0.1:10809", a path */
	const char *path;       /* to be unlinked at the end, or NULL */
};

/* A Unix socket. What lies there and is a socket that nobody listens on is replaced. */
int listen_unix(const char *path, struct listener *listener, struct error *err);

/* HOST, HOST:PORT, :PORT, [ADDRESS]:PORT. Without a host: all addresses; without a port: NBD's; port 0:
 * one that is free. How many sockets, or a negative errno with a message. */
int listen_tcp(const char *address, struct listener *listeners, size_t max, struct error *err);

/* Those that systemd, or who does as it does, has opened for this process (sd_listen_fds(3)): how many,
 * 0 if there are none, or a negative errno with a message. Once. */
int listen_inherited(struct listener *listeners, size_t max, struct error *err);

void listen_end(struct listener *listener);

#endif
