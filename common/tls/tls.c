/* tls: how a connection goes, and how it ends.
 *
 * Its phases only follow each other to the right:
 *
 *	SHAKING -> UNPROVEN -> UP -> LEAVING
 *	               |       |        |
 *	               +-------+--------+--> OVER
 *
 *	UNPROVEN  by tls_open(): we are content with the server, but by TLS 1.3 it looks at our
 *	          certificate, or our key, only now
 *	UP        by the first data: it is content with us
 *	LEAVING   by tls_goodbye(): it may close the connection as it likes
 *	OVER      by its close_notify, or by a failure, which stays to be told: nothing more is read
 *	          from it, and libnbd reads the end of file
 *
 * A failure while SHAKING is tls_open()'s. The two directions know more: waits_for tells what
 * reading has to wait for; and a socket that takes nothing more (write_shut) is read on, since the
 * server may have said why.
 *
 * No memory is shared and no lock held: all is the thread's that calls. */
#include "tls/tls.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tls/tls-error.h"

/* OpenSSL never waits for room to write: then no write of it is half done when the server's key
 * update asks for an answer, which would have to go before it. So all records of a full out must
 * fit in sealed, and a few answers. */
#define RECORD      (16 * 1024)
#define RECORD_MORE 64 /* a record's header, tag and padding, at the most */
#define BUFFER      (16 * RECORD)
#define SEALED      (BUFFER + BUFFER / RECORD * RECORD_MORE + 4096)
#define INNER_SPACE (2 * BUFFER) /* what the kernel may hold of the pair; it may say less */
#define GOODBYE_MS  1000

/* Bytes that wait to be passed on: from at to end. */
struct span {
	size_t at, end;
};

struct tls {
	struct tls_context *context;
	SSL *ssl;
	int fd;         /* to the server */
	int inner;      /* the other end is libnbd's; or -1 */
	size_t swallow; /* bytes to come from there that aren't for the server */

	struct tls_state state;
	enum { NOTHING, TO_READ, TO_WRITE } waits_for; /* the next SSL_read() */
	bool write_shut;                               /* the server takes nothing any more */
	bool was_reset;                                /* which a socket tells once: to send() */
	bool resumed;                                  /* by a ticket */
	struct error failure;

	struct span in, out, sealed;
	uint8_t in_bytes[BUFFER];     /* from the server */
	uint8_t out_bytes[BUFFER];    /* for it */
	uint8_t sealed_bytes[SEALED]; /* for it, encrypted */
};

static void advance(struct tls *tls, enum tls_phase to)
{
	if (to > tls->state.phase)
		tls->state.phase = to;
}

/* ---- the socket, as OpenSSL sees it ---- */

static int bio_read(BIO *bio, char *buf, int size)
{
	struct tls *tls = BIO_get_data(bio);
	ssize_t n = recv(tls->fd, buf, size, 0);

	BIO_clear_retry_flags(bio);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(bio);
	else if (n < 0)
		tls->state.end = errno;
	else if (n == 0)
		tls->state.end = tls->was_reset ? ECONNRESET : TLS_END_OF_STREAM;
	return n;
}

static int bio_write(BIO *bio, const char *buf, int len)
{
	struct tls *tls = BIO_get_data(bio);
	struct span *sealed = &tls->sealed;

	BIO_clear_retry_flags(bio);
	if ((size_t)len > SEALED - sealed->end) {
		BIO_set_retry_write(bio);
		return -1;
	}
	memcpy(tls->sealed_bytes + sealed->end, buf, len);
	sealed->end += len;
	return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	const struct tls *tls = BIO_get_data(bio);

	(void)number;
	(void)pointer;
	if (command == BIO_CTRL_FLUSH)
		return 1;
	return command == BIO_CTRL_EOF && tls->state.end == TLS_END_OF_STREAM;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ndio");

	if (method && BIO_meth_set_read(method, bio_read) &&
	    BIO_meth_set_write(method, bio_write) && BIO_meth_set_ctrl(method, bio_ctrl))
		bio_method = method;
	else
		BIO_meth_free(method);
}

