/* nbd-link: one connection to an NBD server, by libnbd, with TLS by OpenSSL below it if the URI
 * asks for TLS. */
#ifndef NDIO_NBD_LINK_H
#define NDIO_NBD_LINK_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "nbd/nbd-dial.h"
#include "nbd/nbd-server.h"
#include "nbd/silence.h"
#include "tls/tls.h"

struct nbd_link {
	struct nbd_server *server;
	struct nbd_handle *nbd;
	struct tls *tls; /* or NULL */
	int fd;          /* to the server, for who counts what goes through it; or -1 */
	bool connected;  /* from then on a failure is told */
	bool silent;     /* given up: the server has not answered for too long */
	int64_t now;     /* when it was last looked at, while answers are due */
	struct silence silence;
	struct nbd_watched watched;
};

/* Connects, up to where commands can be sent. Blocks until the deadline at the longest, but for
 * finding the server's address. The server's watch must run. 0, or a negative errno with a message
 * that starts with the URI. */
int nbd_link_open(struct nbd_link **link, struct nbd_server *server, const char *context,
		  const struct deadline *deadline, struct error *err);

/* Ends it, and says so to the server if it still listens. NULL is fine. */
void nbd_link_close(struct nbd_link *link);

/* Can commands be sent? */
bool nbd_link_is_up(const struct nbd_link *link);

/* A command was sent whose data, in either direction, are so many bytes; or its answer came, or it
 * failed. Between the two a server that is silent for too long is given up. */
void nbd_link_asked(struct nbd_link *link, uint64_t bytes);
void nbd_link_answered(struct nbd_link *link, uint64_t bytes);

/* Sends on what libnbd has written. libnbd itself sends at once what its socket takes. */
void nbd_link_submit(struct nbd_link *link);

/* One look at the sockets, asleep for up to so many milliseconds, or if that is negative until
 * something comes or the server is given up. True if wake_fd, unless it is -1, can be read. */
bool nbd_link_look(struct nbd_link *link, int timeout_ms, int wake_fd);

/* Makes libnbd find the connection closed and fail what is in flight. */
void nbd_link_cut(struct nbd_link *link);

/* Of what libnbd said last in this thread: its errno, or EIO. */
int nbd_link_errno(void);

#endif
