/* starttls: the part of NBD's handshake that comes before TLS, on the connecting side: the
 * fixed-newstyle greeting and NBD_OPT_STARTTLS. See "TLS support" in NBD's doc/proto.md.
 *
 * Only a parser: bytes go in, and bytes to be sent come out. What a stranger in the network sends
 * unencrypted is all seen here, and nothing of it is believed but that TLS may begin. */
#ifndef NDIO_STARTTLS_H
#define NDIO_STARTTLS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define STARTTLS_SEND 20

struct starttls {
	enum {
		STARTTLS_GREETING,
		STARTTLS_REPLY,
		STARTTLS_REASON, /* the text of a refusal */
		STARTTLS_OVER,
	} state;
	size_t have; /* bytes of what the state waits for */
	uint8_t bytes[20];
	uint16_t flags;      /* NBD_FLAG_FIXED_NEWSTYLE, and others that both sides know */
	uint32_t refusal;    /* the type of the server's reply */
	uint32_t reason_len; /* bytes that it has */
	char reason[256];
	uint8_t send[STARTTLS_SEND];
};

/* Starts with a zeroed struct, and takes what the server sent, in whatever pieces. 0: it needs
 * more. How many bytes of ->send to send now: positive; that is once. STARTTLS_BEGIN: send the
 * hello of TLS. A negative errno with a message, without a name before it: no TLS with this
 * server; nothing more may be fed. */
#define STARTTLS_BEGIN 1000
int starttls_feed(struct starttls *starttls, const uint8_t *bytes, size_t len, struct error *err);

#endif
