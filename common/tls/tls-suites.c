#include "tls/tls-suites.h"

#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static bool cpu_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	return getauxval(AT_HWCAP) & HWCAP_AES;
#else
	return true; /* s390x and ppc64le have it */
#endif
}

/* For a pre-shared key only suites of its hash are possible; that is SHA-256 unless both sides
 * agreed on another (RFC 8446, 4.2.11). */
static const char *suites_13(bool aes, bool psk)
{
	if (psk)
		return aes ? "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256" :
			     "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
	return aes ? "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256" :
		     "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";
}

/* AEAD only, and only with forward secrecy. */
static const char *suites_12(bool aes, bool psk)
{
	if (psk)
		return aes ? "DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384:"
			     "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-CHACHA20-POLY1305" :
			     "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-CHACHA20-POLY1305:"
			     "DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384";
	return aes ? "ECDHE+AESGCM:DHE+AESGCM:ECDHE+CHACHA20:DHE+CHACHA20:!aNULL:!aPSK" :
		     "ECDHE+CHACHA20:DHE+CHACHA20:ECDHE+AESGCM:DHE+AESGCM:!aNULL:!aPSK";
}

/* All is said, so that nothing of the machine's openssl.cnf makes it weaker. */
bool tls_set_suites(SSL_CTX *ctx, bool psk, bool old)
{
	bool aes = cpu_has_aes();

	SSL_CTX_set_security_level(ctx, 2); /* 112 bits */
	SSL_CTX_clear_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_LEGACY_SERVER_CONNECT |
					   SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	return SSL_CTX_set_min_proto_version(ctx, old ? TLS1_2_VERSION : TLS1_3_VERSION) &&
	       SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) &&
	       SSL_CTX_set_ciphersuites(ctx, suites_13(aes, psk)) &&
	       SSL_CTX_set_cipher_list(ctx, suites_12(aes, psk));
}

SSL_SESSION *tls_psk_session(SSL *ssl, const struct psk *psk)
{
	static const unsigned char suite[] = { 0x13, 0x01 }; /* TLS_AES_128_GCM_SHA256 */
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && SSL_SESSION_set1_master_key(session, psk->key, psk->key_len) &&
	    SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, suite)) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}
