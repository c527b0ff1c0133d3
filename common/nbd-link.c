#include "nbd-link.h"

#include <errno.h>
#include <endian.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "nbd-dial.h"
#include "starttls.h"

#define CLIENT_FLAGS_LEN 4 /* bytes: libnbd's answer to the greeting */

/* libnbd starts its messages with the name of its function. */
const char *nbd_link_reason(void)
{
	const char *text = nbd_get_error();
	const char *colon = text ? strstr(text, ": ") : NULL;

	return colon && strncmp(text, "nbd_", 4) == 0 ? colon + 2 : text ? text : "unknown error";
}

int nbd_link_errno(void)
{
	int errnum = nbd_get_errno();

	return errnum ? errnum : EIO;
}

/* ---- the server ---- */

/* What libnbd 1.14 would pass over, or not look at: it would connect, but not to whom it should. */
static int check_libnbd(const struct nbd_uri *uri, const char *name, struct error *err)
{
	const char *unknown = uri->tls_verify_peer ? "tls-verify-peer" :
			      uri->tls_hostname    ? "tls-hostname" :
			      uri->tls_version     ? "tls-version" :
						     NULL;
	char path[4096];

	if (unknown)
		return error_set(err, EINVAL, "%s: libnbd's TLS doesn't know %s", name, unknown);
	if (uri->tls_psk_file)
		return 0;
	if (uri->transport != NBD_TCP)
		return error_set(err, EINVAL, "%s: libnbd's TLS verifies no certificate on such a "
				 "socket: it needs tls-psk-file", name);
	snprintf(path, sizeof(path), "%s/ca-cert.pem",
		 uri->tls_certificates ? uri->tls_certificates : "");
	if (!uri->tls_certificates || access(path, R_OK) < 0)
		return error_set(err, EINVAL, "%s: libnbd's TLS verifies no certificate without "
				 "tls-certificates=FOLDER and a ca-cert.pem in it", name);
	return 0;
}

int nbd_server_init(struct nbd_server *server, const char *name, enum tls_by by,
		    const struct notice *notice, struct error *err)
{
	struct error own = { 0 };
	int ret;

	server->name = name;
	server->notice = *notice;
	ret = nbd_uri_parse(name, &server->uri, err);
	if (ret < 0 || !server->uri.tls)
		return ret;
	if (by == TLS_BY_LIBNBD)
		return check_libnbd(&server->uri, name, err);
	ret = tls_context_make(&server->uri, &server->tls, &own);
	return ret < 0 ? error_set(err, -ret, "%s: %s", name, own.text) : 0;
}

void nbd_server_clear(struct nbd_server *server)
{
	tls_context_free(server->tls);
	nbd_uri_clear(&server->uri);
	server->tls = NULL;
}

/* ---- STARTTLS ---- */

static int send_all(int fd, const uint8_t *bytes, size_t len)
{
	ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL); /* the first bytes: they fit */

	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

/* Until TLS may begin. */
static int start_tls(int fd, struct starttls *starttls, int64_t deadline, struct error *err)
{
	uint8_t bytes[512];
	int ret = 0, sent;

	while (ret != STARTTLS_BEGIN) {
		ssize_t n;

		if (nbd_wait(fd, POLLIN, deadline) < 0)
			return error_set(err, ETIMEDOUT, "no answer within %d seconds",
					 NBD_ANSWER_TIMEOUT);
		n = recv(fd, bytes, sizeof(bytes), 0);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return error_set(err, errno, "%s", strerror(errno));
		if (n == 0)
			return error_set(err, ENOTCONN, "the server closed the connection before TLS");
		ret = n < 0 ? 0 : starttls_feed(starttls, bytes, n, err);
		if (ret < 0)
			return ret;
		if (ret != STARTTLS_SEND)
			continue;
		sent = send_all(fd, starttls->send, STARTTLS_SEND);
		if (sent < 0)
			return error_set(err, -sent, "the server closed the connection before TLS");
	}
	return 0;
}

static int open_tls(struct nbd_link *link, struct starttls *starttls, int64_t deadline,
		    struct error *err)
{
	const struct nbd_server *server = link->server;
	int fd = nbd_dial(&server->uri, deadline, err);
	int ret;

	if (fd < 0)
		return fd;
	ret = start_tls(fd, starttls, deadline, err);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	return tls_open(server->tls, fd, deadline, &link->tls, err);
}

/* libnbd is played the greeting that the server gave us, and finds nothing that it would ask
 * before STARTTLS. */
static int hand_to_libnbd(struct nbd_link *link, const struct starttls *starttls,
			  struct error *err)
{
	uint8_t greeting[] = "NBDMAGICIHAVEOPT\0";
	uint16_t flags = htobe16(starttls->flags);
	int inner;

	memcpy(greeting + 16, &flags, sizeof(flags));
	inner = tls_inner_socket(link->tls, greeting, sizeof(greeting), CLIENT_FLAGS_LEN, err);
	if (inner < 0)
		return inner;
	if (nbd_aio_connect_socket(link->nbd, inner) < 0)
		return error_set(err, nbd_link_errno(), "%s", nbd_link_reason());
	return 0;
}

static void tell_debug(const struct nbd_link *link)
{
	struct tls_facts facts;

	if (nbd_get_debug(link->nbd) <= 0)
		return;
	tls_read_facts(link->tls, &facts);
	fprintf(stderr, "ndio: debug: %s: %s, %s, %s%s\n", link->server->name, facts.version,
		facts.cipher, facts.peer[0] ? facts.peer : "a server that is not verified",
		facts.resumed ? ", known by a ticket" : "");
}

