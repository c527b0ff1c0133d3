/* tls-server: what the TLS connections of one server share: its keys or certificates, and whom it lets
 * in. TLS 1.3 alone. */
#ifndef NDIO_TLS_SERVER_H
#define NDIO_TLS_SERVER_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct tls_server;

struct tls_server_options {
	const char *psk_file; /* a key for each user (psk.h), looked at for each client anew; or */
	const char *certificates; /* a folder: see tls-credentials.h */
	bool verify_peer;         /* clients need a certificate as well */
};

/* The options' strings outlive it. 0, or a negative errno with a message. */
int tls_server_make(const struct tls_server_options *options, struct tls_server **server,
		    struct error *err);
void tls_server_free(struct tls_server *server); /* no connection is left; NULL is fine */

/* A connection that waits for the client's hello, over a socket that doesn't block and stays the
 * caller's. NULL: no memory. Any thread; but one thread shakes hands, for all connections. */
SSL *tls_server_connection(struct tls_server *server, int fd);

/* Why a handshake failed, right after it did, for a message: that the file of keys can't be read any more,
 * too. Empties OpenSSL's queue of errors. */
const char *tls_server_reason(struct tls_server *server, char *text, size_t size);

#endif
