/* tls: one TLS connection, by OpenSSL, between an NBD server and libnbd, which believes to talk
 * to the server in the clear: it has the other end of a pair of sockets.
 *
 * There is no thread here. What moves the bytes is a call: tls_pump_out() what libnbd has
 * written, tls_pump_in() what the server sent. Neither waits. Both belong into a poll loop:
 *
 *	tls_pump_out(tls);
 *	ready = tls_poll_fd(tls, &fds[0]);
 *	poll(fds, n, ready ? 0 : timeout);
 *	tls_pump_in(tls, fds[0].revents);
 *
 * One thread at a time. No signal is ever raised. */
#ifndef NDIO_TLS_H
#define NDIO_TLS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/deadline.h"
#include "base/error.h"
#include "tls/tls-context.h"

struct tls;

/* Shakes hands over a connected socket that doesn't block, until the deadline.
 * fd is taken over, also when it fails: a negative errno with a message, without a name. */
int tls_open(struct tls_context *context, int fd, const struct deadline *deadline, struct tls **tls,
	     struct error *err);

/* The end for libnbd, that is for the caller to hand on or close. It reads greeting first, and the
 * first swallow bytes that are written to it go nowhere. Once. Negative errno with a message. */
int tls_inner_socket(struct tls *tls, const void *greeting, size_t len, size_t swallow,
		     struct error *err);

/* Encrypts and sends what was written to the other end, as far as the socket takes it. */
void tls_pump_out(struct tls *tls);

/* What to wait for before the next round. True: no need to wait. */
bool tls_poll_fd(struct tls *tls, struct pollfd *fd);

/* Receives, decrypts and hands over what there is, or some of it. When the server, or someone on
 * the way, has ended the connection, the other end reads the end of file. True when the other
 * end should be read. */
bool tls_pump_in(struct tls *tls, short revents);

/* Why the connection failed: a message without a name, or NULL if it didn't. Once the server may
 * close it (see tls_goodbye) a missing close_notify is no failure. */
const char *tls_failure(const struct tls *tls);

/* The last words have been written to the other end: sends them, and close_notify. Waits, but not
 * for long and not for an answer. */
void tls_goodbye(struct tls *tls);

/* Frees; closes the socket. NULL is fine. */
void tls_close(struct tls *tls);

/* What was agreed on, for reports. */
struct tls_facts {
	char version[16]; /* "TLSv1.3" */
	char cipher[48];  /* "TLS_AES_128_GCM_SHA256" */
	char peer[256];   /* "user NAME", or the subject of the server's certificate; "": it
			   * isn't verified */
	bool resumed;     /* the server knew us by a ticket */
};
void tls_read_facts(const struct tls *tls, struct tls_facts *facts);

/* In words; returns text. */
#define TLS_WORDS 384
const char *tls_words(const struct tls_facts *facts, char text[TLS_WORDS]);

#endif