static int connect_tls(struct nbd_link *link, int64_t deadline, struct error *err)
{
	const struct nbd_server *server = link->server;
	struct starttls starttls = { 0 };
	struct error own = { 0 };
	int ret = open_tls(link, &starttls, deadline, &own);

	if (ret == 0) {
		tell_debug(link);
		ret = hand_to_libnbd(link, &starttls, &own);
	}
	return ret < 0 ? error_set(err, -ret, "%s: %s", server->name, own.text) : 0;
}

/* ---- connecting ---- */

static int not_connected(const struct nbd_link *link, struct error *err)
{
	const char *failure = link->tls ? tls_failure(link->tls) : NULL;

	return error_set(err, nbd_link_errno(), "%s: %s", link->server->name,
			 failure ? failure : nbd_link_reason());
}

/* A server that takes the connection and says nothing must not hang us. */
static int finish_connecting(struct nbd_link *link, int64_t deadline, struct error *err)
{
	while (!nbd_aio_is_ready(link->nbd)) {
		int64_t left = deadline - clock_ms();

		if (!nbd_link_is_up(link))
			return not_connected(link, err);
		if (left <= 0)
			return error_set(err, ETIMEDOUT, "%s: no answer within %d seconds",
					 link->server->name, NBD_ANSWER_TIMEOUT);
		nbd_link_look(link, left, -1);
	}
	if (!link->tls && link->server->uri.transport == NBD_UNIX)
		nbd_make_room(nbd_aio_get_fd(link->nbd));
	link->connected = true;
	return 0;
}

static int connect_link(struct nbd_link *link, const char *context, struct error *err)
{
	const struct nbd_server *server = link->server;
	int64_t deadline = clock_ms() + NBD_ANSWER_TIMEOUT * 1000;
	int ret = 0;

	/* Every read is counted (see chunk_read), so libnbd needn't clear the memory first. */
	nbd_set_pread_initialize(link->nbd, false);
	nbd_set_uri_allow_local_file(link->nbd, true);
	if (nbd_add_meta_context(link->nbd, context) < 0)
		return not_connected(link, err);
	if (server->tls) {
		if (nbd_set_export_name(link->nbd, server->uri.export_name) < 0)
			return not_connected(link, err);
		ret = connect_tls(link, deadline, err);
	} else if (nbd_aio_connect_uri(link->nbd, server->name) < 0) {
		return not_connected(link, err);
	}
	return ret < 0 ? ret : finish_connecting(link, deadline, err);
}

int nbd_link_open(struct nbd_link *link, struct nbd_server *server, const char *context,
		  struct error *err)
{
	int ret;

	*link = (struct nbd_link){ .server = server, .nbd = nbd_create() };
	if (!link->nbd)
		return error_set(err, ENOMEM, "%s: %s", server->name, nbd_link_reason());
	ret = connect_link(link, context, err);
	if (ret < 0)
		nbd_link_close(link);
	return ret;
}

void nbd_link_close(struct nbd_link *link)
{
	if (!link->nbd)
		return;
	/* Sends NBD_CMD_DISC, if it can, and waits for nothing. */
	if (nbd_aio_is_ready(link->nbd))
		nbd_aio_disconnect(link->nbd, 0);
	if (link->tls)
		tls_goodbye(link->tls);
	nbd_close(link->nbd);
	tls_close(link->tls);
	*link = (struct nbd_link){ 0 };
}

/* ---- running ---- */

bool nbd_link_is_up(const struct nbd_link *link)
{
	return !nbd_aio_is_dead(link->nbd) && !nbd_aio_is_closed(link->nbd);
}

void nbd_link_submit(struct nbd_link *link)
{
	if (link->tls)
		tls_pump_out(link->tls);
}

static void tell_failure(struct nbd_link *link)
{
	const char *failure = tls_failure(link->tls);

	if (!failure || !link->connected || atomic_exchange(&link->server->told, true))
		return;
	notice_tell(&link->server->notice, "%s: %s", link->server->name, failure);
}

bool nbd_link_look(struct nbd_link *link, int timeout_ms, int wake_fd)
{
	struct pollfd fds[3] = { { .fd = -1 }, { .fd = wake_fd, .events = POLLIN }, { .fd = -1 } };
	unsigned direction = 0;
	bool readable = false;

	if (link->tls) {
		tls_pump_out(link->tls);
		if (tls_poll_fd(link->tls, &fds[2]))
			timeout_ms = 0;
	}
	if (nbd_link_is_up(link)) {
		direction = nbd_aio_get_direction(link->nbd);
		fds[0].fd = nbd_aio_get_fd(link->nbd);
		fds[0].events = (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				(direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
	}
	if (poll(fds, 3, timeout_ms) < 0)
		return false;
	if (link->tls) {
		readable = tls_pump_in(link->tls, fds[2].revents);
		tell_failure(link);
	}
	/* A failure of these kills the connection, which fails all that is in flight. */
	if ((direction & LIBNBD_AIO_DIRECTION_READ) &&
	    (readable || (fds[0].revents & (POLLIN | POLLHUP | POLLERR))))
		nbd_aio_notify_read(link->nbd);
	else if (fds[0].revents & (POLLOUT | POLLHUP | POLLERR))
		nbd_aio_notify_write(link->nbd);
	return fds[1].revents;
}

void nbd_link_cut(struct nbd_link *link)
{
	if (nbd_link_is_up(link))
		shutdown(nbd_aio_get_fd(link->nbd), SHUT_RDWR);
}
