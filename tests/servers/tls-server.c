/* tls-server [OPTION...] BACKEND: TLS by OpenSSL in front of a plain NBD server, whose Unix socket
 * BACKEND is. It greets (fixed newstyle), takes NBD_OPT_STARTTLS, and relays what it decrypts; each
 * connection has one of its own to the backend.
 *
 *   -u SOCKET       listens on this Unix socket; otherwise on a free port of localhost,
 *   -p FILE         which is written here
 *   -i FILE         where its process number is written once it listens
 *   -k FILE         pre-shared keys, USER:HEX on each line
 *   -d DIR          server-cert.pem, server-key.pem and ca-cert.pem are here
 *   -c              a client needs a certificate of that CA
 *   -v MIN -V MAX   versions: 1.0 to 1.3
 *   -s COUNT        session tickets of each connection (none)
 *   -U MS           a key update so often; with -R it asks for the client's as well
 *   -n MS           asks for a renegotiation so often (TLS 1.2)
 *   -x WHAT@PLACE   in each connection, once: garbage (64 bytes of noise), cut (the stream ends,
 *                   perhaps inside a record), reset (TCP only), stall (nothing is sent or received
 *                   any more), deaf (what the client sends from then on is refused; Unix sockets
 *                   only), end (the stream ends behind a record, without close_notify), notify (it
 *                   ends, with one). PLACE counts the bytes sent since TLS began, or, as done+N,
 *                   since the handshake was done.
 *   -g HEX -r HEX   sent for a greeting, and as the reply to STARTTLS: then no TLS follows, and the
 *                   client's options are only counted; "" is silence
 *
 * Each line on stdout is about the connection with the number at its start. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../lib/fail.h"
#include "nbd-wire.h"

#define MAX_CONNECTIONS 64
#define FLOW            (64 * 1024)
#define TIMEOUT         300   /* seconds, of any wait: no test takes as long */
#define NOISE           64    /* bytes of garbage */
#define DRAIN_MS        20000 /* that a client has to close its end */

enum action { NOTHING, GARBAGE, CUT, RESET, STALL, DEAF, END, NOTIFY };

static const char *const actions[] = {
	[GARBAGE] = "garbage", [CUT] = "cut", [RESET] = "reset",   [STALL] = "stall",
	[DEAF] = "deaf",       [END] = "end", [NOTIFY] = "notify",
};

struct raw {
	uint8_t *data;
	size_t len;
};

static struct {
	const char *socket, *port_file, *pid_file, *keys, *certificates, *backend;
	bool verify_client;
	int min, max; /* OpenSSL's version numbers */
	int tickets;
	int update_ms, renegotiate_ms;
	bool request_update;
	enum action action;
	bool when_done; /* place counts from the handshake's end */
	uint64_t place;
	const struct raw *greeting, *reply;
} options = { .min = TLS1_2_VERSION, .max = TLS1_3_VERSION };

/* One direction's bytes, on their way. */
struct flow {
	uint8_t data[FLOW];
	size_t start, end;
};

struct connection {
	unsigned number;
	int fd, backend;
	SSL *ssl;
	uint8_t client_flags[4];
	bool used_psk, done; /* done: with the handshake */
	char user[64];
	uint64_t sent, limit; /* raw bytes since TLS began; where the action is due */
	bool acted, stalled;
	bool up_ended, down_ended;
	bool half_written;    /* a record is: nothing else can be sent before its rest */
	struct flow up, down; /* to the backend, to the client */
	int64_t next_update, next_renegotiation; /* now_ms() */
	unsigned updates_sent, updates_received;
};

static sem_t free_places;

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

