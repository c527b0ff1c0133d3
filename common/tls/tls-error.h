/* tls-error: why a TLS connection failed, in words for the user. */
#ifndef NDIO_TLS_ERROR_H
#define NDIO_TLS_ERROR_H

#include <openssl/types.h>

#include "base/error.h"
#include "tls/tls-context.h"

enum tls_phase {
	TLS_SHAKING, /* hands */
	TLS_UNPROVEN,
	TLS_UP,
	TLS_LEAVING,
	TLS_OVER,
};

/* A connection, so far: what is known besides OpenSSL's queue of errors in this thread. */
struct tls_state {
	enum tls_phase phase; /* as tls.c draws them */
	enum {
		TLS_ASKED_NOTHING,
		TLS_ASKED_CERTIFICATE, /* of ours */
		TLS_ASKED_RENEGOTIATION,
	} asked; /* by the server, last */
	int end; /* of the socket: TLS_END_OF_STREAM, or its positive errno; 0: not yet */
};
#define TLS_END_OF_STREAM -1

/* Why it failed in that phase: sets the message, without a name before it, and empties the queue.
 * The negative errno: -EACCES where one side doesn't believe the other, -EPROTO for what isn't
 * TLS, ... */
int tls_explain(const struct tls_context *context, SSL *ssl, const struct tls_state *state,
		struct error *err);

#endif
