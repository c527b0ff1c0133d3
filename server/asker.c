#include "asker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PACKET_MAX 4096 /* bytes: what a key has room for from the start */

int asker_check(int fd, struct error *err)
{
	socklen_t len = sizeof(int);
	int type;

	if (fd <= STDERR_FILENO)
		return error_set(err, EINVAL, "ask=%d: must be above %d", fd, STDERR_FILENO);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return error_set(err, errno, "ask=%d: %s", fd, strerror(errno));
	if (type != SOCK_SEQPACKET)
		return error_set(err, EINVAL, "ask=%d: not a socket of type SOCK_SEQPACKET", fd);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_set(err, errno, "ask=%d: %s", fd, strerror(errno));
	return 0;
}

static int send_why(int fd, const struct error *why)
{
	char text[sizeof(why->text) + 1];
	int len = snprintf(text, sizeof(text), "%s\n", why->text);

	/* Who has gone sends nothing, either. */
	return send(fd, text, len, MSG_NOSIGNAL) < 0 && errno != EPIPE ? -errno : 0;
}

/* The newline tells an empty passphrase from the end. */
static int receive(int fd, struct key *key, struct error *err)
{
	ssize_t n;

	do {
		n = recv(fd, key->data, PACKET_MAX, MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_set(err, errno, "ask=%d: %s", fd, strerror(errno));
	if (n > PACKET_MAX)
		return error_set(err, EFBIG, "ask=%d: a passphrase has at most %d bytes", fd,
				 PACKET_MAX - 1);
	if (n > 0 && ((char *)key->data)[n - 1] != '\n')
		return error_set(err, EINVAL, "ask=%d: no newline behind the passphrase", fd);
	if (n == 0)
		return err->text[0] ? -ENODATA : error_set(err, ENODATA, "ask=%d: no passphrase came",
							   fd);
	key->len = n - 1;
	return 0;
}

int asker_ask(void *opaque, struct key *key, struct error *err)
{
	int fd = *(const int *)opaque;
	int ret = send_why(fd, err);

	if (ret < 0)
		return error_set(err, -ret, "ask=%d: %s", fd, strerror(-ret));
	ret = key_make(key, PACKET_MAX, err);
	return ret < 0 ? ret : receive(fd, key, err);
}