static void say(const struct connection *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* By one write: another connection's line doesn't mix with it. */
static void say(const struct connection *c, const char *fmt, ...)
{
	char line[512];
	int len = snprintf(line, sizeof(line), "%u: ", c->number);
	va_list args;

	va_start(args, fmt);
	len += vsnprintf(line + len, sizeof(line) - len - 1, fmt, args);
	va_end(args);
	if (len > (int)sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	if (write(STDOUT_FILENO, line, len) != len)
		exit(1);
}

static const char *ssl_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	return reason ? reason : "the stream ended";
}

/* ---- the wire: OpenSSL's BIO over a socket, where the action is ---- */

static void set_limit(struct connection *c)
{
	c->limit = options.action && options.when_done == c->done && !c->acted ?
			   (c->done ? c->sent : 0) + options.place :
			   UINT64_MAX;
}

/* The end, behind all that was sent. What lies unread when a TCP socket is closed would reset it, and that
 * overtakes. */
static void end_stream(int fd)
{
	const int64_t until = now_ms() + DRAIN_MS;
	struct pollfd in = { .fd = fd, .events = POLLIN };
	uint8_t unread[NOISE];
	socklen_t len = sizeof(int);
	int domain = AF_UNIX;

	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	if (domain == AF_UNIX) {
		shutdown(fd, SHUT_RDWR);
		return;
	}
	shutdown(fd, SHUT_WR);
	while (now_ms() < until && poll(&in, 1, until - now_ms()) > 0)
		if (recv(fd, unread, sizeof(unread), MSG_DONTWAIT) <= 0)
			return;
}

/* Once all that goes before it is on the wire. */
static void act(struct connection *c)
{
	const struct linger at_once = { .l_onoff = 1 };
	uint8_t noise[NOISE];

	c->acted = true;
	c->limit = UINT64_MAX;
	say(c, "%s after %llu bytes", actions[options.action], (unsigned long long)c->sent);
	if (options.action == GARBAGE) {
		RAND_bytes(noise, sizeof(noise));
		noise[0] = 'N'; /* the start of no record */
		send(c->fd, noise, sizeof(noise), MSG_NOSIGNAL);
	} else if (options.action == STALL) {
		c->stalled = true;
	} else if (options.action == DEAF) {
		shutdown(c->fd, SHUT_RD);
	} else if (options.action == RESET) {
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		shutdown(c->fd, SHUT_RD);
	} else {
		end_stream(c->fd);
	}
}

static bool acts_inside_records(void)
{
	return options.action != END && options.action != NOTIFY;
}

static int wire_write(BIO *bio, const char *data, int len)
{
	struct connection *c = BIO_get_data(bio);
	ssize_t sent;

	BIO_clear_retry_flags(bio);
	if (acts_inside_records()) {
		if (c->sent == c->limit)
			act(c);
		if ((uint64_t)len > c->limit - c->sent)
			len = c->limit - c->sent;
	}
	if (c->stalled) {
		BIO_set_retry_write(bio);
		return -1;
	}
	sent = send(c->fd, data, len, MSG_NOSIGNAL);
	if (sent < 0 && errno == EAGAIN)
		BIO_set_retry_write(bio);
	if (sent > 0)
		c->sent += sent;
	return sent;
}

static int wire_read(BIO *bio, char *data, int len)
{
	struct connection *c = BIO_get_data(bio);
	ssize_t got = recv(c->fd, data, len, 0);

	BIO_clear_retry_flags(bio);
	if (got < 0 && errno == EAGAIN)
		BIO_set_retry_read(bio);
	return got;
}

static long wire_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

static BIO *wire_new(struct connection *c)
{
	static BIO_METHOD *method;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	BIO *bio;

	pthread_mutex_lock(&lock);
	if (!method) {
		method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
		BIO_meth_set_write(method, wire_write);
		BIO_meth_set_read(method, wire_read);
		BIO_meth_set_ctrl(method, wire_ctrl);
	}
	pthread_mutex_unlock(&lock);
	bio = BIO_new(method);
	BIO_set_data(bio, c);
	BIO_set_init(bio, 1);
	return bio;
}

/* ---- keys and certificates ---- */

static struct connection *of_ssl(const SSL *ssl)
{
	return SSL_get_app_data(ssl);
}

/* The key of a user, from the file; 0 if there is none. What asks may also be a ticket. */
static unsigned find_key(SSL *ssl, const char *identity, unsigned char *key, unsigned max)
{
	struct connection *c = of_ssl(ssl);
	FILE *file = fopen(options.keys, "r");
	char line[512];
	size_t len = 0;

	if (!file)
		fail("%s: %s", options.keys, strerror(errno));
	while (len == 0 && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		line[strcspn(line, "\r\n")] = '\0';
		if (!colon)
			continue;
		*colon++ = '\0';
		if (strcmp(line, identity) == 0 &&
		    OPENSSL_hexstr2buf_ex(key, max, &len, colon, '\0'))
			snprintf(c->user, sizeof(c->user), "%s", identity);
	}
	fclose(file);
	c->used_psk = len > 0;
	return len;
}

static void count_updates(int writing, int version, int type, const void *data, size_t len,
			  SSL *ssl, void *opaque)
{
	(void)version;
	(void)opaque;
	if (!writing && type == SSL3_RT_HANDSHAKE && len > 0 &&
	    *(const uint8_t *)data == SSL3_MT_KEY_UPDATE)
		of_ssl(ssl)->updates_received++;
}

static const char *in_dir(const char *name)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/%s", options.certificates, name);
	return path;
}

