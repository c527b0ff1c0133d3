/* tls-context: what the TLS connections of one target share: who we are, whom we trust, which
 * versions and ciphers we take, and the tickets by which a server knows us again. */
#ifndef NDIO_TLS_CONTEXT_H
#define NDIO_TLS_CONTEXT_H

#include <openssl/types.h>
#include <stdbool.h>

#include "base/error.h"

struct tls_context;

/* Only read while the context is made. */
struct tls_options {
	const char *psk_file; /* or NULL: by certificates */
	const char *user;     /* whose key; NULL: the name of the user that this process runs as */
	const char *certificates; /* a folder; or NULL, see tls-credentials.h */
	const char *name; /* that the server's certificate must have: a host's, or an address;
				   * or NULL */
	bool verify;      /* the server's certificate */
	bool old;         /* TLS 1.2 is enough */
};

/* Reads the keys and certificates; only here. 0, or a negative errno with a message, without a
 * name before it. */
int tls_context_make(const struct tls_options *options, struct tls_context **context,
		     struct error *err);

/* No connection uses it any more. NULL is fine. */
void tls_context_free(struct tls_context *context);

/* A connection that hasn't begun, with a ticket if there is one; NULL: no memory. Any thread. */
SSL *tls_context_connection(struct tls_context *context);

/* After the handshake: was all checked that has to be? 0, or -EACCES with a message. */
int tls_context_check(const struct tls_context *context, SSL *ssl, struct error *err);

/* For messages. */
struct tls_parties {
	const char *user;    /* of the pre-shared key; NULL: by certificates */
	char *name;          /* that the server's certificate must have, or NULL */
	bool verify;         /* that */
	const char *version; /* the least of TLS: "1.3" or "1.2" */
};
const struct tls_parties *tls_context_parties(const struct tls_context *context);

#endif
