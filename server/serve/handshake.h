/* handshake: NBD's negotiation on the server's side: fixed newstyle, up to transmission.
 *
 * Only a parser: bytes come in, and bytes to be sent go out. It reads no clock and holds no memory
 * but its own struct, whatever a client sends; only the caller can tell how long all this may last.
 *
 *     handshake_begin -> { send handshake_output; handshake_feed } ... -> READY or OVER
 *
 * As long as anything is to be sent, nothing is taken in: a client that doesn't read its answers
 * gets no further. */
#ifndef NDIO_SERVE_HANDSHAKE_H
#define NDIO_SERVE_HANDSHAKE_H

#include "transmission.h"

struct handshake_options {
	/* The i-th export, or NULL behind the last one. */
	const struct export_facts *(*list)(void *opaque, size_t i);
	/* The export of this name, or NULL. What belongs to a session (nbd/session-name.h) isn't
	 * part of the name. */
	const struct export_facts *(*find)(void *opaque, const char *name);
	void *opaque; /* for both */
	bool tls_offered, tls_required;
	size_t max_options; /* a client that sends more is closed */
};

/* What the caller does next, once all output is sent. */
enum handshake_next {
	HANDSHAKE_MORE,  /* feed it, with what was left, or with more */
	HANDSHAKE_TLS,   /* begin TLS, and then handshake_secured() */
	HANDSHAKE_OPEN,  /* open ->transmission.facts for ->name, and then handshake_opened() */
	HANDSHAKE_READY, /* it was agreed to ->transmission: what comes now are requests */
	HANDSHAKE_OVER,  /* close the connection; ->why has words for it, if it is our wish */
};

#define HANDSHAKE_DATA_MAX   (12 * 1024) /* of an option, longer ones are refused */
#define HANDSHAKE_OUTPUT_MAX (9 * 1024)  /* two strings, and what is around them */

struct handshake {
	struct handshake_options options;
	enum {
		HANDSHAKE_AT_FLAGS,   /* the client's */
		HANDSHAKE_AT_OPTION,  /* its head */
		HANDSHAKE_AT_DATA,    /* an option's data, all of them kept */
		HANDSHAKE_AT_REFUSED, /* data of an option that is refused, none of them kept */
		HANDSHAKE_AT_TLS,
		HANDSHAKE_AT_OPENING,
		HANDSHAKE_AT_TRANSMISSION,
		HANDSHAKE_AT_END,
	} state;
	const char *why;       /* for HANDSHAKE_OVER: a static string; NULL: the client aborted */
	bool fixed, no_zeroes; /* the client's flags */
	bool secured;          /* by TLS */
	size_t nr_options;     /* that the client sent */
	size_t have;           /* bytes of what the state waits for */
	/* The option at hand. */
	uint32_t option, data_len;
	const struct handshake_fault *refusal;
	bool wants_name, wants_description;
	/* NBD_OPT_LIST that isn't fully answered. */
	bool listing;
	size_t nr_listed; /* exports */
	/* NBD_OPT_SET_META_CONTEXT. */
	bool chosen; /* base:allocation, for this export */
	char chosen_for[NBD_MAX_STRING + 1];
	/* What was agreed to. */
	struct transmission transmission;
	char name[NBD_MAX_STRING + 1]; /* as asked for, with what belongs to a session */
	size_t output_start, output_end;
	uint8_t input[HANDSHAKE_DATA_MAX];
	uint8_t output[HANDSHAKE_OUTPUT_MAX];
};

/* Starts one; its memory need not be zeroed. The greeting is in the output. */
void handshake_begin(struct handshake *handshake, const struct handshake_options *options);

/* What is to be sent now; len is 0 if there is nothing. Ask again until that is so. */
const uint8_t *handshake_output(const struct handshake *handshake, size_t *len);

/* So many bytes of it were sent. */
void handshake_sent(struct handshake *handshake, size_t len);

/* Takes what the client sent, in whatever pieces, and tells how much of it was used; what wasn't
 * stays the caller's, to be fed again (HANDSHAKE_MORE), or as requests (HANDSHAKE_READY). What
 * comes in the clear behind a client's wish for TLS may be an attacker's, meant to be taken for
 * what comes encrypted: it ends the connection. So who gets HANDSHAKE_TLS has nothing left, and
 * what it receives from then on is TLS's. */
enum handshake_next handshake_feed(struct handshake *handshake, const uint8_t *bytes, size_t len,
				   size_t *used);

/* TLS is up: all that was agreed before is forgotten, and what is fed came by it. */
void handshake_secured(struct handshake *handshake);

/* The export is open: 0; or it couldn't be: an errno, and words for the client. */
enum handshake_next handshake_opened(struct handshake *handshake, int errnum, const char *text);

#endif
