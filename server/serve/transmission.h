/* transmission: requests of NBD's transmission phase read, and replies written, on the server's
 * side, in all three forms: simple, structured and with extended headers.
 *
 * Only a parser: bytes go in and come out. Nothing is kept between two requests, so that any thread
 * may call for any of them. What a client has no right to ask is found here, before anything is
 * done for it, and is answered with an error; only where it is no longer known where the next
 * request begins must the connection end. */
#ifndef NDIO_SERVE_TRANSMISSION_H
#define NDIO_SERVE_TRANSMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/* What clients may know of an export. It stays the same from the moment that a client is told of it
 * until that client is gone. Strings are UTF-8; what is longer than NBD_MAX_STRING is cut. */
struct export_facts {
	const char *name, *description; /* the description may be NULL */
	uint64_t size;                  /* bytes; a multiple of min_block */
	uint16_t flags;                 /* NBD_FLAG_*; SEND_DF is told only to who may use it */
	uint32_t min_block, preferred_block, max_block; /* bytes, as NBD_INFO_BLOCK_SIZE has them:
	                                                 * powers of two; max_block is the largest
	                                                 * read or write that is served */
	bool extents;                                   /* is base:allocation true here? */
};

/* What a handshake ended with. */
struct transmission {
	bool structured, extended; /* extended headers imply structured replies */
	bool base_allocation;      /* may a client ask for block status? */
	uint32_t context;          /* that context's id */
	const struct export_facts *facts;
};

/* A request. */
struct command {
	uint16_t type;   /* NBD_CMD_* */
	uint16_t flags;  /* NBD_CMD_FLAG_*: those that mean something for the type */
	uint64_t cookie; /* its client's, to be told in each reply */
	uint64_t offset; /* bytes */
	uint64_t len;    /* bytes */
	uint64_t
		payload; /* bytes that follow it on the wire: a write's len, or to be passed over */
	uint32_t
		refuse; /* an NBD errno: answer so behind the payload, and run nothing; 0: run it */
	const char *why; /* it is refused: for reply_error(); a static string */
};

#define REQUEST_MAX 32

/* How many bytes each request has, without payload. */
static inline size_t transmission_request_size(const struct transmission *transmission)
{
	return transmission->extended ? REQUEST_MAX : 28;
}

/* Reads a request of that size. 0; or the connection can't go on: -EPROTO, it is none; -EMSGSIZE, it carries
 * more than is passed over. NBD_CMD_DISC is never refused, and never answered. Not refused means: it lies in
 * the export, its flags are known, the export can do it, and what it reads or writes is at most max_block. */
int transmission_parse(const struct transmission *transmission, const uint8_t *request,
		       struct command *command);

/* The protocol's number for an errno, as far as it has one: else NBD_EIO. */
uint32_t nbd_errno(int errnum);

/* ---- replies ----
 *
 * Each writes what is to be sent, at most REPLY_HEAD_MAX bytes, and returns how many bytes these
 * are. The last one to a command has NBD_REPLY_FLAG_DONE. */

#define REPLY_TEXT_MAX  256 /* bytes of an error's words; what is longer is cut */
#define REPLY_HEAD_MAX  (32 + 6 + REPLY_TEXT_MAX + 8)
#define REPLY_SHORT_MAX (32 + 12) /* of those that are no error */

/* It's done, and there are no data; or no more of them. */
size_t reply_done(const struct transmission *transmission, const struct command *command,
		  uint8_t *out);

/* What comes before len bytes of a read's data, from this offset of the export on. Without
 * structured replies there can only be one such, of all that was asked for. */
size_t reply_data(const struct transmission *transmission, const struct command *command,
		  uint64_t offset, uint32_t len, bool done, uint8_t *out);

/* The same, but all of it is zero, and no data follow. Structured replies only. */
size_t reply_hole(const struct transmission *transmission, const struct command *command,
		  uint64_t offset, uint32_t len, bool done, uint8_t *out);

/* An error, as NBD's number, and the last reply to this command. What else can be told, structured
 * replies tell: words (or NULL), and at which offset of the export (or NULL). */
size_t reply_error(const struct transmission *transmission, const struct command *command,
		   uint32_t error, const char *text, const uint64_t *offset, uint8_t *out);

/* ---- block status ---- */

struct reply_extent {
	uint64_t len;   /* bytes; what has none is left out */
	uint32_t flags; /* NBD_STATE_* */
};

/* How large a buffer reply_extents() needs to tell of n; it may have less, but room for one. */
#define REPLY_EXTENTS_SIZE(n) (32 + 8 + 16 * (size_t)(n))

/* The answer to NBD_CMD_BLOCK_STATUS, whole: n extents from command->offset on, one behind the
 * other. Neighbours that are alike become one. What lies beyond the range that was asked for isn't
 * told, nor what has no room in size bytes, nor more than one if the client wants one: it asks
 * again. 0: there is nothing to tell, which isn't allowed; answer with an error. */
size_t reply_extents(const struct transmission *transmission, const struct command *command,
		     const struct reply_extent *extents, size_t n, uint8_t *out, size_t size);

#endif
