/* asker: the passphrase from another program, which asks somebody for it (ask=).
 *
 * Each time a packet is sent that says why the passphrase before opens nothing, at first nothing, and
 * one with a passphrase is received; a newline ends either. The other end hangs up when there is none.
 *
 * Before the fork, in nbdkit's main thread. */
#include "asker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "parameters.h"
#include "report.h"

#define PACKET_MAX 4096 /* bytes: what a key has room for from the start */

static int fd;

static int send_why(const struct error *why)
{
	char text[sizeof(why->text) + 1];
	int len = snprintf(text, sizeof(text), "%s\n", why->text);

	/* Who has gone sends nothing, either. */
	return send(fd, text, len, MSG_NOSIGNAL) < 0 && errno != EPIPE ? -errno : 0;
}

/* The newline tells an empty passphrase from the end. */
static int receive(struct key *key, struct error *err)
{
	ssize_t n;

	/* The user's end may have made it one that doesn't block. */
	do {
		n = poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, -1);
		if (n > 0)
			n = recv(fd, key->data, PACKET_MAX, MSG_TRUNC);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return error_set(err, errno, "ask=%d: %s", fd, strerror(errno));
	if (n > PACKET_MAX)
		return error_set(err, EFBIG, "ask=%d: a passphrase has at most %d bytes", fd,
				 PACKET_MAX - 1);
	if (n > 0 && ((char *)key->data)[n - 1] != '\n')
		return error_set(err, EINVAL, "ask=%d: no newline behind the passphrase", fd);
	if (n == 0)
		return err->text[0] ? -ENODATA :
				      error_set(err, ENODATA, "ask=%d: no passphrase came", fd);
	key->len = n - 1;
	return 0;
}

static int asker_ask(void *opaque, struct key *key, struct error *err)
{
	int ret = send_why(err);

	(void)opaque;
	if (ret < 0)
		return error_set(err, -ret, "ask=%d: %s", fd, strerror(-ret));
	ret = key_make(key, PACKET_MAX, err);
	return ret < 0 ? ret : receive(key, err);
}

int asker_open(const char *value)
{
	static const struct luks_asker asker = { .ask = asker_ask };
	socklen_t len = sizeof(int);
	int type;

	if (nbdkit_parse_int("ask", value, &fd) < 0)
		return -1;
	if (fd <= STDERR_FILENO)
		return FAIL("ask=%d: must be above %d", fd, STDERR_FILENO);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return FAIL("ask=%d: %s", fd, strerror(errno));
	if (type != SOCK_SEQPACKET)
		return FAIL("ask=%d: not a socket of type SOCK_SEQPACKET", fd);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return FAIL("ask=%d: %s", fd, strerror(errno));
	config.open.asker = &asker;
	return 0;
}

void asker_close(void)
{
	if (config.open.asker)
		close(fd);
	config.open.asker = NULL;
}
