/* nbd-uri: libxml2 takes a URI apart, as libnbd has it do; what the parts mean is here. Nothing is
 * passed over: what would have no effect is an error. */
#include "nbd/nbd-uri.h"

#include <errno.h>
#include <inttypes.h>
#include <libxml/uri.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define NBD_PORT 10809
#define MAX_PORT 99999998 /* what libxml2 gives for larger ones is one more */
#define HOST_CID 2        /* VMADDR_CID_HOST: vsock's server where the URI names none */

static int no_memory(const char *text, struct error *err)
{
	return error_set(err, ENOMEM, "%s: no memory", text);
}

static int keep_text(char **to, const char *value, const char *text, struct error *err)
{
	*to = strdup(value);
	return *to ? 0 : no_memory(text, err);
}

/* ---- parameters ---- */

static const char *const yes[] = { "true", "1", "on", "yes", "t", "y" };
static const char *const no[] = { "false", "0", "off", "no", "f", "n" };
#define NR_WORDS (sizeof(yes) / sizeof(yes[0]))

static bool is_one_of(const char *value, const char *const words[])
{
	for (size_t i = 0; i < NR_WORDS; i++)
		if (strcasecmp(value, words[i]) == 0)
			return true;
	return false;
}

static bool makes_sense(const char *name, const char *value)
{
	if (strcmp(name, "tls-verify-peer") == 0)
		return is_one_of(value, yes) || is_one_of(value, no);
	if (strcmp(name, "tls-version") == 0)
		return strcmp(value, "1.2") == 0 || strcmp(value, "1.3") == 0;
	return *value;
}

static const struct {
	const char *name;
	size_t member;
} parameters[] = {
	{ "socket", offsetof(struct nbd_uri, socket) },
	{ "tls-psk-file", offsetof(struct nbd_uri, tls_psk_file) },
	{ "tls-certificates", offsetof(struct nbd_uri, tls_certificates) },
	{ "tls-hostname", offsetof(struct nbd_uri, tls_hostname) },
	{ "tls-verify-peer", offsetof(struct nbd_uri, tls_verify_peer) },
	{ "tls-version", offsetof(struct nbd_uri, tls_version) },
};
#define NR_PARAMETERS (sizeof(parameters) / sizeof(parameters[0]))

static int set_parameter(struct nbd_uri *uri, const char *name, const char *value, const char *text,
			 struct error *err)
{
	for (size_t i = 0; i < NR_PARAMETERS; i++) {
		char **to = (char **)((char *)uri + parameters[i].member);

		if (strcasecmp(name, parameters[i].name) != 0)
			continue;
		if (*to)
			return error_set(err, EINVAL, "%s: %s is given twice", text,
					 parameters[i].name);
		if (!makes_sense(parameters[i].name, value))
			return error_set(err, EINVAL, "%s: %s=%s makes no sense", text,
					 parameters[i].name, value);
		if (strncmp(parameters[i].name, "tls-", 4) == 0 && !uri->tls)
			return error_set(err, EINVAL,
					 "%s: %s without TLS: the URI must start with "
					 "nbds",
					 text, parameters[i].name);
		return keep_text(to, value, text, err);
	}
	return error_set(err, EINVAL, "%s: there is no parameter \"%s\"", text, name);
}

/* One NAME=VALUE, of so many characters, as they stand in the URI. */
static int take_parameter(struct nbd_uri *uri, const char *raw, size_t len, const char *text,
			  struct error *err)
{
	size_t name_len = strcspn(raw, "=&;");
	bool has_value = raw[name_len] == '=' && name_len + 1 < len;
	char *name = NULL, *value = NULL;
	int ret;

	if (name_len)
		name = xmlURIUnescapeString(raw, name_len, NULL);
	value = has_value ? xmlURIUnescapeString(raw + name_len + 1, len - name_len - 1, NULL) :
			    (char *)xmlStrdup((const xmlChar *)"");
	if (!value || (name_len && !name))
		ret = no_memory(text, err);
	else
		ret = set_parameter(uri, name ? name : "", value, text, err);
	xmlFree(name);
	xmlFree(value);
	return ret;
}

static int take_query(struct nbd_uri *uri, const char *query, const char *text, struct error *err)
{
	int ret = 0;

	while (query && *query && ret == 0) {
		size_t len = strcspn(query, "&;");

		if (len)
			ret = take_parameter(uri, query, len, text, err);
		query += len + (query[len] != '\0');
	}
	return ret;
}

/* ---- the rest ---- */

static int take_scheme(struct nbd_uri *uri, const char *scheme, const char *text, struct error *err)
{
	static const char *const suffixes[] = {
		[NBD_TCP] = "",
		[NBD_UNIX] = "+unix",
		[NBD_VSOCK] = "+vsock",
	};
	const char *suffix;

	if (scheme && strncmp(scheme, "nbd", 3) == 0) {
		uri->tls = scheme[3] == 's';
		suffix = scheme + 3 + uri->tls;
		for (int i = NBD_TCP; i <= NBD_VSOCK; i++) {
			uri->transport = i;
			if (strcmp(suffix, suffixes[i]) == 0)
				return 0;
		}
	}
	return error_set(err, EINVAL,
			 "%s: not an NBD URI: it must start with nbd:// or nbds://, "
			 "perhaps with +unix or +vsock before the colon",
			 text);
}

static int take_tcp(struct nbd_uri *uri, const char *server, const char *text, struct error *err)
{
	size_t len;
	int ret;

	if (uri->port > 65535)
		return error_set(err, EINVAL, "%s: there is no port %" PRIu32, text, uri->port);
	ret = keep_text(&uri->host, server && *server ? server : "localhost", text, err);
	if (ret < 0)
		return ret;
	len = strlen(uri->host);
	if (uri->host[0] == '[' && uri->host[len - 1] == ']') {
		memmove(uri->host, uri->host + 1, len - 2);
		uri->host[len - 2] = '\0';
	}
	return 0;
}

