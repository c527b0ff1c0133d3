/* header-proof: shows that a key opens a header, by the way that every later command takes, before
 * anything is told or destroyed on the strength of that. */
#ifndef NDIO_HEADER_PROOF_H
#define NDIO_HEADER_PROOF_H

#include "base/error.h"
#include "header/header.h"
#include "luks/luks-tokens.h"
#include "terminal/key-input.h"

/* What has to open. */
struct header_proof {
	const struct key *key;            /* or NULL: */
	const struct luks_tokens *tokens; /* one of these */
	int slot;                         /* that it is in */
};

/* Reads the header anew from the volume, and opens it. 0, or a negative errno with a message. */
int header_prove(struct header *header, const struct header_proof *proof, struct error *err);

/* The same with what is in the memfd, before it is written. */
int header_prove_memfd(struct header *header, const struct header_proof *proof, struct error *err);

#endif
