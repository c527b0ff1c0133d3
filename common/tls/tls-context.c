/* tls-context: it is set up once, by the thread that opens the target, and only read from then on,
 * by all connections at once; but for the tickets, which have a lock. By a pre-shared key or by
 * certificates, never both: with a key no certificate is trusted. */
#include "tls/tls-context.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutex.h"
#include "memory/secret.h"
#include "tls/psk.h"
#include "tls/tls-credentials.h"
#include "tls/tls-suites.h"

#define READ_BUFFER (256 * 1024) /* bytes: what is received at a time */
#define MAX_TICKETS 4

struct tls_context {
	SSL_CTX *ctx;
	struct psk psk; /* or zeroes: by certificates */
	struct tls_parties parties;

	/* Each is used once, so that nobody in the network can tell two connections to be of one
	 * client (RFC 8446, C.4). Servers send new ones on each. */
	pthread_mutex_t lock;
	SSL_SESSION *tickets[MAX_TICKETS];
	unsigned nr_tickets;
};

/* ---- pre-shared keys ---- */

/* TLS 1.3. */
static int use_psk(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_len,
		   SSL_SESSION **session)
{
	const struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const struct psk *psk = &context->psk;

	*session = NULL;
	*id = NULL;
	*id_len = 0;
	if (md && !EVP_MD_is_a(md, "SHA256"))
		return 1; /* not with this key */
	*session = tls_psk_session(ssl, psk);
	if (!*session)
		return 0;
	*id = (const unsigned char *)psk->user;
	*id_len = strlen(psk->user);
	return 1;
}

/* TLS 1.2. */
static unsigned use_psk_12(SSL *ssl, const char *hint, char *id, unsigned id_size,
			   unsigned char *key, unsigned key_size)
{
	const struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const struct psk *psk = &context->psk;

	(void)hint;
	if (strlen(psk->user) >= id_size || psk->key_len > key_size)
		return 0;
	memcpy(id, psk->user, strlen(psk->user) + 1);
	memcpy(key, psk->key, psk->key_len);
	return psk->key_len;
}

static int set_psk(struct tls_context *context, const struct tls_options *options,
		   struct error *err)
{
	int ret;

	secret_no_dumps();
	ret = psk_find(options->psk_file, options->user, &context->psk, err);
	if (ret < 0)
		return ret;
	context->parties.user = context->psk.user;
	SSL_CTX_set_psk_use_session_callback(context->ctx, use_psk);
	SSL_CTX_set_psk_client_callback(context->ctx, use_psk_12);
	return 0;
}

/* ---- certificates ---- */

/* Without the zone of an IPv6 address, "fe80::1%eth0": it is this machine's alone (RFC 6874). */
static size_t host_name_len(const char *name)
{
	return strchr(name, ':') ? strcspn(name, "%") : strlen(name);
}

static int set_certificates(struct tls_context *context, const struct tls_options *options,
			    struct error *err)
{
	context->parties.verify = options->verify;
	if (options->name) {
		context->parties.name = strndup(options->name, host_name_len(options->name));
		if (!context->parties.name)
			return error_set(err, ENOMEM, "no memory");
	}
	return tls_credentials_load(context->ctx, options->certificates, context->parties.verify,
				    err);
}

static bool is_address(const char *name)
{
	struct in6_addr address;

	return inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1;
}

static int set_server_name(const struct tls_context *context, SSL *ssl)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (!context->parties.name)
		return 1;
	if (is_address(context->parties.name))
		return X509_VERIFY_PARAM_set1_ip_asc(param, context->parties.name);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_host(param, context->parties.name, 0) &&
	       SSL_set_tlsext_host_name(ssl, context->parties.name);
}

/* ---- tickets ---- */

static int keep_ticket(SSL *ssl, SSL_SESSION *session)
{
	struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	SSL_SESSION *old = NULL;

	pthread_mutex_lock(&context->lock);
	if (context->nr_tickets == MAX_TICKETS) {
		old = context->tickets[0];
		context->nr_tickets--;
		memmove(context->tickets, context->tickets + 1,
			context->nr_tickets * sizeof(context->tickets[0]));
	}
	context->tickets[context->nr_tickets++] = session;
	pthread_mutex_unlock(&context->lock);
	SSL_SESSION_free(old);
	return 1; /* the reference is ours */
}

