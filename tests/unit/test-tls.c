/* One TLS connection against a server of OpenSSL's in another thread: what moves, what ends it,
 * and who is believed. Certificates are for the tests with real servers. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tls/tls.h"

#define TIMEOUT 120000 /* ms, for what must happen, however busy the machine is */
#define TOTAL   (8 * 1024 * 1024)
#define KEY     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define OTHER   "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static char key_file[] = "/tmp/ndio-tls.XXXXXX";

/* ---- the server ---- */

struct server {
	SSL_CTX *ctx;
	SSL *ssl;
	int fd;
	void (*serve)(struct server *server);
	pthread_t thread;
	bool accepted, ended_well;
	size_t received;
};

static int find_key(SSL *ssl, const unsigned char *id, size_t id_len, SSL_SESSION **session)
{
	const unsigned char suite[] = { 0x13, 0x01 };
	unsigned char key[32];

	*session = NULL;
	if (id_len != 5 || memcmp(id, "alice", 5) != 0)
		return 1;
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = i;
	*session = SSL_SESSION_new();
	return SSL_SESSION_set1_master_key(*session, key, sizeof(key)) &&
	       SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, suite)) &&
	       SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION);
}

static unsigned find_key_12(SSL *ssl, const char *id, unsigned char *key, unsigned size)
{
	if (strcmp(id, "alice") != 0 || size < 32)
		return 0;
	for (unsigned i = 0; i < 32; i++)
		key[i] = i;
	return 32;
}

static void *run_server(void *opaque)
{
	struct server *server = opaque;
	sigset_t pipe;

	/* OpenSSL's own sockets know no MSG_NOSIGNAL. Only here: a signal of ours would be seen. */
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, NULL);
	server->accepted = SSL_accept(server->ssl) == 1;
	if (server->accepted && server->serve)
		server->serve(server);
	SSL_free(server->ssl);
	close(server->fd);
	ERR_clear_error();
	return NULL;
}

static SSL_CTX *make_server_ctx(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	assert_non_null(ctx);
	SSL_CTX_set_psk_find_session_callback(ctx, find_key);
	SSL_CTX_set_psk_server_callback(ctx, find_key_12);
	SSL_CTX_set_dh_auto(ctx, 1);
	SSL_CTX_set_num_tickets(ctx, 0);
	return ctx;
}

static void make_tcp_pair(int pair[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	pair[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(pair[0], (struct sockaddr *)&address, len), 0);
	pair[1] = accept(listener, NULL, NULL);
	assert_true(pair[1] >= 0);
	close(listener);
}

/* Without a context: one of its own. The client's end, which doesn't block. */
static int start_server_on(const int pair[2], struct server *server, SSL_CTX *ctx,
			   void (*serve)(struct server *))
{
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	*server = (struct server){ .ctx = ctx ? ctx : make_server_ctx(),
				   .fd = pair[1],
				   .serve = serve };
	server->ssl = SSL_new(server->ctx);
	SSL_set_fd(server->ssl, pair[1]);
	SSL_CTX_free(server->ctx);
	assert_int_equal(pthread_create(&server->thread, NULL, run_server, server), 0);
	return pair[0];
}

static int start_server(struct server *server, SSL_CTX *ctx, void (*serve)(struct server *))
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	return start_server_on(pair, server, ctx, serve);
}

static void echo(struct server *server)
{
	static char buf[64 * 1024];
	size_t n, written;

	while (SSL_read_ex(server->ssl, buf, sizeof(buf), &n)) {
		server->received += n;
		SSL_write_ex(server->ssl, buf, n, &written);
	}
}

static void swallow(struct server *server)
{
	static char buf[64 * 1024];
	size_t n;

	while (SSL_read_ex(server->ssl, buf, sizeof(buf), &n))
		server->received += n;
	server->ended_well = SSL_get_error(server->ssl, 0) == SSL_ERROR_ZERO_RETURN;
}

/* Until the client hangs up. */
static void pour(struct server *server)
{
	static char buf[64 * 1024];
	size_t written;

	while (SSL_write_ex(server->ssl, buf, sizeof(buf), &written))
		;
}

/* ---- the client ---- */

