/* nbd-dial: sockets of three kinds, none of which blocks while it is being connected. Only names
 * are asked for without a deadline: getaddrinfo(3) knows none. */
#include "nbd/nbd-dial.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "base/clock.h"

#define UNIX_SPACE (1024 * 1024) /* bytes */

/* Seconds. An idle connection says so little that it costs nobody anything, and so often that no
 * router on the way forgets it. */
#define KEEP_IDLE     30
#define KEEP_INTERVAL 10
#define KEEP_COUNT    3

static int socket_error(int fd)
{
	int errnum = 0;
	socklen_t len = sizeof(errnum);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0 ? -errno : -errnum;
}

static int dial_address(const struct sockaddr *address, socklen_t len,
			const struct deadline *deadline)
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
			ret = deadline_wait(fd, POLLOUT, deadline);
		if (ret == 0)
			ret = socket_error(fd);
	}
	if (ret < 0) {
		close(fd);
		return ret;
	}
	return fd;
}

static void keep_alive(int fd, unsigned answer_timeout)
{
	const int one = 1, idle = KEEP_IDLE, interval = KEEP_INTERVAL, count = KEEP_COUNT;
	/* A little more, so that who waits for an answer finds out first, and says so. */
	const unsigned ms = answer_timeout * 1250 + 1000;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

/* Each address has its share of the time: the first may be one that swallows all. */
static int dial_one_of(const struct addrinfo *list, const struct deadline *deadline)
{
	int ret = -EHOSTUNREACH;
	unsigned count = 0;

	for (const struct addrinfo *each = list; each; each = each->ai_next)
		count++;
	for (const struct addrinfo *each = list; each && ret < 0; each = each->ai_next, count--) {
		const int64_t now = clock_ms();
		const struct deadline share = {
			.at = now + (deadline->at - now) / count,
			.stop = deadline->stop,
		};

		ret = dial_address(each->ai_addr, each->ai_addrlen, &share);
	}
	return ret;
}

static int dial_tcp(const struct nbd_uri *uri, unsigned answer_timeout,
		    const struct deadline *deadline, struct error *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	const int one = 1;
	struct addrinfo *list;
	char port[16];
	int ret;

	snprintf(port, sizeof(port), "%" PRIu32, uri->port);
	ret = getaddrinfo(uri->host, port, &hints, &list);
	if (ret != 0)
		return error_set(err, ret == EAI_SYSTEM ? errno : EHOSTUNREACH, "%s: %s", uri->host,
				 ret == EAI_SYSTEM ? strerror(errno) : gai_strerror(ret));
	ret = dial_one_of(list, deadline);
	freeaddrinfo(list);
	if (ret >= 0) {
		setsockopt(ret, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		keep_alive(ret, answer_timeout);
	}
	return ret;
}

/* What is too long for a socket's address is reached through its folder, which stays open until it
 * is connected. */
static int unix_address(const char *path, struct sockaddr_un *address, int *folder,
			struct error *err)
{
	const char *name = strrchr(path, '/');
	char dir[PATH_MAX];

	*folder = -1;
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) < sizeof(address->sun_path)) {
		memcpy(address->sun_path, path, strlen(path) + 1);
		return 0;
	}
	if (name && (size_t)(name - path) < sizeof(dir)) {
		snprintf(dir, sizeof(dir), "%.*s", (int)(name - path), path);
		*folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (*folder < 0)
			return error_set(err, errno, "%s: %s", dir, strerror(errno));
		if (snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d%s",
			     *folder, name) < (int)sizeof(address->sun_path))
			return 0;
		close(*folder);
	}
	return error_set(err, ENAMETOOLONG, "the name of a Unix socket has at most %zu bytes",
			 sizeof(address->sun_path) - 1);
}

/* For a large write, so that who sends it doesn't wait for who receives it; the kernel may give less
 * (net.core.wmem_max). A TCP socket's room grows by itself. */
static void make_room(int fd)
{
	const int space = UNIX_SPACE;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
}

static int dial_unix(const struct nbd_uri *uri, const struct deadline *deadline, struct error *err)
{
	struct sockaddr_un address;
	int folder, ret = unix_address(uri->socket, &address, &folder, err);

	if (ret < 0)
		return ret;
	while ((ret = dial_address((struct sockaddr *)&address, sizeof(address), deadline)) ==
		       -EAGAIN &&
	       deadline_left(deadline) > 0)
		usleep(10000);
	if (ret == -EAGAIN)
		ret = -ETIMEDOUT;
	if (ret >= 0)
		make_room(ret);
	if (folder >= 0)
		close(folder);
	return ret;
}

static int dial_vsock(const struct nbd_uri *uri, const struct deadline *deadline)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = uri->cid,
		.svm_port = uri->port,
	};

	return dial_address((const struct sockaddr *)&address, sizeof(address), deadline);
}

int nbd_dial(const struct nbd_uri *uri, unsigned answer_timeout, const struct deadline *deadline,
	     struct error *err)
{
	struct error own = { 0 };
	int ret;

	switch (uri->transport) {
	case NBD_TCP:
		ret = dial_tcp(uri, answer_timeout, deadline, &own);
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
