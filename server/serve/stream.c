/* By TLS a piece that is short is sent together with what follows, in one record, from the stack. Where
 * the socket takes no more, the same bytes are offered again: OpenSSL wants no other, but they may lie
 * elsewhere.
 *
 * A thread has one queue of errors for all its connections, and OpenSSL takes what lies there for the
 * error of its last call: so it is emptied before each. */
#include "stream.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/align.h"

#define RECORD 16384 /* bytes, TLS's largest */

int stream_shake_hands(struct stream *stream, uint32_t *events)
{
	int ret, error;

	ERR_clear_error();
	ret = SSL_do_handshake(stream->ssl);
	if (ret == 1)
		return 1;
	error = SSL_get_error(stream->ssl, ret);
	*events = error == SSL_ERROR_WANT_WRITE ? EPOLLOUT : EPOLLIN;
	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* What a call of OpenSSL's gave, as a system call would give it. */
static ssize_t result(SSL *ssl, int ret)
{
	int error = ret > 0 ? SSL_ERROR_NONE : SSL_get_error(ssl, ret);

	if (ret > 0)
		return ret;
	if (error == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
	return -1;
}

ssize_t stream_receive(struct stream *stream, const struct iovec *iov, unsigned count)
{
	if (!stream->ssl)
		return readv(stream->fd, iov, count);
	ERR_clear_error();
	return result(stream->ssl,
		      SSL_read(stream->ssl, iov[0].iov_base, min_u64(iov[0].iov_len, INT_MAX)));
}

static size_t fill_record(uint8_t *record, const struct iovec *iov, unsigned count)
{
	size_t len = 0;

	for (unsigned i = 0; i < count && len < RECORD; i++) {
		size_t n = min_u64(iov[i].iov_len, RECORD - len);

		memcpy(record + len, iov[i].iov_base, n);
		len += n;
	}
	return len;
}

static ssize_t send_by_tls(SSL *ssl, const struct iovec *iov, unsigned count)
{
	uint8_t record[RECORD];
	size_t len;
	ssize_t n;

	ERR_clear_error();
	if (iov[0].iov_len >= RECORD)
		return result(ssl, SSL_write(ssl, iov[0].iov_base,
					     round_down(min_u64(iov[0].iov_len, INT_MAX), RECORD)));
	len = fill_record(record, iov, count);
	n = result(ssl, SSL_write(ssl, record, len));
	OPENSSL_cleanse(record, len);
	return n;
}

ssize_t stream_send(struct stream *stream, const struct iovec *iov, unsigned count)
{
	const struct msghdr message = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count };

	if (stream->ssl)
		return send_by_tls(stream->ssl, iov, count);
	return sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void stream_close(struct stream *stream, bool tell)
{
	if (stream->ssl && tell && SSL_is_init_finished(stream->ssl))
		SSL_shutdown(stream->ssl);
	SSL_free(stream->ssl);
	close(stream->fd);
	stream->ssl = NULL;
	stream->fd = -1;
}
