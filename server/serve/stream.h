/* stream: the bytes of one client's socket, in the clear or by TLS. Nothing here waits. */
#ifndef NDIO_STREAM_H
#define NDIO_STREAM_H

#include <openssl/types.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

struct stream {
	int fd;
	SSL *ssl; /* or NULL: in the clear */
};

/* TLS's handshake goes on: 1 when it is over, 0: it waits for *events of epoll(7), or -1: it failed. */
int stream_shake_hands(struct stream *stream, uint32_t *events);

/* As readv(2) and writev(2) of a socket that doesn't block, and no signal. By TLS what is received may
 * fill less than there is: it is asked for again until it is EAGAIN. */
ssize_t stream_receive(struct stream *stream, const struct iovec *iov, unsigned count);
ssize_t stream_send(struct stream *stream, const struct iovec *iov, unsigned count);

/* Ends TLS, if the client is to be told, and closes. */
void stream_close(struct stream *stream, bool tell);

#endif