static SSL_SESSION *take_ticket(struct tls_context *context)
{
	SSL_SESSION *session = NULL;

	pthread_mutex_lock(&context->lock);
	if (context->nr_tickets > 0)
		session = context->tickets[--context->nr_tickets];
	pthread_mutex_unlock(&context->lock);
	return session;
}

static void set_tickets(SSL_CTX *ctx)
{
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, keep_ticket);
}

/* ---- all of it ---- */

static int context_set_up(struct tls_context *context, const struct tls_options *options,
			  struct error *err)
{
	context->ctx = SSL_CTX_new(TLS_client_method());
	context->parties.version = options->old ? "1.2" : "1.3";
	if (!context->ctx || !tls_set_suites(context->ctx, options->psk_file, options->old))
		return error_set(err, ENOMEM, "TLS: OpenSSL can't be set up: %s",
				 ERR_reason_error_string(ERR_peek_last_error()));
	SSL_CTX_set_app_data(context->ctx, context);
	SSL_CTX_set_read_ahead(context->ctx, 1);
	SSL_CTX_set_default_read_buffer_len(context->ctx, READ_BUFFER);
	set_tickets(context->ctx);
	if (options->psk_file) {
		/* A server that answers with a certificate instead finds nobody who trusts it. */
		SSL_CTX_set_verify(context->ctx, SSL_VERIFY_PEER, NULL);
		return set_psk(context, options, err);
	}
	return set_certificates(context, options, err);
}

int tls_context_make(const struct tls_options *options, struct tls_context **result,
		     struct error *err)
{
	struct tls_context *context = calloc(1, sizeof(*context));
	int ret;

	if (!context)
		return error_set(err, ENOMEM, "no memory");
	mutex_init_short(&context->lock);
	ret = context_set_up(context, options, err);
	ERR_clear_error();
	if (ret < 0)
		tls_context_free(context);
	else
		*result = context;
	return ret;
}

void tls_context_free(struct tls_context *context)
{
	if (!context)
		return;
	while (context->nr_tickets > 0)
		SSL_SESSION_free(context->tickets[--context->nr_tickets]);
	SSL_CTX_free(context->ctx);
	psk_clear(&context->psk);
	free(context->parties.name);
	pthread_mutex_destroy(&context->lock);
	free(context);
}

SSL *tls_context_connection(struct tls_context *context)
{
	SSL *ssl = SSL_new(context->ctx);
	SSL_SESSION *ticket;

	if (!ssl || !set_server_name(context, ssl)) {
		SSL_free(ssl);
		return NULL;
	}
	ticket = take_ticket(context);
	if (ticket) {
		SSL_set_session(ssl, ticket);
		SSL_SESSION_free(ticket);
	}
	return ssl;
}

/* By a pre-shared key, and not by a certificate that nobody looked at? A ticket is of a
 * connection where that was so. */
static bool used_psk(SSL *ssl)
{
	if (SSL_version(ssl) == TLS1_3_VERSION)
		return SSL_session_reused(ssl); /* a pre-shared key counts as a ticket */
	return SSL_CIPHER_get_auth_nid(SSL_get_current_cipher(ssl)) == NID_auth_psk;
}

int tls_context_check(const struct tls_context *context, SSL *ssl, struct error *err)
{
	if (context->psk.user && !used_psk(ssl))
		return error_set(err, EACCES, "the server doesn't know the key of \"%s\"",
				 context->psk.user);
	/* Where there is no certificate, the result is that it is fine. */
	if (!context->psk.user && context->parties.verify &&
	    (!SSL_get0_peer_certificate(ssl) || SSL_get_verify_result(ssl) != X509_V_OK))
		return error_set(err, EACCES, "the server's certificate isn't valid");
	return 0;
}

const struct tls_parties *tls_context_parties(const struct tls_context *context)
{
	return &context->parties;
}