static int take_vsock(struct nbd_uri *uri, const char *server, const char *text, struct error *err)
{
	char *end;

	uri->cid = HOST_CID;
	if (!server || !*server)
		return 0;
	errno = 0;
	uri->cid = strtoul(server, &end, 10);
	if (errno || *end || server[0] < '0' || server[0] > '9')
		return error_set(err, EINVAL, "%s: \"%s\" is no number of a vsock machine", text,
				 server);
	return 0;
}

static int take_authority(struct nbd_uri *uri, const xmlURI *xml, const char *text,
			  struct error *err)
{
	int ret = 0;

	uri->port = xml->port > 0 ? xml->port : NBD_PORT;
	if (uri->port > MAX_PORT)
		return error_set(err, EINVAL, "%s: the port is too large", text);
	if (xml->user)
		ret = keep_text(&uri->user, xml->user, text, err);
	if (ret == 0 && uri->transport == NBD_TCP)
		ret = take_tcp(uri, xml->server, text, err);
	if (ret == 0 && uri->transport == NBD_VSOCK)
		ret = take_vsock(uri, xml->server, text, err);
	return ret;
}

/* A NUL would cut what it is in, and what follows a # is no part of the name. */
static int check_form(const xmlURI *xml, const char *text, struct error *err)
{
	if (strncmp(text + strlen(xml->scheme), "://", 3) != 0)
		return error_set(err, EINVAL, "%s: not an NBD URI: it must start with %s://", text,
				 xml->scheme);
	if (strstr(text, "%00"))
		return error_set(err, EINVAL, "%s: %%00 has no meaning", text);
	if (xml->fragment)
		return error_set(err, EINVAL, "%s: # has no meaning; write %%23", text);
	return 0;
}

static int check_together(const struct nbd_uri *uri, bool has_server, const char *text,
			  struct error *err)
{
	if (uri->transport == NBD_UNIX && !uri->socket)
		return error_set(err, EINVAL, "%s: it needs socket=PATH", text);
	if (uri->transport == NBD_UNIX && has_server)
		return error_set(err, EINVAL,
				 "%s: with +unix there is no server but socket=PATH; the "
				 "name in its certificate is tls-hostname=NAME",
				 text);
	if (uri->transport != NBD_UNIX && uri->socket)
		return error_set(err, EINVAL, "%s: socket= without +unix", text);
	if (uri->tls_psk_file &&
	    (uri->tls_certificates || uri->tls_hostname || uri->tls_verify_peer))
		return error_set(err, EINVAL,
				 "%s: with tls-psk-file there are no certificates: "
				 "take %s away",
				 text,
				 uri->tls_certificates ? "tls-certificates" :
				 uri->tls_hostname     ? "tls-hostname" :
							 "tls-verify-peer");
	return 0;
}

static int take_all(struct nbd_uri *uri, const xmlURI *xml, const char *text, struct error *err)
{
	/* The path is absolute, since there is an authority. */
	const char *export_name = xml->path && *xml->path ? xml->path + 1 : "";
	int ret = take_scheme(uri, xml->scheme, text, err);

	if (ret == 0)
		ret = check_form(xml, text, err);
	if (ret == 0)
		ret = take_authority(uri, xml, text, err);
	if (ret == 0)
		ret = keep_text(&uri->export_name, export_name, text, err);
	if (ret == 0)
		ret = take_query(uri, xml->query_raw, text, err);
	return ret < 0 ? ret :
			 check_together(uri, xml->port > 0 || (xml->server && *xml->server), text,
					err);
}

int nbd_uri_parse(const char *text, struct nbd_uri *uri, struct error *err)
{
	xmlURI *xml = xmlParseURI(text);
	int ret;

	memset(uri, 0, sizeof(*uri));
	if (!xml)
		return error_set(err, EINVAL, "%s: not a URI", text);
	ret = take_all(uri, xml, text, err);
	xmlFreeURI(xml);
	return ret;
}

static int make_absolute(char **path, const char *folder)
{
	char *absolute;

	if (!*path || **path == '/')
		return 0;
	if (asprintf(&absolute, "%s/%s", folder, *path) < 0)
		return -ENOMEM;
	free(*path);
	*path = absolute;
	return 0;
}

static bool is_relative(const char *path)
{
	return path && *path != '/';
}

int nbd_uri_make_absolute(struct nbd_uri *uri, const char *text, struct error *err)
{
	char *folder;
	int ret;

	if (!is_relative(uri->socket) && !is_relative(uri->tls_psk_file) &&
	    !is_relative(uri->tls_certificates))
		return 0;
	folder = get_current_dir_name();
	if (!folder)
		return error_set(err, errno, "%s: finding the current folder: %s", text,
				 strerror(errno));
	ret = make_absolute(&uri->socket, folder);
	if (ret == 0)
		ret = make_absolute(&uri->tls_psk_file, folder);
	if (ret == 0)
		ret = make_absolute(&uri->tls_certificates, folder);
	free(folder);
	return ret < 0 ? no_memory(text, err) : 0;
}

bool nbd_uri_verifies(const struct nbd_uri *uri)
{
	return !uri->tls_verify_peer || is_one_of(uri->tls_verify_peer, yes);
}

void nbd_uri_clear(struct nbd_uri *uri)
{
	free(uri->user);
	free(uri->host);
	free(uri->export_name);
	for (size_t i = 0; i < NR_PARAMETERS; i++)
		free(*(char **)((char *)uri + parameters[i].member));
	memset(uri, 0, sizeof(*uri));
}
