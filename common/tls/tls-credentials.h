/* tls-credentials: certificates, in the folder that libnbd and qemu know: ca-cert.pem, and if they
 * are there ca-crl.pem, client-cert.pem and client-key.pem, or a server's. */
#ifndef NDIO_TLS_CREDENTIALS_H
#define NDIO_TLS_CREDENTIALS_H

#include <openssl/types.h>
#include <stdbool.h>

#include "base/error.h"

/* Loads them. folder may be NULL: the first of libnbd's that has a ca-cert.pem, or else the
 * certificate authorities of the machine. Without verify nobody is trusted or not. 0, or a
 * negative errno with a message that names the file. */
int tls_credentials_load(SSL_CTX *ctx, const char *folder, bool verify, struct error *err);

/* A server's: server-cert.pem and server-key.pem have to be there; with verify clients need a certificate
 * of ca-cert.pem's that ca-crl.pem, if that is there, doesn't revoke. */
int tls_credentials_load_server(SSL_CTX *ctx, const char *folder, bool verify, struct error *err);

#endif
