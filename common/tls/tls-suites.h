/* tls-suites: which versions and ciphers of TLS either side takes, the processor's fastest first, and
 * what a pre-shared key is to them. */
#ifndef NDIO_TLS_SUITES_H
#define NDIO_TLS_SUITES_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "tls/psk.h"

/* TLS 1.3, or with old 1.2 as well; psk: by pre-shared keys. False: OpenSSL's queue of errors says why. */
bool tls_set_suites(SSL_CTX *ctx, bool psk, bool old);

/* The session that OpenSSL wants of a pre-shared key in TLS 1.3: it has a copy of the key, and cleanses it.
 * NULL: no memory. */
SSL_SESSION *tls_psk_session(SSL *ssl, const struct psk *psk);

#endif
