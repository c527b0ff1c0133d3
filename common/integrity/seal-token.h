/* seal-token: where a LUKS2 header keeps its own seal (seal.h): a token without key slots, which
 * cryptsetup carries along and doesn't look into.
 *
 *   {"type": "ndio-seal", "keyslots": [], "count": "3", "mac": "64 hexadecimal digits"}
 *
 * Who stores the header can take it away: then nothing tells that there was a seal, but for a trust file. */
#ifndef NDIO_SEAL_TOKEN_H
#define NDIO_SEAL_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "integrity/seal.h"
#include "luks/luks-memfd.h"

struct json_object;

struct seal_token {
	int number;     /* of the token, the first if there are several; -1: there is none */
	bool good;      /* it says what one says: */
	uint64_t count; /* how often the header was sealed */
	uint8_t mac[SEAL_MAC];
};

/* Finds it in a header's metadata, of which nothing is believed. */
void seal_token_find(struct json_object *metadata, struct seal_token *token);

/* Puts it into the memfd: in place of the one that is there, or as a new one. 0, or a negative errno with
 * a message. */
int seal_token_put(struct luks_memfd *memfd, const struct seal_token *token, struct error *err);

#endif
