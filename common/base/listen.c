#include "base/listen.h"

#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/number.h"

/* ---- Unix ---- */

/* One that a server left behind that was killed. */
static void remove_dead(const struct sockaddr_un *address)
{
	/* One that lives and is busy isn't waited for. */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (fd < 0)
		return;
	if (lstat(address->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
	    errno == ECONNREFUSED)
		unlink(address->sun_path);
	close(fd);
}

int listen_unix(const char *path, struct listener *listener, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, ret;

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, ENAMETOOLONG, "%s: too long for a socket's path", path);
	strcpy(address.sun_path, path);
	remove_dead(&address);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, SOMAXCONN) < 0) {
		ret = error_set(err, errno, "%s: can't listen: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return ret;
	}
	*listener = (struct listener){ .fd = fd, .path = path };
	snprintf(listener->name, sizeof(listener->name), "%s", path);
	return 0;
}

/* ---- TCP ---- */

/* Takes it apart, in place. What isn't there stays. */
static int split_address(char *text, char **host, const char **port)
{
	char *colon, *end = text[0] == '[' ? strchr(text, ']') : NULL;

	if (text[0] == '[' && !end)
		return -EINVAL;
	*host = end ? text + 1 : text;
	colon = end ? end + 1 : strrchr(text, ':');
	if (end)
		*end = '\0';
	else if (colon && strchr(text, ':') != colon)
		return 0; /* an IPv6 address */
	if (!colon || !*colon)
		return 0;
	if (*colon != ':' || !colon[1])
		return -EINVAL;
	*colon = '\0';
	*port = colon + 1;
	return 0;
}

/* getaddrinfo(3) takes what is too large for another one. */
static bool is_port(const char *port)
{
	uint64_t number;

	return port &&
	       (port[strspn(port, "0123456789")] || parse_number(port, UINT16_MAX, &number));
}

void listen_name(struct listener *listener)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	char host[64] = "?", port[16] = "?";

	if (getsockname(listener->fd, (struct sockaddr *)&address, &len) == 0)
		getnameinfo((struct sockaddr *)&address, len, host, sizeof(host), port,
			    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(listener->name, sizeof(listener->name),
		 address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static int listen_at(const struct addrinfo *at, struct listener *listener)
{
	const int on = 1;
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (at->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	*listener = (struct listener){ .fd = fd };
	listen_name(listener);
	return 0;
}

int listen_tcp(const char *address, const char *port, struct listener *listeners, size_t max,
	       struct error *err)
{
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM };
	char *text = strdup(address), *host;
	struct addrinfo *all = NULL;
	int ret = 0;
	size_t count = 0;

	if (!text)
		return error_set(err, ENOMEM, "no memory");
	if (split_address(text, &host, &port) < 0 || !is_port(port))
		ret = error_set(err, EINVAL, "%s: not HOST:PORT", address);
	else if ((ret = getaddrinfo(*host ? host : NULL, port, &hints, &all)) != 0)
		ret = error_set(err, EINVAL, "%s: %s", address, gai_strerror(ret));
	for (const struct addrinfo *at = all; at && ret == 0 && count < max; at = at->ai_next) {
		int failed = listen_at(at, &listeners[count]);

		/* A machine without IPv6 may have its address. */
		if (failed == 0)
			count++;
		else if (failed != -EAFNOSUPPORT && (count == 0 || failed != -EADDRNOTAVAIL))
			ret = error_set(err, -failed, "%s: can't listen: %s", address,
					strerror(-failed));
	}
	if (ret == 0 && count == 0)
		ret = error_set(err, EADDRNOTAVAIL, "%s: no such address here", address);
	while (ret < 0 && count > 0)
		listen_end(&listeners[--count]);
	if (all)
		freeaddrinfo(all);
	free(text);
	return ret < 0 ? ret : (int)count;
}

void listen_end(struct listener *listener)
{
	close(listener->fd);
	if (listener->path)
		unlink(listener->path);
	listener->fd = -1;
}

static bool is_listening(int fd)
{
	socklen_t len = sizeof(int);
	int listening;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening;
}

/* Nobody connects any more; those that already wait to be accepted are turned away. */
static void refuse_clients(int fd)
{
	int client;

	shutdown(fd, SHUT_RDWR);
	while ((client = accept(fd, NULL, NULL)) >= 0)
		close(client);
}

void listen_refuse_all(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (is_listening(fd))
			refuse_clients(fd);
	}
	if (dir)
		closedir(dir);
}
