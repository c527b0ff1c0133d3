/* nbd-connect: how a connection of nbd-link is made, by the thread that asks for it:
 *
 *	nbd_dial() -> libnbd's handshake                                              nbd
 *	nbd_dial() -> STARTTLS -> TLS -> a pair of sockets -> libnbd's handshake      nbds
 *
 * One of a session asks who the server is before it chooses the export, since the name by which it
 * chooses it depends on that: by NBD_OPT_LIST, whose answer has descriptions. NBD_OPT_INFO would open
 * the export once more, and a server may end when its first client has closed it.
 *
 * Each step has what is left of the deadline, also inside libnbd: it is watched once there is a
 * socket. tls_open() and libnbd take the socket over; nbd_link_close() ends what was reached. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/align.h"
#include "base/clock.h"
#include "nbd/nbd-link.h"
#include "nbd/starttls.h"

/* What a socket may take to connect when it isn't the first: the kernel asks at longer and longer
 * intervals, and would hear late that the way is there again. */
#define AGAIN_MS 3000

#define NBD_MAX_STRING   4097 /* bytes of a name, and its end */
#define CLIENT_FLAGS_LEN 4    /* bytes: libnbd's answer to the greeting */

/* libnbd starts its messages with the name of its function. */
static const char *libnbd_reason(void)
{
	const char *text = nbd_get_error();
	const char *colon = text ? strstr(text, ": ") : NULL;

	return colon && strncmp(text, "nbd_", 4) == 0 ? colon + 2 : text ? text : "unknown error";
}

/* ---- STARTTLS ---- */

static int send_all(int fd, const uint8_t *bytes, size_t len)
{
	ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL); /* the first bytes: they fit */

	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

/* Until TLS may begin. */
static int start_tls(int fd, struct starttls *starttls, const struct deadline *deadline,
		     struct error *err)
{
	uint8_t bytes[512];
	int ret = 0, sent;

