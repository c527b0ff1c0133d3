/* tls-suites: which versions and ciphers of TLS either side takes, the processor's fastest first. */
#ifndef NDIO_TLS_SUITES_H
#define NDIO_TLS_SUITES_H

#include <openssl/ssl.h>
#include <stdbool.h>

/* TLS 1.3, or with old 1.2 as well; psk: by pre-shared keys. False: OpenSSL's queue of errors says why. */
bool tls_set_suites(SSL_CTX *ctx, bool psk, bool old);

#endif
