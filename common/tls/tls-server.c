/* A key is looked for when a client names it: so a file that is changed counts from the next client on.
 * A client that names none that is there, or has another key, gets no further than its hello. Tickets are
 * OpenSSL's own: sealed by a key of this process's, and not kept here. */
#include "tls/tls-server.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/secret.h"
#include "tls/psk.h"
#include "tls/tls-credentials.h"
#include "tls/tls-suites.h"

struct tls_server {
	SSL_CTX *ctx;
	struct tls_server_options options;
	struct error unread; /* why the last client's key couldn't even be looked for, or "" */
};

/* ---- pre-shared keys ---- */

static int find_psk(SSL *ssl, const unsigned char *id, size_t id_len, SSL_SESSION **session)
{
	struct tls_server *server = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	char user[PSK_USER_MAX + 1];
	struct psk psk = { 0 };
	int ret;

	*session = NULL;
	server->unread.text[0] = '\0';
	/* It may be a ticket, which is OpenSSL's to look at. */
	if (id_len == 0 || id_len > PSK_USER_MAX || memchr(id, '\0', id_len))
		return 1;
	memcpy(user, id, id_len);
	user[id_len] = '\0';
	ret = psk_find(server->options.psk_file, user, &psk, &server->unread);
	if (ret == 0)
		*session = tls_psk_session(ssl, &psk);
	else if (ret == -ENOENT)
		server->unread.text[0] = '\0'; /* nobody of that name */
	psk_clear(&psk);
	return 1;
}

/* The file can be read, and each of its lines makes sense. */
static int check_psk_file(const char *path, struct error *err)
{
	struct psk psk = { 0 };
	int ret;

	if (access(path, R_OK) < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	ret = psk_find(path, "", &psk, err); /* which nobody is called */
	psk_clear(&psk);
	return ret == -ENOENT ? 0 : ret;
}

/* ---- all of it ---- */

static int set_up(struct tls_server *server, struct error *err)
{
	const struct tls_server_options *options = &server->options;
	static const unsigned char name[] = "ndio";
	int ret;

	server->ctx = SSL_CTX_new(TLS_server_method());
	if (!server->ctx || !tls_set_suites(server->ctx, options->psk_file, false) ||
	    !SSL_CTX_set_session_id_context(server->ctx, name, sizeof(name) - 1))
		return error_set(err, ENOMEM, "TLS: OpenSSL can't be set up: %s",
				 ERR_reason_error_string(ERR_peek_last_error()));
	SSL_CTX_set_app_data(server->ctx, server);
	SSL_CTX_set_options(server->ctx,
			    SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_CLEANSE_PLAINTEXT);
	SSL_CTX_set_session_cache_mode(server->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(server->ctx,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	secret_no_dumps();
	if (!options->psk_file)
		return tls_credentials_load_server(server->ctx, options->certificates,
						   options->verify_peer, err);
	ret = check_psk_file(options->psk_file, err);
	SSL_CTX_set_psk_find_session_callback(server->ctx, find_psk);
	return ret;
}

int tls_server_make(const struct tls_server_options *options, struct tls_server **result,
		    struct error *err)
{
	struct tls_server *server = calloc(1, sizeof(*server));
	int ret;

	if (!server)
		return error_set(err, ENOMEM, "no memory");
	server->options = *options;
	ret = set_up(server, err);
	ERR_clear_error();
	if (ret < 0)
		tls_server_free(server);
	else
		*result = server;
	return ret;
}

void tls_server_free(struct tls_server *server)
{
	if (!server)
		return;
	SSL_CTX_free(server->ctx);
	free(server);
}

SSL *tls_server_connection(struct tls_server *server, int fd)
{
	SSL *ssl = SSL_new(server->ctx);

	if (ssl && SSL_set_fd(ssl, fd)) {
		SSL_set_accept_state(ssl);
		return ssl;
	}
	SSL_free(ssl);
	return NULL;
}

const char *tls_server_reason(struct tls_server *server, char *text, size_t size)
{
	unsigned long code = ERR_peek_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	/* What OpenSSL says then is only that it has no key. */
	if (code && server->unread.text[0])
		reason = server->unread.text;
	snprintf(text, size, "%s", reason ? reason : "the client has gone");
	server->unread.text[0] = '\0';
	ERR_clear_error();
	return text;
}
