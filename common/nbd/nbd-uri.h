/* nbd-uri: what an NBD URI says.
 *
 * nbd|nbds[+unix|+vsock]://[USER@][HOST][:PORT]/[EXPORT][?NAME=VALUE&...], see doc/uri.md of the
 * NBD protocol. The names are libnbd's, newer ones too: socket, tls-psk-file, tls-certificates,
 * tls-verify-peer, tls-hostname; and tls-version. */
#ifndef NDIO_NBD_URI_H
#define NDIO_NBD_URI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum nbd_transport {
	NBD_TCP,
	NBD_UNIX,
	NBD_VSOCK,
};

struct nbd_uri {
	bool tls; /* nbds */
	enum nbd_transport transport;
	char *user;             /* or NULL */
	char *host;             /* NBD_TCP: a name or an address, without brackets */
	uint32_t cid;           /* NBD_VSOCK */
	uint32_t port;          /* NBD_TCP, NBD_VSOCK */
	char *export_name;      /* perhaps "" */
	char *socket;           /* NBD_UNIX: a path */
	char *tls_psk_file;     /* a path, or NULL; these five only with tls */
	char *tls_certificates; /* path of a folder, or NULL; never both */
	char *tls_hostname;     /* or NULL */
	char *tls_verify_peer;  /* or NULL, where it isn't given: see nbd_uri_verifies() */
	char *tls_version;      /* "1.2", "1.3", or NULL */
};

/* Fails with -EINVAL and a message that starts with the URI for what isn't such a URI, and for an
 * unknown parameter, one given twice, or one that means nothing here. End with nbd_uri_clear(),
 * also when it failed. */
int nbd_uri_parse(const char *text, struct nbd_uri *uri, struct error *err);

/* Makes the paths in it absolute, by the folder that is the current one now. text is for the message.
 * Negative errno. */
int nbd_uri_make_absolute(struct nbd_uri *uri, const char *text, struct error *err);

/* Is the server's certificate to be checked? Unless the URI says no. */
bool nbd_uri_verifies(const struct nbd_uri *uri);

/* Frees. Harmless on a zeroed struct. */
void nbd_uri_clear(struct nbd_uri *uri);

#endif