static struct tls_context *make_context(const char *key, bool old)
{
	const struct tls_options options = { .psk_file = key_file, .user = "alice", .old = old };
	struct tls_context *context = NULL;
	struct error err = { 0 };
	FILE *file = fopen(key_file, "w");

	assert_non_null(file);
	fprintf(file, "alice:%s\n", key);
	fclose(file);
	if (tls_context_make(&options, &context, &err) != 0)
		fail_msg("%s", err.text);
	return context;
}

struct client {
	struct tls_context *context;
	struct tls *tls;
	int inner; /* what libnbd has */
	struct server server;
};

/* In so many ms. */
static const struct deadline *in(int ms)
{
	static struct deadline deadline;

	deadline.at = clock_ms() + ms;
	return &deadline;
}

/* Connected, with 4 bytes to be swallowed, and a greeting of 3. */
static void connect_through(struct client *client, int fd)
{
	struct error err = { 0 };
	char greeting[4] = "";

	client->context = make_context(KEY, false);
	if (tls_open(client->context, fd, in(TIMEOUT), &client->tls, &err) != 0)
		fail_msg("%s", err.text);
	client->inner = tls_inner_socket(client->tls, "abc", 3, 4, &err);
	assert_true(client->inner >= 0);
	assert_int_equal(read(client->inner, greeting, sizeof(greeting)), 3);
	assert_string_equal(greeting, "abc");
	assert_int_equal(write(client->inner, "1234", 4), 4);
}

static void connect_client(struct client *client, void (*serve)(struct server *))
{
	connect_through(client, start_server(&client->server, NULL, serve));
}

static void close_client(struct client *client)
{
	tls_close(client->tls);
	close(client->inner);
	pthread_join(client->server.thread, NULL);
	tls_context_free(client->context);
}

/* A round of what nbd-link does. */
static void look(struct client *client)
{
	struct pollfd fd;
	bool ready;

	tls_pump_out(client->tls);
	ready = tls_poll_fd(client->tls, &fd);
	poll(&fd, 1, ready ? 0 : 20);
	tls_pump_in(client->tls, fd.revents);
}

/* Until the other end reads the end. */
static const char *wait_for_end(struct client *client)
{
	int64_t deadline = clock_ms() + TIMEOUT;
	char buf[4096];
	ssize_t n;

	while ((n = read(client->inner, buf, sizeof(buf))) != 0) {
		assert_true(n > 0 || errno == EAGAIN);
		assert_true(clock_ms() < deadline);
		look(client);
	}
	return tls_failure(client->tls);
}

static uint8_t byte_at(size_t at)
{
	return at * 131 + at / 251;
}

