/* nbd-server: an export, as all connections to it need it: what its URI says, keys and certificates
 * for TLS, and how long its server may take to answer. */
#ifndef NDIO_NBD_SERVER_H
#define NDIO_NBD_SERVER_H

#include <stdatomic.h>

#include "base/error.h"
#include "base/notice.h"
#include "nbd/nbd-uri.h"
#include "nbd/nbd-watch.h"
#include "tls/tls-context.h"

#define NBD_ANSWER_TIMEOUT     30 /* seconds, where nothing else is asked for */
#define NBD_ANSWER_TIMEOUT_MAX 86400

struct nbd_server {
	const char *name;        /* the URI, for messages; the caller's */
	struct nbd_uri uri;      /* its paths are absolute */
	struct tls_context *tls; /* or NULL */
	unsigned answer_timeout; /* seconds until a silent server is lost */
	char session[33];        /* the id of all connections that have an epoch, in hexadecimal */
	struct notice notice;
	atomic_bool hurry; /* the server isn't waited for so long any more */
	atomic_bool told;  /* why a connection was lost: the first is enough */
	struct nbd_watch watch;
};

#define NBD_HURRY_MS 3000 /* until it is lost in a hurry */

/* Reads what the URI says, and the keys and certificates that it names; from then on the current
 * folder may change. name and notice's opaque must outlive it. answer_timeout 0: the usual. 0, or
 * a negative errno with a message. nbd_server_clear() is due either way. */
int nbd_server_init(struct nbd_server *server, const char *name, unsigned answer_timeout,
		    const struct notice *notice, struct error *err);
void nbd_server_clear(struct nbd_server *server);

/* A message without the name that it starts with. */
const char *nbd_server_reason(const struct nbd_server *server, const struct error *err);

/* "URI: the server has not answered for 30 seconds". Returns -ETIMEDOUT. */
int nbd_server_is_silent(const struct nbd_server *server, unsigned seconds, struct error *err);

#endif
