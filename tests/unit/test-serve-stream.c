/* A client's stream by TLS: the errors of others, which lie in the queue that a thread has for all its
 * connections, are not its own. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/err.h>

#include "serve/stream.h"
#include "tls/tls-context.h"
#include "tls/tls-server.h"

static struct tls_server *server;
static struct tls_context *context;
static struct stream stream;
static SSL *client;
static int client_fd;

/* Both in turn. */
static void shake_hands(void)
{
	uint32_t events;
	int ret = 0;

	for (int i = 0; i < 10 && ret == 0; i++) {
		SSL_do_handshake(client);
		ret = stream_shake_hands(&stream, &events);
	}
	assert_int_equal(ret, 1);
	assert_int_equal(SSL_do_handshake(client), 1);
}

static int set_up(void **state)
{
	char path[] = "/tmp/test-serve-stream-XXXXXX";
	const struct tls_server_options options = { .psk_file = path };
	const struct tls_options client_options = { .psk_file = path, .user = "alice" };
	int fd = mkstemp(path), sockets[2], ret;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(dprintf(fd, "alice:%032d\n", 1), 39);
	close(fd);
	ret = tls_server_make(&options, &server, NULL);
	assert_int_equal(ret, 0);
	ret = tls_context_make(&client_options, &context, NULL);
	assert_int_equal(ret, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets), 0);
	client_fd = sockets[1];
	client = tls_context_connection(context);
	assert_non_null(client);
	SSL_set_fd(client, client_fd);
	SSL_set_connect_state(client);
	stream = (struct stream){ sockets[0], tls_server_connection(server, sockets[0]) };
	assert_non_null(stream.ssl);
	shake_hands();
	unlink(path);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	stream_close(&stream, true);
	SSL_free(client);
	close(client_fd);
	tls_context_free(context);
	tls_server_free(server);
	ERR_clear_error();
	return 0;
}

static void leave_an_error(void)
{
	ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
	assert_int_not_equal(ERR_peek_error(), 0);
}

static void receiving_waits_beside_an_error(void **state)
{
	char byte = 0;
	const struct iovec iov = { &byte, 1 };

	(void)state;
	leave_an_error();
	assert_int_equal(stream_receive(&stream, &iov, 1), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(SSL_write(client, "x", 1), 1);
	leave_an_error();
	assert_int_equal(stream_receive(&stream, &iov, 1), 1);
	assert_int_equal(byte, 'x');
}

static void sending_waits_beside_an_error(void **state)
{
	static char much[1 << 16];
	const struct iovec iov[2] = { { much, 100 }, { much, sizeof(much) } };
	ssize_t n = 0;

	(void)state;
	for (int i = 0; i < 1000 && n >= 0; i++) {
		leave_an_error();
		n = stream_send(&stream, iov, 2);
	}
	assert_int_equal(n, -1);
	assert_int_equal(errno, EAGAIN);
}

static void the_end_is_told(void **state)
{
	char byte;
	const struct iovec iov = { &byte, 1 };

	(void)state;
	SSL_shutdown(client);
	leave_an_error();
	assert_int_equal(stream_receive(&stream, &iov, 1), 0);
}

static void an_end_that_is_not_told_is_an_error(void **state)
{
	char byte;
	const struct iovec iov = { &byte, 1 };

	(void)state;
	shutdown(client_fd, SHUT_RDWR);
	assert_int_equal(stream_receive(&stream, &iov, 1), -1);
	assert_int_equal(errno, EPROTO);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(receiving_waits_beside_an_error),
		TEST(sending_waits_beside_an_error),
		TEST(the_end_is_told),
		TEST(an_end_that_is_not_told_is_an_error),
	};

	signal(SIGPIPE, SIG_IGN); /* as the server does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
