#include "nbd/nbd-server.h"

#include <errno.h>
#include <string.h>

static int read_tls(struct nbd_server *server, struct error *err)
{
	const struct nbd_uri *uri = &server->uri;
	const struct tls_options options = {
		.psk_file = uri->tls_psk_file,
		.user = uri->user,
		.certificates = uri->tls_certificates,
		/* A Unix socket and vsock have no name unless the URI gives one. */
		.name = uri->tls_hostname ? uri->tls_hostname : uri->host,
		.verify = nbd_uri_verifies(uri),
		.old = uri->tls_version && strcmp(uri->tls_version, "1.2") == 0,
	};
	struct error own = { 0 };
	int ret;

	ret = tls_context_make(&options, &server->tls, &own);
	return ret < 0 ? error_set(err, -ret, "%s: %s", server->name, own.text) : 0;
}

int nbd_server_init(struct nbd_server *server, const char *name, unsigned answer_timeout,
		    const struct notice *notice, struct error *err)
{
	int ret;

	server->name = name;
	server->notice = *notice;
	server->answer_timeout = answer_timeout ? answer_timeout : NBD_ANSWER_TIMEOUT;
	nbd_watch_init(&server->watch);
	ret = nbd_uri_parse(name, &server->uri, err);
	if (ret == 0)
		ret = nbd_uri_make_absolute(&server->uri, name, err);
	return ret < 0 || !server->uri.tls ? ret : read_tls(server, err);
}

void nbd_server_clear(struct nbd_server *server)
{
	tls_context_free(server->tls);
	nbd_uri_clear(&server->uri);
	nbd_watch_destroy(&server->watch);
	server->tls = NULL;
}

const char *nbd_server_reason(const struct nbd_server *server, const struct error *err)
{
	size_t len = strlen(server->name);

	return strncmp(err->text, server->name, len) == 0 &&
			       strncmp(err->text + len, ": ", 2) == 0 ?
		       err->text + len + 2 :
		       err->text;
}

int nbd_server_is_silent(const struct nbd_server *server, unsigned seconds, struct error *err)
{
	return error_set(err, ETIMEDOUT, "%s: the server has not answered for %u second%s",
			 server->name, seconds, seconds == 1 ? "" : "s");
}