static int attach_bio(struct tls *tls)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	pthread_once(&once, make_bio_method);
	bio = bio_method ? BIO_new(bio_method) : NULL;
	if (!bio)
		return -ENOMEM;
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	return 0;
}

/* ---- sending ---- */

/* True when all is gone. */
static bool send_sealed(struct tls *tls)
{
	struct span *sealed = &tls->sealed;

	while (sealed->at < sealed->end && !tls->write_shut) {
		ssize_t n = send(tls->fd, tls->sealed_bytes + sealed->at, sealed->end - sealed->at,
				 MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return false;
		if (n >= 0)
			sealed->at += n;
		else if (errno != EINTR) {
			tls->write_shut = true;
			tls->was_reset = errno == ECONNRESET;
			tls->waits_for =
				NOTHING; /* why may be there to be read; see read_ended() */
		}
	}
	*sealed = (struct span){ 0 };
	return true;
}

/* ---- failures ---- */

static void tls_fail(struct tls *tls)
{
	const struct tls_state *state = &tls->state;

	if (state->phase < TLS_LEAVING || (state->phase == TLS_LEAVING && !state->end))
		tls_explain(tls->context, tls->ssl, state, &tls->failure);
	ERR_clear_error();
	advance(tls, TLS_OVER);
	send_sealed(tls); /* OpenSSL's alert, if it goes */
}

const char *tls_failure(const struct tls *tls)
{
	return tls->failure.text[0] ? tls->failure.text : NULL;
}

/* ---- from libnbd to the server ---- */

/* Bytes taken; 0 if there are none. */
static size_t take_inner(struct tls *tls)
{
	ssize_t n;

	while (tls->swallow > 0) {
		uint8_t ignored[16];

		n = recv(tls->inner, ignored,
			 tls->swallow < sizeof(ignored) ? tls->swallow : sizeof(ignored),
			 MSG_DONTWAIT);
		if (n <= 0)
			return 0;
		tls->swallow -= n;
	}
	n = recv(tls->inner, tls->out_bytes, BUFFER, MSG_DONTWAIT);
	return n > 0 ? n : 0;
}

void tls_pump_out(struct tls *tls)
{
	size_t len, written;

	while (send_sealed(tls) && tls->inner >= 0 && tls->state.phase != TLS_OVER &&
	       (len = take_inner(tls)) > 0) {
		ERR_clear_error();
		if (!SSL_write_ex(tls->ssl, tls->out_bytes, len, &written))
			tls_fail(tls);
	}
}

/* ---- from the server to libnbd ---- */

/* True when there is something new for libnbd to read, the end too. */
static bool hand_inner(struct tls *tls)
{
	struct span *in = &tls->in;
	size_t before = in->at;
	bool handed;
	ssize_t n = 1;

	while (in->at < in->end && n > 0) {
		n = send(tls->inner, tls->in_bytes + in->at, in->end - in->at,
			 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			in->at += n;
		else if (errno != EAGAIN)
			in->at = in->end; /* libnbd is gone */
	}
	handed = in->at > before;
	if (in->at == in->end)
		*in = (struct span){ 0 };
	if (tls->state.phase != TLS_OVER || in->end > 0)
		return handed;
	shutdown(tls->inner, SHUT_RDWR);
	return true;
}

static void read_ended(struct tls *tls)
{
	switch (SSL_get_error(tls->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		if (tls->write_shut) { /* and says nothing: what it was asked, it never heard */
			tls->state.end = EPIPE;
			tls_fail(tls);
		}
		tls->waits_for = TO_READ;
		break;
	case SSL_ERROR_WANT_WRITE:
		tls->waits_for = TO_WRITE;
		break;
	case SSL_ERROR_ZERO_RETURN:
		if (tls->state.phase < TLS_LEAVING)
			error_set(&tls->failure, ENOTCONN, "the server closed the connection");
		advance(tls, TLS_OVER);
		break;
	default:
		tls_fail(tls);
	}
}

static void read_records(struct tls *tls)
{
	struct span *in = &tls->in;
	size_t n;

	ERR_clear_error();
	while (BUFFER - in->end >= RECORD) {
		if (!SSL_read_ex(tls->ssl, tls->in_bytes + in->end, BUFFER - in->end, &n)) {
			read_ended(tls);
			return;
		}
		in->end += n;
		advance(tls, TLS_UP);
	}
}

bool tls_poll_fd(struct tls *tls, struct pollfd *fd)
{
	/* What is left was too much for the socket, which libnbd may have emptied since. If it is
	 * still full, libnbd's end of it can be read, and whoever waits for that is woken. */
	bool handed = tls->in.end > 0 && hand_inner(tls);
	bool has_room = tls->in.end == 0 && tls->state.phase != TLS_OVER;

	fd->events = (has_room && tls->waits_for == TO_READ ? POLLIN : 0) |
		     (tls->sealed.end > 0 ? POLLOUT : 0);
	fd->fd = fd->events ? tls->fd : -1;
	fd->revents = 0;
	return handed || (has_room && tls->waits_for == NOTHING);
}

bool tls_pump_in(struct tls *tls, short revents)
{
	if (revents & (POLLIN | POLLHUP | POLLERR))
		tls->waits_for = NOTHING;
	if (send_sealed(tls) && tls->waits_for == TO_WRITE)
		tls->waits_for = NOTHING;
	if (tls->in.end == 0 && tls->state.phase != TLS_OVER && tls->waits_for == NOTHING)
		read_records(tls);
	return hand_inner(tls);
}

/* ---- opening ---- */

static int asked_who_we_are(SSL *ssl, void *opaque)
{
	struct tls *tls = opaque;

	(void)ssl;
	tls->state.asked = TLS_ASKED_CERTIFICATE;
	return 1; /* with what there is */
}

/* OpenSSL refuses it, and then it is the server's turn. Only TLS 1.2 has that. */
static void look_for_renegotiation(int writing, int version, int type, const void *message,
				   size_t len, SSL *ssl, void *opaque)
{
	struct tls *tls = opaque;

	(void)version;
	(void)ssl;
	if (!writing && type == SSL3_RT_HANDSHAKE && len > 0 &&
	    *(const uint8_t *)message == SSL3_MT_HELLO_REQUEST)
		tls->state.asked = TLS_ASKED_RENEGOTIATION;
}

static int shake_hands(struct tls *tls, const struct deadline *deadline, struct error *err)
{
	SSL_set_cert_cb(tls->ssl, asked_who_we_are, tls);
	for (;;) {
		int ret, want;
		bool sent;

		ERR_clear_error();
		ret = SSL_connect(tls->ssl);
		want = SSL_get_error(tls->ssl, ret);
		sent = send_sealed(tls);
		if (ret == 1 && sent)
			return 0;
		if (want == SSL_ERROR_ZERO_RETURN)
			tls->state.end = TLS_END_OF_STREAM; /* as good as */
		if (ret != 1 && want != SSL_ERROR_WANT_READ && want != SSL_ERROR_WANT_WRITE)
			return tls_explain(tls->context, tls->ssl, &tls->state, err);
		ret = deadline_wait(tls->fd, (ret != 1 ? POLLIN : 0) | (sent ? 0 : POLLOUT),
				    deadline);
		if (ret < 0)
			return error_set(err, -ret, "the server doesn't finish the handshake");
	}
}

int tls_open(struct tls_context *context, int fd, const struct deadline *deadline,
	     struct tls **result, struct error *err)
{
	struct tls *tls = malloc(sizeof(*tls));
	int ret = -ENOMEM;

	if (!tls) {
		close(fd);
		return error_set(err, ENOMEM, "no memory");
	}
	memset(tls, 0, offsetof(struct tls, in_bytes));
	tls->context = context;
	tls->fd = fd;
	tls->inner = -1;
	tls->ssl = tls_context_connection(context);
	if (!tls->ssl || attach_bio(tls) < 0)
		ret = error_set(err, ENOMEM, "no memory");
	else
		ret = shake_hands(tls, deadline, err);
	if (ret == 0)
		ret = tls_context_check(context, tls->ssl, err);
	ERR_clear_error();
	if (ret < 0) {
		tls_close(tls);
		return ret;
	}
	advance(tls, TLS_UNPROVEN);
	if (SSL_version(tls->ssl) == TLS1_2_VERSION) {
		SSL_set_msg_callback(tls->ssl, look_for_renegotiation);
		SSL_set_msg_callback_arg(tls->ssl, tls);
	}
	/* A pre-shared key counts as reused, too. */
	tls->resumed =
		SSL_session_reused(tls->ssl) && SSL_SESSION_has_ticket(SSL_get_session(tls->ssl));
	*result = tls;
	return 0;
}

int tls_inner_socket(struct tls *tls, const void *greeting, size_t len, size_t swallow,
		     struct error *err)
{
	const int space = INNER_SPACE;
	int pair[2];

	assert(tls->inner < 0);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return error_set(err, errno, "no sockets: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
	tls->inner = pair[0];
	tls->swallow = swallow;
	/* Nothing is in it yet: it takes that much. */
	if (send(pair[0], greeting, len, MSG_NOSIGNAL) != (ssize_t)len) {
		close(pair[1]);
		return error_set(err, EIO, "no room in a socket");
	}
	return pair[1];
}

/* ---- ending ---- */

/* Sends all there is. False if that can't be done in time. */
static bool tls_drain(struct tls *tls, const struct deadline *deadline)
{
	do
		tls_pump_out(tls);
	while (tls->sealed.end > 0 && deadline_wait(tls->fd, POLLOUT, deadline) == 0);
	return tls->sealed.end == 0 && !tls->write_shut;
}

void tls_goodbye(struct tls *tls)
{
	const struct deadline deadline = { .at = clock_ms() + GOODBYE_MS };
	bool broken = tls->state.phase == TLS_OVER &&
		      !(SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN);

	advance(tls, TLS_LEAVING);
	if (broken || !tls_drain(tls, &deadline))
		return;
	ERR_clear_error();
	SSL_shutdown(tls->ssl);
	ERR_clear_error();
	tls_drain(tls, &deadline);
}

void tls_close(struct tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	if (tls->inner >= 0)
		close(tls->inner);
	close(tls->fd);
	OPENSSL_cleanse(tls->in_bytes, sizeof(tls->in_bytes));
	OPENSSL_cleanse(tls->out_bytes, sizeof(tls->out_bytes));
	free(tls);
}

/* ---- reports ---- */

static void print_subject(X509 *certificate, char *text, size_t size)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int n = 0;

	if (bio &&
	    X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) > 0)
		n = BIO_read(bio, text, size - 1);
	text[n > 0 ? n : 0] = '\0';
	BIO_free(bio);
}

void tls_read_facts(const struct tls *tls, struct tls_facts *facts)
{
	X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
	const struct tls_parties *parties = tls_context_parties(tls->context);

	*facts = (struct tls_facts){ .resumed = tls->resumed };
	snprintf(facts->version, sizeof(facts->version), "%s", SSL_get_version(tls->ssl));
	snprintf(facts->cipher, sizeof(facts->cipher), "%s", SSL_get_cipher_name(tls->ssl));
	if (parties->user)
		snprintf(facts->peer, sizeof(facts->peer), "user %s", parties->user);
	else if (certificate && parties->verify)
		print_subject(certificate, facts->peer, sizeof(facts->peer));
	else
		return;
	if (!facts->peer[0]) /* the name is elsewhere in the certificate */
		snprintf(facts->peer, sizeof(facts->peer), "%s",
			 parties->name ? parties->name : "(no subject)");
}

const char *tls_words(const struct tls_facts *facts, char text[TLS_WORDS])
{
	snprintf(text, TLS_WORDS, "%s, %s, %s%s", facts->version, facts->cipher,
		 facts->peer[0] ? facts->peer : "a server that is not verified",
		 facts->resumed ? ", known by a ticket" : "");
	return text;
}