/* Writes what is left of TOTAL and reads what comes back. */
static void move_some(struct client *client, size_t *sent, size_t *back)
{
	static uint8_t buf[100 * 1000];
	size_t len = TOTAL - *sent < sizeof(buf) ? TOTAL - *sent : sizeof(buf);
	ssize_t n;

	for (size_t i = 0; i < len; i++)
		buf[i] = byte_at(*sent + i);
	n = len ? write(client->inner, buf, len) : 0;
	*sent += n > 0 ? n : 0;
	while ((n = read(client->inner, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != byte_at((*back)++))
				fail_msg("byte %zu is wrong", *back - 1);
}

static void move_all(struct client *client)
{
	int64_t deadline = clock_ms() + TIMEOUT;
	size_t sent = 0, back = 0;

	while (back < TOTAL) {
		assert_null(tls_failure(client->tls));
		assert_true(clock_ms() < deadline);
		move_some(client, &sent, &back);
		look(client);
	}
	assert_int_equal(back, TOTAL);
}

/* ---- moving bytes ---- */

static void data_go_both_ways(void **state)
{
	struct client client;
	struct tls_facts facts;

	(void)state;
	connect_client(&client, echo);
	move_all(&client);
	tls_read_facts(client.tls, &facts);
	assert_string_equal(facts.version, "TLSv1.3");
	assert_non_null(strstr(facts.cipher, "SHA256"));
	assert_string_equal(facts.peer, "user alice");
	assert_false(facts.resumed);
	close_client(&client);
	assert_int_equal(client.server.received, TOTAL);
}

static void echo_and_change_keys(struct server *server)
{
	static char buf[16 * 1024];
	size_t n, written;
	unsigned count = 0;

	while (SSL_read_ex(server->ssl, buf, sizeof(buf), &n)) {
		if (count++ % 16 == 0)
			SSL_key_update(server->ssl, count % 32 == 1 ? SSL_KEY_UPDATE_REQUESTED :
								      SSL_KEY_UPDATE_NOT_REQUESTED);
		SSL_write_ex(server->ssl, buf, n, &written);
	}
}

static void keys_change_while_data_move(void **state)
{
	struct client client;

	(void)state;
	connect_client(&client, echo_and_change_keys);
	move_all(&client);
	close_client(&client);
}

static unsigned nr_records;

/* Of what the server gets. */
static void count_records(int written, int version, int type, const void *buf, size_t len, SSL *ssl,
			  void *opaque)
{
	(void)version;
	(void)len;
	(void)ssl;
	(void)opaque;
	if (!written && type == SSL3_RT_HEADER &&
	    *(const unsigned char *)buf == SSL3_RT_APPLICATION_DATA)
		nr_records++;
}

static void count_and_swallow(struct server *server)
{
	SSL_set_msg_callback(server->ssl, count_records);
	swallow(server);
}

static void records_are_full(void **state)
{
	static const char zeroes[64 * 1024];
	int64_t deadline = clock_ms() + TIMEOUT;
	struct client client;
	size_t sent = 0;

	(void)state;
	nr_records = 0;
	connect_client(&client, count_and_swallow);
	while (sent < TOTAL) {
		ssize_t n = write(client.inner, zeroes, sizeof(zeroes));

		sent += n > 0 ? n : 0;
		assert_null(tls_failure(client.tls));
		assert_true(clock_ms() < deadline);
		look(&client);
	}
	tls_goodbye(client.tls);
	close_client(&client);
	assert_int_equal(client.server.received, sent);
	assert_in_range(nr_records, sent / 16384, sent / 16384 + sent / 65536);
}

/* libnbd reads all that there is, and sleeps until there is more. */
static void what_was_left_is_handed_over(void **state)
{
	struct pollfd fds[2] = { { .events = POLLIN } };
	int64_t deadline = clock_ms() + TIMEOUT;
	static char buf[64 * 1024];
	struct client client;
	bool ready;

	(void)state;
	connect_client(&client, pour);
	fds[0].fd = client.inner;
	do { /* until there is no room any more */
		assert_true(clock_ms() < deadline);
		look(&client);
		ready = tls_poll_fd(client.tls, &fds[1]);
	} while (ready || fds[1].fd >= 0);
	while (read(client.inner, buf, sizeof(buf)) > 0)
		;
	tls_poll_fd(client.tls, &fds[1]);
	assert_int_equal(poll(fds, 1, 0), 1);
	close_client(&client);
}

#define UPDATES 20000 /* their answers are more than the client has room for */

static void wait_at_most(const struct server *server, unsigned ms)
{
	const struct timeval time = { .tv_usec = ms * 1000 };

	setsockopt(server->fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
	setsockopt(server->fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
}

/* Takes the client's answers as they are, still sealed. OpenSSL wouldn't read them while a request
 * of its own waits to be sent, and the client takes no more before they are gone. */
static ssize_t throw_away(const struct server *server)
{
	static char buf[64 * 1024];

	return recv(server->fd, buf, sizeof(buf), 0);
}

/* Asks for new keys again and again, and takes the answers only when the client stops reading. */
static void flood_with_updates(struct server *server)
{
	int64_t deadline = clock_ms() + TIMEOUT;
	size_t written;

	wait_at_most(server, 10);
	for (unsigned i = 0; i < UPDATES; i++) {
		SSL_key_update(server->ssl, SSL_KEY_UPDATE_REQUESTED);
		while (!SSL_write_ex(server->ssl, "x", 1, &written) && clock_ms() < deadline)
			throw_away(server);
	}
	wait_at_most(server, 0);
	while (throw_away(server) > 0)
		;
}

static void a_flood_of_key_updates_takes_no_memory(void **state)
{
	int64_t deadline = clock_ms() + TIMEOUT;
	struct client client;
	size_t count = 0;
	char buf[4096];
	ssize_t n;

	(void)state;
	connect_client(&client, flood_with_updates);
	while (count < UPDATES) {
		assert_null(tls_failure(client.tls));
		assert_true(clock_ms() < deadline);
		look(&client);
		n = read(client.inner, buf, sizeof(buf));
		count += n > 0 ? n : 0;
	}
	close_client(&client);
}

static pthread_barrier_t barrier;

static void hold(struct server *server)
{
	pthread_barrier_wait(&barrier);
	swallow(server);
}

static void a_server_that_does_not_read(void **state)
{
	static const char zeroes[64 * 1024];
	int64_t end = clock_ms() + 1000;
	struct client client;
	size_t sent = 0;

	(void)state;
	pthread_barrier_init(&barrier, NULL, 2);
	connect_client(&client, hold);
	while (clock_ms() < end) {
		ssize_t n = write(client.inner, zeroes, sizeof(zeroes));

		sent += n > 0 ? n : 0;
		look(&client);
	}
	assert_true(sent > 0 && sent < 8 * 1024 * 1024);
	assert_null(tls_failure(client.tls));
	pthread_barrier_wait(&barrier);
	tls_goodbye(client.tls);
	close_client(&client);
	pthread_barrier_destroy(&barrier);
	assert_true(client.server.ended_well);
}

/* ---- endings ---- */

static void goodbye_sends_what_is_left(void **state)
{
	static const char last[100 * 1000];
	struct client client;

	(void)state;
	connect_client(&client, swallow);
	assert_int_equal(write(client.inner, last, sizeof(last)), sizeof(last));
	tls_goodbye(client.tls);
	close_client(&client);
	assert_true(client.server.ended_well);
	assert_int_equal(client.server.received, sizeof(last));
}

static void close_notify(struct server *server)
{
	SSL_shutdown(server->ssl);
}

static void hang_up(struct server *server)
{
	SSL_write(server->ssl, "x", 1);
}

static void cut_short(struct server *server)
{
	SSL_write(server->ssl, "x", 1);
	assert_int_equal(send(server->fd, "\x17\3\3\1\0abc", 8, 0), 8);
}

static void change_a_record(struct server *server)
{
	static char record[5 + 256] = "\x17\3\3\1";

	SSL_write(server->ssl, "x", 1);
	assert_int_equal(send(server->fd, record, sizeof(record), 0), sizeof(record));
	echo(server);
}

static void send_noise(struct server *server)
{
	assert_int_equal(send(server->fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, 0), 28);
	echo(server);
}

static void ends(void (*serve)(struct server *), const char *reason)
{
	struct client client;
	const char *failure;

	connect_client(&client, serve);
	failure = wait_for_end(&client);
	if (!failure || !strstr(failure, reason))
		fail_msg("\"%s\" instead of \"%s\"", failure ? failure : "nothing", reason);
	close_client(&client);
}

static void every_end_has_its_message(void **state)
{
	(void)state;
	ends(close_notify, "the server closed the connection");
	ends(hang_up, "without TLS's close_notify");
	ends(cut_short, "in the middle of a record");
	ends(change_a_record, "changed on its way");
	ends(send_noise, "makes no sense as TLS");
}

static void wait_and_hang_up(struct server *server)
{
	char c;

	SSL_read(server->ssl, &c, 1);
}

static void after_goodbye_the_server_may_hang_up(void **state)
{
	struct client client;

	(void)state;
	connect_client(&client, wait_and_hang_up);
	assert_int_equal(write(client.inner, "x", 1), 1);
	tls_goodbye(client.tls);
	assert_null(wait_for_end(&client));
	close_client(&client);
}

/* A signal would end this program. */
static void writing_to_a_server_that_is_gone(void **state)
{
	static const char zeroes[64 * 1024];
	int64_t deadline = clock_ms() + TIMEOUT;
	struct client client;

	(void)state;
	connect_client(&client, hang_up);
	pthread_join(client.server.thread, NULL);
	while (!tls_failure(client.tls)) {
		assert_true(clock_ms() < deadline);
		if (write(client.inner, zeroes, sizeof(zeroes)) < 0)
			assert_int_equal(errno, EAGAIN);
		tls_pump_out(client.tls);
		look(&client);
	}
	tls_goodbye(client.tls);
	tls_close(client.tls);
	close(client.inner);
	tls_context_free(client.context);
}

static void reset(struct server *server)
{
	const struct linger at_once = { .l_onoff = 1 };

	setsockopt(server->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

/* A socket tells of a reset once, and what is sent may be what hears it. */
static void a_reset_that_sending_hears_of(void **state)
{
	struct client client;
	const char *why;
	int pair[2];

	(void)state;
	make_tcp_pair(pair);
	connect_through(&client, start_server_on(pair, &client.server, NULL, reset));
	pthread_join(client.server.thread, NULL);
	assert_int_equal(write(client.inner, "5678", 4), 4);
	tls_pump_out(client.tls);
	why = wait_for_end(&client);
	if (!why || !strstr(why, strerror(ECONNRESET)))
		fail_msg("%s", why);
	tls_close(client.tls);
	close(client.inner);
	tls_context_free(client.context);
}

/* ---- handshakes that fail ---- */

static void refused(const char *key, bool old, SSL_CTX *ctx, int errnum, const char *reason)
{
	struct tls_context *context = make_context(key, old);
	struct server server;
	struct tls *tls;
	struct error err = { 0 };
	int fd = start_server(&server, ctx, NULL);

	assert_int_equal(tls_open(context, fd, in(TIMEOUT), &tls, &err), -errnum);
	if (!strstr(err.text, reason))
		fail_msg("%s", err.text);
	pthread_join(server.thread, NULL);
	assert_false(server.accepted);
	tls_context_free(context);
}

static void a_wrong_key(void **state)
{
	(void)state;
	refused(OTHER, false, NULL, EACCES, "doesn't take the key of \"alice\"");
}

/* A server, or a man in the middle, that has a certificate instead of the key. */
static void a_certificate_is_no_key(void **state)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();

	(void)state;
	X509_gmtime_adj(X509_getm_notBefore(cert), 0);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_sign(cert, key, EVP_sha256());
	assert_true(SSL_CTX_use_certificate(ctx, cert) && SSL_CTX_use_PrivateKey(ctx, key));
	X509_free(cert);
	EVP_PKEY_free(key);
	refused(KEY, false, ctx, EACCES, "doesn't take the key of \"alice\"");
}

static SSL_CTX *server_of_version(int version)
{
	SSL_CTX *ctx = make_server_ctx();

	if (version < TLS1_2_VERSION)
		SSL_CTX_set_security_level(ctx, 0);
	SSL_CTX_set_min_proto_version(ctx, version);
	SSL_CTX_set_max_proto_version(ctx, version);
	return ctx;
}

static void old_versions(void **state)
{
	struct tls_context *context = make_context(KEY, true);
	struct server server;
	struct tls_facts facts;
	struct tls *tls;
	struct error err = { 0 };
	int fd = start_server(&server, server_of_version(TLS1_2_VERSION), NULL);

	(void)state;
	if (tls_open(context, fd, in(TIMEOUT), &tls, &err) != 0)
		fail_msg("%s", err.text);
	tls_read_facts(tls, &facts);
	assert_string_equal(facts.version, "TLSv1.2");
	assert_non_null(strstr(facts.cipher, "DHE-PSK"));
	tls_close(tls);
	pthread_join(server.thread, NULL);
	tls_context_free(context);
	refused(KEY, false, server_of_version(TLS1_2_VERSION), EPROTO,
		"has no TLS 1.3 (tls-version=1.2");
	refused(KEY, true, server_of_version(TLS1_1_VERSION), EPROTO, "has no TLS 1.2");
}

/* What a server says that isn't TLS, and how it is told. */
static void not_tls(const void *bytes, size_t len, int errnum, const char *reason)
{
	struct tls_context *context = make_context(KEY, false);
	struct tls *tls;
	struct error err = { 0 };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	if (len)
		assert_int_equal(write(pair[1], bytes, len), len);
	if (errnum != ETIMEDOUT)
		shutdown(pair[1], SHUT_WR);
	assert_int_equal(
		tls_open(context, pair[0], in(errnum == ETIMEDOUT ? 200 : TIMEOUT), &tls, &err),
		-errnum);
	if (!strstr(err.text, reason))
		fail_msg("%s", err.text);
	close(pair[1]);
	tls_context_free(context);
}

static void servers_that_speak_no_tls(void **state)
{
	(void)state;
	not_tls("NBDMAGIC and so on", 18, EPROTO, "makes no sense as TLS");
	not_tls("", 0, EACCES, "closed the connection during the handshake");
	not_tls("\x16\3\3\0\x20\2\0", 7, EPROTO, "in the middle of a record");
	not_tls("\x16\3\3", 3, ETIMEDOUT, "doesn't finish the handshake");
	not_tls("\x15\3\3\0\2\2\x73", 7, EACCES, "doesn't take the key of \"alice\"");
	not_tls("\x15\3\3\0\2\2\x46", 7, EPROTO, "has no TLS 1.3");
	not_tls("\x15\3\3\0\2\2\x50", 7, EPROTO, "ends the connection: internal error");
}

/* ---- tickets ---- */

static SSL_CTX *ticket_ctx;

static void greet(struct server *server)
{
	SSL_write(server->ssl, "x", 1);
	swallow(server);
}

static bool connect_again(struct tls_context *context)
{
	struct client client = { .context = context };
	struct tls_facts facts;
	struct error err = { 0 };
	char c = 0;
	int fd;

	SSL_CTX_up_ref(ticket_ctx);
	fd = start_server(&client.server, ticket_ctx, greet);
	if (tls_open(context, fd, in(TIMEOUT), &client.tls, &err) != 0)
		fail_msg("%s", err.text);
	client.inner = tls_inner_socket(client.tls, "", 0, 0, &err);
	while (read(client.inner, &c, 1) != 1)
		look(&client);
	assert_int_equal(c, 'x');
	tls_read_facts(client.tls, &facts);
	tls_goodbye(client.tls); /* without it OpenSSL takes no ticket of the connection */
	tls_close(client.tls);
	close(client.inner);
	pthread_join(client.server.thread, NULL);
	return facts.resumed;
}

static void tickets_are_used_once(void **state)
{
	struct tls_context *context = make_context(KEY, false);

	(void)state;
	ticket_ctx = make_server_ctx();
	SSL_CTX_set_num_tickets(ticket_ctx, 1);
	assert_false(connect_again(context));
	assert_true(connect_again(context));
	SSL_CTX_set_num_tickets(ticket_ctx, 0);
	assert_true(connect_again(context));
	assert_false(connect_again(context));
	tls_context_free(context);
	/* One that the server doesn't know any more. */
	context = make_context(KEY, false);
	SSL_CTX_set_num_tickets(ticket_ctx, 1);
	assert_false(connect_again(context));
	SSL_CTX_free(ticket_ctx);
	ticket_ctx = make_server_ctx();
	assert_false(connect_again(context));
	tls_context_free(context);
	SSL_CTX_free(ticket_ctx);
}

static int make_key_file(void **state)
{
	(void)state;
	close(mkstemp(key_file));
	return 0;
}

static int remove_key_file(void **state)
{
	(void)state;
	return unlink(key_file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_go_both_ways),
		cmocka_unit_test(records_are_full),
		cmocka_unit_test(what_was_left_is_handed_over),
		cmocka_unit_test(keys_change_while_data_move),
		cmocka_unit_test(a_flood_of_key_updates_takes_no_memory),
		cmocka_unit_test(a_server_that_does_not_read),
		cmocka_unit_test(goodbye_sends_what_is_left),
		cmocka_unit_test(every_end_has_its_message),
		cmocka_unit_test(after_goodbye_the_server_may_hang_up),
		cmocka_unit_test(writing_to_a_server_that_is_gone),
		cmocka_unit_test(a_reset_that_sending_hears_of),
		cmocka_unit_test(a_wrong_key),
		cmocka_unit_test(a_certificate_is_no_key),
		cmocka_unit_test(old_versions),
		cmocka_unit_test(servers_that_speak_no_tls),
		cmocka_unit_test(tickets_are_used_once),
	};

	return cmocka_run_group_tests(tests, make_key_file, remove_key_file);
}
