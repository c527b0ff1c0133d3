#include "memory/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define ENQ "\005"

static int send_question(int fd, const struct error *question)
{
	char text[sizeof(question->text) + 1];
	int len = snprintf(text, sizeof(text), "%s\n", question->text);

	/* Who has gone sends nothing, either. */
	return send(fd, text, len, MSG_NOSIGNAL) < 0 && errno != EPIPE ? -errno : 0;
}

/* Bytes of the packet, even if there is no room for all; 0 at the end. */
static ssize_t ask_receive(int fd, void *packet, size_t room)
{
	ssize_t n;

	/* The user's end may have made it one that doesn't block. */
	do {
		n = poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, -1);
		if (n > 0)
			n = recv(fd, packet, room, MSG_TRUNC);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	return n < 0 ? -errno : n;
}

int ask_take(const struct asker *asker, struct error *err)
{
	socklen_t len = sizeof(int);
	int type;

	if (asker->fd <= STDERR_FILENO)
		return error_set(err, EINVAL, "%s: must be above %d", asker->name, STDERR_FILENO);
	if (getsockopt(asker->fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    fcntl(asker->fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_set(err, errno, "%s: %s", asker->name, strerror(errno));
	if (type != SOCK_SEQPACKET)
		return error_set(err, EINVAL, "%s: not a socket of type SOCK_SEQPACKET",
				 asker->name);
	return 0;
}

/* Of err only the text counts, which says why where no answer comes. */
static int ask(const struct asker *asker, const struct error *question, struct key *key,
	       struct error *err)
{
	const char *name = asker->name;
	ssize_t n = send_question(asker->fd, question);
	int ret;

	if (n < 0)
		return error_set(err, -n, "%s: %s", name, strerror(-n));
	ret = key_make(key, ASK_MAX + 1, err);
	if (ret < 0)
		return ret;
	n = ask_receive(asker->fd, key->data, ASK_MAX + 1);
	if (n < 0)
		return error_set(err, -n, "%s: %s", name, strerror(-n));
	if (n > ASK_MAX + 1)
		return error_set(err, EFBIG, "%s: a passphrase has at most %d bytes", name,
				 ASK_MAX);
	if (n > 0 && ((char *)key->data)[n - 1] != '\n')
		return error_set(err, EINVAL, "%s: no newline behind the passphrase", name);
	if (n == 0)
		return err->text[0] ? -ENODATA :
				      error_set(err, ENODATA, "%s: no passphrase came", name);
	key->len = n - 1;
	return 0;
}

int ask_key(void *opaque, struct key *key, struct error *err)
{
	const struct error question = *err;

	return ask(opaque, &question, key, err);
}

int ask_pin(void *opaque, const char *token, struct key *pin, struct error *err)
{
	struct error question;
	int ret;

	error_set(&question, EINVAL, ENQ "%.320s" ENQ "%s", token, err->text);
	ret = ask(opaque, &question, pin, err);
	if (ret == 0 && pin->len == 0)
		ret = error_set(err, ENODATA, "no PIN for it came");
	return ret;
}

bool ask_is_pin(struct error *question, const char **token, const char **why)
{
	char *behind = question->text[0] == ENQ[0] ? strchr(question->text + 1, ENQ[0]) : NULL;

	if (!behind)
		return false;
	*behind = '\0';
	*token = question->text + 1;
	*why = behind + 1;
	return true;
}

bool ask_next(int fd, struct error *why)
{
	ssize_t n = recv(fd, why->text, sizeof(why->text), 0);

	if (n <= 0)
		return false;
	why->text[n - 1] = '\0'; /* a newline */
	return true;
}

int ask_answer(int fd, const struct key *key, struct error *err)
{
	struct iovec parts[] = { { key->data, key->len }, { (void *)"\n", 1 } };
	const struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	if (key->len > ASK_MAX)
		return error_set(err, EFBIG, "a passphrase that is asked for has at most %d bytes",
				 ASK_MAX);
	if (sendmsg(fd, &message, MSG_NOSIGNAL) < 0)
		return error_set(err, errno, "passing the passphrase on: %s", strerror(errno));
	return 0;
}
