#include "nbd-dial.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "clock.h"

#define UNIX_SPACE (1024 * 1024) /* bytes */

int nbd_wait(int fd, short events, int64_t deadline)
{
	struct pollfd poll_fd = { .fd = fd, .events = events };
	int64_t left;
	int ret;

	do {
		left = deadline - clock_ms();
		ret = left > 0 ? poll(&poll_fd, 1, left) : 0;
	} while (ret < 0 && errno == EINTR);
	return ret > 0 ? 0 : -ETIMEDOUT;
}

static int socket_error(int fd)
{
	int errnum = 0;
	socklen_t len = sizeof(errnum);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0 ? -errno : -errnum;
}

static int dial(const struct sockaddr *address, socklen_t len, int64_t deadline)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, address, len) < 0) {
		/* A Unix socket whose server is busy says EAGAIN and can't be waited for. */
		if (errno != EINPROGRESS && errno != EINTR)
			ret = -errno;
		else
			ret = nbd_wait(fd, POLLOUT, deadline);
		if (ret == 0)
			ret = socket_error(fd);
	}
	if (ret < 0) {
		close(fd);
		return ret;
	}
	return fd;
}

static int dial_tcp(const struct nbd_uri *uri, int64_t deadline, struct error *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *list, *each;
	const int one = 1;
	char port[16];
	int ret;

	snprintf(port, sizeof(port), "%" PRIu32, uri->port);
	ret = getaddrinfo(uri->host, port, &hints, &list);
	if (ret != 0)
		return error_set(err, ret == EAI_SYSTEM ? errno : EHOSTUNREACH, "%s: %s", uri->host,
				 ret == EAI_SYSTEM ? strerror(errno) : gai_strerror(ret));
	ret = -EHOSTUNREACH;
	for (each = list; each && ret < 0; each = each->ai_next)
		ret = dial(each->ai_addr, each->ai_addrlen, deadline);
	freeaddrinfo(list);
	if (ret >= 0)
		setsockopt(ret, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return ret;
}

static int dial_unix(const struct nbd_uri *uri, int64_t deadline, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(uri->socket);
	int ret;

	if (len >= sizeof(address.sun_path))
		return error_set(err, ENAMETOOLONG, "the path of a Unix socket has at most %zu bytes",
				 sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, uri->socket, len + 1);
	while ((ret = dial((struct sockaddr *)&address, sizeof(address), deadline)) == -EAGAIN &&
	       clock_ms() < deadline)
		usleep(10000);
	if (ret >= 0)
		nbd_make_room(ret);
	return ret;
}

static int dial_vsock(const struct nbd_uri *uri, int64_t deadline)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = uri->cid,
		.svm_port = uri->port,
	};

	return dial((const struct sockaddr *)&address, sizeof(address), deadline);
}

void nbd_make_room(int fd)
{
	const int space = UNIX_SPACE;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
}

int nbd_dial(const struct nbd_uri *uri, int64_t deadline, struct error *err)
{
	struct error own = { 0 };
	int ret;

	switch (uri->transport) {
	case NBD_TCP:
		ret = dial_tcp(uri, deadline, &own);
		break;
	case NBD_UNIX:
		ret = dial_unix(uri, deadline, &own);
		break;
	default:
		ret = dial_vsock(uri, deadline);
	}
	if (ret < 0)
		error_set(err, -ret, "connecting: %s", own.text[0] ? own.text : strerror(-ret));
	return ret;
}
