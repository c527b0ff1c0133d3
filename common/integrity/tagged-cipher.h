/* tagged-cipher: ciphers that make a tag for each sector and check it, as dm-crypt does over dm-integrity.
 *
 * A name is LUKS' cipher and its integrity with a blank between: "aes-gcm-random aead". A tag is
 * what authenticates (the sector's number, its IV and its ciphertext), and behind it the IV where
 * that is random. Nothing of a sector is written to the caller's memory before its tag was found
 * right. */
#ifndef NDIO_TAGGED_CIPHER_H
#define NDIO_TAGGED_CIPHER_H

#include <stddef.h>

#include "base/error.h"
#include "engine/cipher.h"

/* cipher_supported(), of these as well. */
int tagged_supported(const char *name, size_t key_len, struct error *err);

/* Bytes of a tag, or 0: the cipher has none. Bytes of the volume key, likewise. */
unsigned tagged_tag_len(const char *name);
unsigned tagged_key_len(const char *name);

/* For volumes whose target is one of target-integrity.h, which is told of sectors whose tag is
 * wrong. */
extern const struct cipher_ops cipher_tagged;

#endif