	while (ret != STARTTLS_BEGIN) {
		ssize_t n;

		ret = deadline_wait(fd, POLLIN, deadline);
		if (ret < 0)
			return error_set(err, -ret, "%s", strerror(-ret));
		n = recv(fd, bytes, sizeof(bytes), 0);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return error_set(err, errno, "%s", strerror(errno));
		if (n == 0)
			return error_set(err, ENOTCONN,
					 "the server closed the connection before TLS");
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

/* Why the server lets us down, in libnbd's words; which call hears that it wants TLS, is chance. */
static int refused(int errnum, const char *reason, struct error *err)
{
	if (strstr(reason, "requires TLS"))
		return error_set(err, EACCES,
				 "the server wants an encrypted connection: nbds:// or "
				 "nbds+unix:// in place of nbd:// or nbd+unix://");
	return error_set(err, errnum, "%s", reason);
}

static int libnbd_failed(struct error *err)
{
	return refused(nbd_link_errno(), libnbd_reason(), err);
}

/* libnbd is played the greeting that the server gave us, and finds nothing that it would ask
 * before STARTTLS. */
static int hand_to_libnbd(struct nbd_link *link, const struct starttls *starttls, struct error *err)
{
	uint8_t greeting[] = "NBDMAGICIHAVEOPT\0";
	uint16_t flags = htobe16(starttls->flags);
	int inner;

	memcpy(greeting + 16, &flags, sizeof(flags));
	inner = tls_inner_socket(link->tls, greeting, sizeof(greeting), CLIENT_FLAGS_LEN, err);
	if (inner < 0)
		return inner;
	if (nbd_aio_connect_socket(link->nbd, inner) < 0)
		return libnbd_failed(err);
	return 0;
}

static void tell_debug(const struct nbd_link *link)
{
	struct tls_facts facts;
	char words[TLS_WORDS];

	if (nbd_get_debug(link->nbd) <= 0)
		return;
	tls_read_facts(link->tls, &facts);
	fprintf(stderr, "ndio: debug: %s: %s\n", link->server->name, tls_words(&facts, words));
}

static int connect_tls(struct nbd_link *link, int fd, const struct deadline *deadline,
		       struct error *err)
{
	struct starttls starttls = { 0 };
	int ret = start_tls(fd, &starttls, deadline, err);

	if (ret < 0) {
		close(fd);
		return ret;
	}
	ret = tls_open(link->server->tls, fd, deadline, &link->tls, err);
	if (ret < 0)
		return ret;
	tell_debug(link);
	return hand_to_libnbd(link, &starttls, err);
}

/* ---- the socket ---- */

/* From here on the connection is watched, whoever reads it: by a descriptor of our own, since its
 * owner closes the other whenever it likes. */
static int link_watch(struct nbd_link *link, int fd, const struct deadline *deadline,
		      struct error *err)
{
	link->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (link->fd < 0)
		return error_set(err, errno, "no descriptor for a connection: %s", strerror(errno));
	nbd_watch_add(&link->server->watch, &link->watched, link->fd);
	atomic_store(&link->watched.until, deadline->at);
	return 0;
}

static int link_dial(struct nbd_link *link, uint64_t epoch, const struct deadline *deadline,
		     struct error *err)
{
	struct nbd_server *server = link->server;
	const struct deadline connected = {
		.at = min_u64(deadline->at, epoch > 1 ? clock_ms() + AGAIN_MS : INT64_MAX),
		.stop = deadline->stop,
	};
	int fd = nbd_dial(&server->uri, server->answer_timeout, &connected, err);
	int ret;

	if (fd < 0)
		return fd;
	ret = link_watch(link, fd, deadline, err);
	if (ret < 0)
		close(fd);
	else if (server->tls)
		ret = connect_tls(link, fd, deadline, err);
	else if (nbd_aio_connect_socket(link->nbd, fd) < 0)
		ret = libnbd_failed(err);
	return ret;
}

/* ---- libnbd's handshake ---- */

static int not_connected(const struct nbd_link *link, struct error *err)
{
	const char *failure = link->tls ? tls_failure(link->tls) : NULL;

	return failure ? error_set(err, nbd_link_errno(), "%s", failure) : libnbd_failed(err);
}

/* A server that takes the connection and says nothing must not hang us, nor one that goes on
 * saying something. */
static int link_reach(struct nbd_link *link, int (*is_there)(struct nbd_handle *nbd),
		      const struct deadline *deadline, struct error *err)
{
	while (!is_there(link->nbd)) {
		int left = deadline_left(deadline);

		if (!nbd_link_is_up(link))
			return not_connected(link, err);
		if (left < 0)
			return error_set(err, -left, "%s", strerror(-left));
		nbd_link_look(link, left, -1);
	}
	return 0;
}

static int can_choose(struct nbd_handle *nbd)
{
	return nbd_aio_is_negotiating(nbd) || nbd_aio_is_ready(nbd);
}

static int answered(void *opaque, int *error)
{
	struct nbd_link *link = opaque;

	link->refused = *error;
	if (*error)
		error_set(&link->why_refused, *error, "%s", libnbd_reason());
	return 1; /* libnbd forgets it */
}

/* "... instance=HEX [fences]", which may stand behind other words. */
static void parse_identity(const char *text, struct nbd_identity *identity)
{
	const char *at = text ? strstr(text, SAYS_INSTANCE) : NULL;
	char hex[2 * SESSION_ID + 1] = "";
	size_t len = 0;

	if (at)
		snprintf(hex, sizeof(hex), "%s", at + strlen(SAYS_INSTANCE));
	identity->has_instance =
		OPENSSL_hexstr2buf_ex(identity->instance, SESSION_ID, &len, hex, '\0') &&
		len == SESSION_ID;
	identity->fences =
		identity->has_instance && strncmp(at + strlen(SAYS_INSTANCE) + 2 * SESSION_ID,
						  SAYS_FENCES, strlen(SAYS_FENCES)) == 0;
}

static int listed(void *opaque, const char *name, const char *description)
{
	struct nbd_link *link = opaque;

	(void)name;
	if (!link->identity.has_instance)
		parse_identity(description, &link->identity);
	return 0;
}

/* Who it is; a server that can't be asked says nothing. */
static int ask_who(struct nbd_link *link, const struct deadline *deadline, struct error *err)
{
	const nbd_completion_callback done = { .callback = answered, .user_data = link };
	const nbd_list_callback list = { .callback = listed, .user_data = link };

	if (nbd_aio_opt_list(link->nbd, list, done) < 0)
		return not_connected(link, err);
	return link_reach(link, can_choose, deadline, err);
}

static int choose_export(struct nbd_link *link, uint64_t epoch, const struct deadline *deadline,
			 struct error *err)
{
	const struct nbd_server *server = link->server;
	const nbd_completion_callback done = { .callback = answered, .user_data = link };
	char name[NBD_MAX_STRING];
	int len = snprintf(name, sizeof(name), "%s" SESSION_SUFFIX "%s.%" PRIx64,
			   server->uri.export_name, server->session, epoch);
	int ret;

	link->identity.fences &= len < (int)sizeof(name);
	if (link->identity.fences && nbd_set_export_name(link->nbd, name) < 0)
		return not_connected(link, err);
	if (nbd_aio_opt_go(link->nbd, done) < 0)
		return not_connected(link, err);
	ret = link_reach(link, can_choose, deadline, err);
	return ret == 0 && link->refused ? refused(link->refused, link->why_refused.text, err) :
					   ret;
}

static int join_session(struct nbd_link *link, uint64_t epoch, const struct deadline *deadline,
			struct error *err)
{
	int ret = link_reach(link, can_choose, deadline, err);

	/* A server of the old style has but one export, and is ready. */
	if (ret < 0 || nbd_aio_is_ready(link->nbd))
		return ret;
	ret = ask_who(link, deadline, err);
	return ret < 0 ? ret : choose_export(link, epoch, deadline, err);
}

/* It may tell now, though it wasn't asked or didn't let itself be asked before. But it fences only
 * what has asked it to. */
static void link_read_identity(struct nbd_link *link, bool of_session)
{
	bool asked_to_fence = link->identity.fences;
	char *text = nbd_get_export_description(link->nbd);

	if (text)
		parse_identity(text, &link->identity);
	link->identity.fences &= asked_to_fence || !of_session;
	free(text);
}

static int connect_link(struct nbd_link *link, const char *context, uint64_t epoch,
			const struct deadline *deadline, struct error *err)
{
	const struct nbd_server *server = link->server;
	int ret;

	/* Every read is counted (see chunk_read), so libnbd needn't clear the memory first. */
	nbd_set_pread_initialize(link->nbd, false);
	nbd_set_full_info(link->nbd, true); /* the description, too */
	if (epoch)
		nbd_set_opt_mode(link->nbd, true);
	if (nbd_add_meta_context(link->nbd, context) < 0 ||
	    nbd_set_export_name(link->nbd, server->uri.export_name) < 0)
		return not_connected(link, err);
	ret = link_dial(link, epoch, deadline, err);
	if (ret == 0 && epoch)
		ret = join_session(link, epoch, deadline, err);
	if (ret == 0)
		ret = link_reach(link, nbd_aio_is_ready, deadline, err);
	if (ret < 0)
		return ret;
	link_read_identity(link, epoch > 0);
	atomic_store(&link->watched.until, 0);
	link->connected = true;
	return 0;
}

/* It says so in the user's words where it was our patience that ended, and not the kernel's. */
static int explain_failure(const struct nbd_link *link, int ret, int64_t began,
			   const struct deadline *deadline, const struct error *own,
			   struct error *err)
{
	const struct nbd_server *server = link->server;
	bool cut = atomic_load(&link->watched.cut);

	if (cut || (ret == -ETIMEDOUT && clock_ms() >= deadline->at))
		return nbd_server_is_silent(server, (deadline->at - began + 999) / 1000, err);
	return error_set(err, -ret, "%s: %s", server->name, own->text);
}

int nbd_link_open(struct nbd_link **result, struct nbd_server *server, const char *context,
		  uint64_t epoch, const struct deadline *deadline, struct error *err)
{
	struct nbd_link *link = calloc(1, sizeof(*link));
	int64_t began = clock_ms();
	struct error own = { 0 };
	int ret;

	if (!link)
		return error_set(err, ENOMEM, "%s: no memory for a connection", server->name);
	*link = (struct nbd_link){
		.server = server, .nbd = nbd_create(), .fd = -1, .nudge_fd = -1
	};
	link->silence.limit = server->answer_timeout * INT64_C(1000);
	if (!link->nbd)
		ret = error_set(err, ENOMEM, "%s: %s", server->name, libnbd_reason());
	else if ((ret = connect_link(link, context, epoch, deadline, &own)) < 0)
		ret = explain_failure(link, ret, began, deadline, &own, err);
	if (ret < 0)
		nbd_link_close(link);
	else
		*result = link;
	return ret;
}