static void use_certificates(SSL_CTX *ctx)
{
	if (SSL_CTX_use_certificate_chain_file(ctx, in_dir("server-cert.pem")) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, in_dir("server-key.pem"), SSL_FILETYPE_PEM) != 1)
		fail("%s: %s", options.certificates, ssl_reason());
	if (!options.verify_client)
		return;
	if (SSL_CTX_load_verify_file(ctx, in_dir("ca-cert.pem")) != 1)
		fail("%s: %s", options.certificates, ssl_reason());
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"nbd", 3);
}

static SSL_CTX *make_context(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	SSL_CTX_set_min_proto_version(ctx, options.min);
	SSL_CTX_set_max_proto_version(ctx, options.max);
	if (options.max < TLS1_2_VERSION)
		SSL_CTX_set_cipher_list(ctx, "DEFAULT:@SECLEVEL=0");
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_num_tickets(ctx, options.tickets);
	if (options.tickets == 0)
		SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_msg_callback(ctx, count_updates);
	if (options.keys)
		SSL_CTX_set_psk_server_callback(ctx, find_key);
	if (options.certificates)
		use_certificates(ctx);
	return ctx;
}

/* ---- before TLS; these block ---- */

static bool send_all(int fd, const void *data, size_t len)
{
	const char *at = data;
	ssize_t sent;

	for (; len > 0; at += sent, len -= sent) {
		sent = send(fd, at, len, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
	}
	return true;
}

static bool recv_all(int fd, void *data, size_t len)
{
	return recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

static bool skip(int fd, uint64_t len)
{
	char data[4096];

	for (; len > 0; len -= len < sizeof(data) ? len : sizeof(data))
		if (!recv_all(fd, data, len < sizeof(data) ? len : sizeof(data)))
			return false;
	return true;
}

static bool send_raw(int fd, const struct raw *raw)
{
	return send_all(fd, raw->data, raw->len);
}

static bool send_reply(int fd, uint32_t option, uint32_t type)
{
	struct nbd_option_reply reply = {
		.magic = htobe64(NBD_REP_MAGIC),
		.option = htobe32(option),
		.type = htobe32(type),
	};

	return send_all(fd, &reply, sizeof(reply));
}

/* Takes options until the one that starts TLS; true with that one, after its reply. */
static bool take_options(struct connection *c)
{
	for (;;) {
		struct nbd_option option;
		uint32_t type;

		if (!recv_all(c->fd, &option, sizeof(option)) || !skip(c->fd, be32toh(option.len)))
			return false;
		type = be32toh(option.option);
		say(c, "option %u", type);
		if (type == NBD_OPT_STARTTLS && !options.reply)
			return send_reply(c->fd, type, NBD_REP_ACK);
		if (type == NBD_OPT_STARTTLS ? !send_raw(c->fd, options.reply) :
					       !send_reply(c->fd, type, NBD_REP_ERR_TLS_REQD))
			return false;
	}
}

static bool greet(struct connection *c)
{
	const struct nbd_greeting greeting = {
		.magic = htobe64(NBD_MAGIC),
		.opts_magic = htobe64(NBD_OPTS_MAGIC),
		.flags = htobe16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};
	bool sent = options.greeting ? send_raw(c->fd, options.greeting) :
				       send_all(c->fd, &greeting, sizeof(greeting));

	return sent && recv_all(c->fd, c->client_flags, sizeof(c->client_flags));
}

static bool reach_backend(struct connection *c)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct nbd_greeting greeting;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", options.backend);
	c->backend = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(c->backend, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    recv_all(c->backend, &greeting, sizeof(greeting)) &&
	    send_all(c->backend, c->client_flags, sizeof(c->client_flags)))
		return true;
	say(c, "the backend isn't there");
	return false;
}

/* ---- TLS; nothing blocks but poll ---- */

/* Without a busy loop: until one of the events, or the next thing that is due. */
static void wait_for(struct connection *c, short tls_events, short backend_events)
{
	struct pollfd fds[] = {
		{ .fd = c->stalled || !tls_events ? -1 : c->fd, .events = tls_events },
		{ .fd = backend_events ? c->backend : -1, .events = backend_events },
		{ .fd = c->stalled ? c->fd : -1, .events = POLLRDHUP },
	};
	int64_t due = now_ms() + TIMEOUT * 1000;
	int64_t left;

	if (c->next_update < due && !c->half_written)
		due = c->next_update;
	if (c->next_renegotiation < due && !c->half_written)
		due = c->next_renegotiation;
	if (c->stalled) {
		fds[1].fd = -1;
		due = now_ms() + TIMEOUT * 1000;
	}
	left = due - now_ms();
	if (poll(fds, 3, left > 0 ? left : 0) > 0 && fds[2].revents) {
		say(c, "the client gave up");
		c->up_ended = c->down_ended = true;
	}
}

/* What OpenSSL needs to go on; 0: it can't. */
static short needed(struct connection *c, int ret)
{
	switch (SSL_get_error(c->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		return POLLIN;
	case SSL_ERROR_WANT_WRITE:
		return POLLOUT;
	default:
		return 0;
	}
}

static bool shake_hands(struct connection *c)
{
	for (;;) {
		int ret;
		short events;

		ERR_clear_error();
		ret = SSL_accept(c->ssl);
		if (ret == 1)
			break;
		events = needed(c, ret);
		if (events)
			wait_for(c, events, 0);
		if (!events || c->up_ended) {
			say(c, "no handshake: %s", ssl_reason());
			return false;
		}
	}
	c->done = true;
	set_limit(c);
	say(c, "%s %s %s%s", SSL_get_version(c->ssl), SSL_get_cipher_name(c->ssl),
	    c->used_psk                ? "psk " :
	    SSL_session_reused(c->ssl) ? "resumed" :
					 "new",
	    c->used_psk ? c->user : "");
	return true;
}

/* The client's bytes, to the backend. False at the end of the connection. */
static bool move_up(struct connection *c, short *tls_events, short *backend_events)
{
	struct flow *up = &c->up;

	while (!c->up_ended) {
		ssize_t ret;

		if (up->start == up->end) {
			up->start = up->end = 0;
			ERR_clear_error();
			ret = SSL_read(c->ssl, up->data, FLOW);
			if (ret <= 0) {
				short events = needed(c, ret);

				*tls_events |= events;
				if (events)
					return true;
				c->up_ended = true;
				if (c->acted && options.action == DEAF)
					return true;
				shutdown(c->backend, SHUT_WR);
				if (SSL_get_shutdown(c->ssl) & SSL_RECEIVED_SHUTDOWN) {
					say(c, "the client's close_notify");
					return true;
				}
				say(c, "the client's end: %s", ssl_reason());
				return false;
			}
			up->end = ret;
		}
		ret = send(c->backend, up->data + up->start, up->end - up->start,
			   MSG_NOSIGNAL | MSG_DONTWAIT);
		if (ret < 0) {
			*backend_events |= POLLOUT;
			return errno == EAGAIN;
		}
		up->start += ret;
	}
	return true;
}

static bool ends_here(struct connection *c)
{
	if (acts_inside_records() || c->sent < c->limit)
		return false;
	if (options.action == NOTIFY)
		SSL_shutdown(c->ssl);
	act(c);
	return true;
}

static bool is_due(int64_t *next, int every)
{
	if (now_ms() < *next)
		return false;
	*next = now_ms() + every;
	return true;
}

/* Between records. */
static void do_what_is_due(struct connection *c)
{
	int type = options.request_update ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;

	if (is_due(&c->next_update, options.update_ms) && SSL_key_update(c->ssl, type)) {
		c->updates_sent++;
		SSL_do_handshake(c->ssl);
	}
	if (is_due(&c->next_renegotiation, options.renegotiate_ms) && SSL_renegotiate(c->ssl)) {
		say(c, "asks for a renegotiation");
		SSL_do_handshake(c->ssl);
	}
}

/* The backend's bytes, to the client. False at the end of the connection. */
static bool move_down(struct connection *c, short *tls_events, short *backend_events)
{
	struct flow *down = &c->down;

	while (!c->down_ended) {
		ssize_t ret;

		if (ends_here(c))
			return false;
		if (!c->half_written)
			do_what_is_due(c);
		if (down->start == down->end) {
			down->start = 0;
			ret = recv(c->backend, down->data, FLOW, MSG_DONTWAIT);
			down->end = ret > 0 ? ret : 0;
			if (ret < 0) {
				*backend_events |= POLLIN;
				return errno == EAGAIN;
			}
			if (ret == 0) {
				SSL_shutdown(c->ssl);
				c->down_ended = true;
				break;
			}
		}
		ERR_clear_error();
		ret = SSL_write(c->ssl, down->data + down->start, down->end - down->start);
		if (ret <= 0) {
			short events = needed(c, ret);

			c->half_written = true;
			*tls_events |= events;
			return events;
		}
		c->half_written = false;
		down->start += ret;
	}
	return true;
}

static void relay(struct connection *c)
{
	c->next_update = options.update_ms ? now_ms() + options.update_ms : INT64_MAX;
	c->next_renegotiation =
		options.renegotiate_ms ? now_ms() + options.renegotiate_ms : INT64_MAX;
	while (!c->up_ended || !c->down_ended) {
		short tls_events = 0, backend_events = 0;

		if (!move_up(c, &tls_events, &backend_events) ||
		    !move_down(c, &tls_events, &backend_events))
			break;
		if (tls_events || backend_events)
			wait_for(c, tls_events, backend_events);
	}
	if (options.update_ms)
		say(c, "key updates: %u sent, %u received", c->updates_sent, c->updates_received);
}

static void *serve(void *opaque)
{
	struct connection *c = opaque;

	if (greet(c) && take_options(c) && reach_backend(c)) {
		fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
		set_limit(c);
		if (shake_hands(c))
			relay(c);
	}
	say(c, "closed");
	SSL_free(c->ssl);
	close(c->fd);
	if (c->backend >= 0)
		close(c->backend);
	free(c);
	sem_post(&free_places);
	return NULL;
}

/* ---- connections ---- */

static void start_connection(SSL_CTX *ctx, int fd)
{
	static unsigned count;
	struct connection *c = calloc(1, sizeof(*c));
	BIO *wire;
	pthread_t thread;

	if (!c)
		fail("no memory");
	c->number = ++count;
	c->fd = fd;
	c->backend = -1;
	c->ssl = SSL_new(ctx);
	wire = wire_new(c);
	SSL_set_app_data(c->ssl, c);
	SSL_set_bio(c->ssl, wire, wire);
	if (pthread_create(&thread, NULL, serve, c) != 0)
		fail("no thread");
	pthread_detach(thread);
}

static int listen_unix(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", options.socket);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		fail("%s: %s", options.socket, strerror(errno));
	return fd;
}

static void write_number(const char *path, unsigned number)
{
	FILE *file = fopen(path, "w");

	if (!file || fprintf(file, "%u\n", number) < 0 || fclose(file) != 0)
		fail("%s: %s", path, strerror(errno));
}

static int listen_tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htobe32(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&address, len) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		fail("localhost: %s", strerror(errno));
	write_number(options.port_file, be16toh(address.sin_port));
	return fd;
}

/* ---- the command line ---- */

static int parse_version(const char *text)
{
	static const char *const versions[] = { "1.0", "1.1", "1.2", "1.3" };

	for (int i = 0; i < 4; i++)
		if (strcmp(text, versions[i]) == 0)
			return TLS1_VERSION + i;
	fail("%s: no version", text);
}

static void parse_action(const char *text)
{
	const char *place = strchr(text, '@');

	for (int i = GARBAGE; place && i <= NOTIFY; i++)
		if (strncmp(text, actions[i], place - text) == 0)
			options.action = i;
	if (options.action == NOTHING)
		fail("%s: no action", text);
	options.when_done = strncmp(place, "@done+", 6) == 0;
	options.place = strtoull(place + (options.when_done ? 6 : 1), NULL, 10);
}

static const struct raw *parse_hex(const char *text)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	long len = 0;

	raw->data = *text ? OPENSSL_hexstr2buf(text, &len) : NULL;
	if (*text && !raw->data)
		fail("%s: no hex", text);
	raw->len = len;
	return raw;
}

