/* tls-error: why a TLS connection failed, in words for the user. */
#ifndef NDIO_TLS_ERROR_H
#define NDIO_TLS_ERROR_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "base/error.h"
#include "tls/tls-context.h"

/* What is known besides OpenSSL's queue of errors in this thread. */
struct tls_failure {
	bool up;        /* the handshake was over */
	bool asked;     /* the server wanted a certificate of ours */
	bool heard;     /* something came after the handshake */
	bool again;     /* the server wanted another one */
	bool ended;     /* the stream came to an end */
	bool cut;       /* in the middle of a record */
	int io_error;   /* positive errno of the socket, or 0 */
};

/* Sets the message, without a name before it, and empties the queue. The negative errno: -EACCES
 * where one side doesn't believe the other, -EPROTO for what isn't TLS, ... */
int tls_explain(const struct tls_context *context, SSL *ssl, const struct tls_failure *failure,
		struct error *err);

#endif
