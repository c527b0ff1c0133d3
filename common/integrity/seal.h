/* seal: a LUKS2 header that can't be exchanged: a MAC, by a key that only the volume key gives, over
 * everything in it that says how the volume is opened. Who stores the header can then bring back no
 * key slot that was removed, no weaker cipher, no volume key of his own; and what he changed is said in
 * words, before a passphrase is asked for.
 *
 * The canonical form, version 1: of the header's JSON the members config, digests, keyslots, segments
 * and tokens, those that there are; but not tokens of the type SEAL_TOKEN, in which the seal itself is
 * kept (seal-token.h). Objects have their members in the order of their names' bytes; there
 * is no white space; strings and numbers are as json-c writes them, without escaped slashes. What the
 * binary header has besides (sequence number, checksum, salt, label) opens nothing. Key slots' areas
 * aren't in it: one that doesn't fit its slot's salt and digest, which are, opens nothing.
 *
 * The MAC: HMAC-SHA-256 over "ndio sealed header 1\n", the UUID, "\n", the count in decimal, "\n", and
 * the canonical form. Its key: HKDF-SHA-256 (RFC 5869) of the volume key, with the UUID as salt and
 * "ndio sealed header 1" as info, 32 bytes. */
#ifndef NDIO_SEAL_H
#define NDIO_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct json_object;

#define SEAL_MAC    32 /* bytes */
#define SEAL_TOKEN  "ndio-seal"
#define SEAL_TOKENS 32 /* of a header, at the most */

/* The canonical form of this metadata, to be freed with free(). NULL: no memory. */
char *seal_text(struct json_object *metadata);

/* The MAC. count is how often this volume's header was sealed. 0, or -EIO: OpenSSL fails. */
int seal_mac(const void *volume_key, size_t key_len, const char *uuid, uint64_t count,
	     const char *text, uint8_t mac[SEAL_MAC]);

/* In time that doesn't depend on them. */
bool seal_same(const uint8_t one[SEAL_MAC], const uint8_t other[SEAL_MAC]);

/* What changed from one canonical form to another: "key slot 1 is new, segment 0: encryption was
 * aes-xts-plain64 and is null-ecb". Cut to size > 0. Of the new one nothing is believed. */
void seal_differences(const char *before, const char *now, char *words, size_t size);

#endif
