#include "locator/same-export.h"

#include <netdb.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nbd/nbd-uri.h"

/* ---- hosts ---- */

static bool resolve(const char *host, struct addrinfo **addresses)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };

	*addresses = NULL;
	return getaddrinfo(host, NULL, &hints, addresses) == 0;
}

/* Only an address of this machine can be bound to. A server mostly listens on all of them. */
static bool is_local(const struct addrinfo *addresses)
{
	bool local = false;

	for (const struct addrinfo *a = addresses; a && !local; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		local = fd >= 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0;
		if (fd >= 0)
			close(fd);
	}
	return local;
}

static bool share_address(const struct addrinfo *addresses, const struct addrinfo *others)
{
	for (const struct addrinfo *a = addresses; a; a = a->ai_next)
		for (const struct addrinfo *b = others; b; b = b->ai_next)
			if (a->ai_addrlen == b->ai_addrlen &&
			    memcmp(a->ai_addr, b->ai_addr, a->ai_addrlen) == 0)
				return true;
	return false;
}

static bool same_host(const char *host, const char *other)
{
	struct addrinfo *addresses, *others = NULL;
	bool same;

	if (strcasecmp(host, other) == 0)
		return true;
	same = resolve(host, &addresses) && resolve(other, &others) &&
	       (share_address(addresses, others) || (is_local(addresses) && is_local(others)));
	if (addresses)
		freeaddrinfo(addresses);
	if (others)
		freeaddrinfo(others);
	return same;
}

/* ---- all of it ---- */

static bool same_socket(const char *path, const char *other)
{
	struct stat a, b;

	return strcmp(path, other) == 0 || (stat(path, &a) == 0 && stat(other, &b) == 0 &&
					    a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

static bool same_server(const struct nbd_uri *a, const struct nbd_uri *b)
{
	if (a->transport != b->transport)
		return false;
	switch (a->transport) {
	case NBD_UNIX:
		return same_socket(a->socket, b->socket);
	case NBD_VSOCK:
		return a->cid == b->cid && a->port == b->port;
	default:
		return a->port == b->port && same_host(a->host, b->host);
	}
}

bool same_export(const char *uri, const char *other)
{
	struct nbd_uri a, b = { 0 };
	bool same;

	if (strcmp(uri, other) == 0)
		return true;
	same = nbd_uri_parse(uri, &a, NULL) == 0 && nbd_uri_parse(other, &b, NULL) == 0 &&
	       strcmp(a.export_name, b.export_name) == 0 && same_server(&a, &b);
	nbd_uri_clear(&a);
	nbd_uri_clear(&b);
	return same;
}
