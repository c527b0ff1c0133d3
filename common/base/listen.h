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

/* HOST, HOST:PORT, :PORT, [ADDRESS]:PORT. Without a host: all addresses; without a port: this one, or
 * it is an error if that is NULL; port 0: one that is free. How many sockets, or a negative errno with
 * a message. */
int listen_tcp(const char *address, const char *port, struct listener *listeners, size_t max,
	       struct error *err);

/* Names one that is open, by the address that it has. */
void listen_name(struct listener *listener);

void listen_end(struct listener *listener);

/* Shuts down every socket of this process that somebody listens at, whoever opened it. */
void listen_refuse_all(void);

#endif