static void parse_options(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "u:p:i:k:d:cv:V:s:U:Rn:x:g:r:")) != -1) {
		switch (opt) {
		case 'u':
			options.socket = optarg;
			break;
		case 'p':
			options.port_file = optarg;
			break;
		case 'i':
			options.pid_file = optarg;
			break;
		case 'k':
			options.keys = optarg;
			break;
		case 'd':
			options.certificates = optarg;
			break;
		case 'c':
			options.verify_client = true;
			break;
		case 'v':
			options.min = parse_version(optarg);
			break;
		case 'V':
			options.max = parse_version(optarg);
			break;
		case 's':
			options.tickets = atoi(optarg);
			break;
		case 'U':
			options.update_ms = atoi(optarg);
			break;
		case 'R':
			options.request_update = true;
			break;
		case 'n':
			options.renegotiate_ms = atoi(optarg);
			break;
		case 'x':
			parse_action(optarg);
			break;
		case 'g':
			options.greeting = parse_hex(optarg);
			break;
		case 'r':
			options.reply = parse_hex(optarg);
			break;
		default:
			fail("see the start of tls-server.c");
		}
	}
	if (optind + 1 != argc || !options.socket == !options.port_file ||
	    (!options.keys && !options.certificates))
		fail("see the start of tls-server.c");
	if (options.min > options.max)
		options.min = options.max;
	options.backend = argv[optind];
}

int main(int argc, char **argv)
{
	SSL_CTX *ctx;
	int listener, fd;

	signal(SIGPIPE, SIG_IGN);
	parse_options(argc, argv);
	ctx = make_context();
	listener = options.socket ? listen_unix() : listen_tcp();
	if (listen(listener, MAX_CONNECTIONS) < 0 || sem_init(&free_places, 0, MAX_CONNECTIONS) < 0)
		fail("listen: %s", strerror(errno));
	if (options.pid_file)
		write_number(options.pid_file, getpid());
	for (;;) {
		sem_wait(&free_places);
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			fail("accept: %s", strerror(errno));
		start_connection(ctx, fd);
	}
}
