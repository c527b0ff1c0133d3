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
#include "nbd/session-name.h"
#include "nbd/silence.h"
#include "tls/tls.h"

/* Who is behind a connection, as far as he says. */
struct nbd_identity {
	bool has_instance, fences;
	uint8_t instance[SESSION_ID];
};

struct nbd_link {
	struct nbd_server *server;
	struct nbd_handle *nbd;
	struct tls *tls; /* or NULL */
	int fd;          /* to the server, for who counts what goes through it; or -1 */
	int nudge_fd;    /* what ends a look as well when it can be read, or -1; its owner's */
	bool nudged;     /* it did */
	bool connected;  /* from then on a failure is told */
	bool silent;     /* given up: the server has not answered for too long */
	const atomic_bool
		*stop; /* an answer isn't waited for any more when this is true; or NULL */
	int64_t now;   /* when it was last looked at, while answers are due */
	struct silence silence;
	struct nbd_watched watched;
	struct nbd_identity identity;
	int refused; /* what its server said to the last option: a positive errno, or 0 */
	struct error why_refused;
};

/* Connects, up to where commands can be sent. With an epoch, it is a connection of the server's
 * session, and identity is asked for; 0: of none. Blocks until the deadline at the longest, but for
 * finding the server's address. The server's watch must run. 0, or a negative errno with a message
 * that starts with the URI. */
int nbd_link_open(struct nbd_link **link, struct nbd_server *server, const char *context,
		  uint64_t epoch, const struct deadline *deadline, struct error *err);

/* Ends it, and says so to the server if it still listens. NULL is fine. */
void nbd_link_close(struct nbd_link *link);

/* Ends it at once, so that the server gets an error for what it sends, and is not told anything: what
 * was sent and hasn't arrived is dropped, as far as that can be had (a TCP socket is reset). */
void nbd_link_reset(struct nbd_link *link);

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
