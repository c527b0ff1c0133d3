/* nbd-link: one connection to an NBD server, by libnbd, with TLS by OpenSSL below it if the URI
 * asks for TLS. */
#ifndef NDIO_NBD_LINK_H
#define NDIO_NBD_LINK_H

#include <libnbd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "nbd-uri.h"
#include "target.h"
#include "tls.h"

#define NBD_ANSWER_TIMEOUT 30 /* seconds until a server must have answered */

/* Whose TLS. */
enum tls_by {
	TLS_BY_OPENSSL,
	TLS_BY_LIBNBD, /* for comparison, and where a server can't do with ours */
};

/* An export, as all connections to it need it. */
struct nbd_server {
	const char *name; /* the URI, for messages; the caller's */
	struct nbd_uri uri;
	struct tls_context *tls; /* or NULL */
	struct notice notice;
	atomic_bool told; /* why a connection was lost: the first is enough */
};

/* Reads what the URI says, and the keys and certificates that it names. name and notice's opaque
 * must outlive it. 0, or a negative errno with a message. */
int nbd_server_init(struct nbd_server *server, const char *name, enum tls_by by,
		    const struct notice *notice, struct error *err);
void nbd_server_clear(struct nbd_server *server); /* harmless on a zeroed struct */

struct nbd_link {
	struct nbd_server *server;
	struct nbd_handle *nbd;
	struct tls *tls; /* or NULL */
	bool connected;  /* from then on a failure is told */
};

/* Connects, up to where commands can be sent. Blocks, but not for longer than
 * NBD_ANSWER_TIMEOUT. 0, or a negative errno with a message that starts with the URI. */
int nbd_link_open(struct nbd_link *link, struct nbd_server *server, const char *context,
		  struct error *err);

/* Ends it, and says so to the server if it still listens. Harmless on a zeroed struct. */
void nbd_link_close(struct nbd_link *link);

/* Can commands be sent? */
bool nbd_link_is_up(const struct nbd_link *link);

/* Sends on what libnbd has written. libnbd itself sends at once what its socket takes. */
void nbd_link_submit(struct nbd_link *link);

/* One look at the sockets, asleep for up to so many milliseconds, or for ever if that is negative.
 * True if wake_fd, unless it is -1, can be read. */
bool nbd_link_look(struct nbd_link *link, int timeout_ms, int wake_fd);

/* Makes libnbd find the connection closed and fail what is in flight. */
void nbd_link_cut(struct nbd_link *link);

/* What libnbd said last in this thread, without the name of its function; and its errno, or
 * EIO. */
const char *nbd_link_reason(void);
int nbd_link_errno(void);

#endif
