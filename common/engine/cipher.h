/* cipher: encrypts and decrypts sectors with OpenSSL, as dm-crypt does.
 *
 * aes-xts-plain64 (IEEE 1619; keys of 32 or 64 bytes), aes-cbc-plain64,
 * aes-cbc-plain and aes-cbc-essiv:sha256 (keys of 16, 24 or 32 bytes). An IV is the little-endian
 * number of the sector's first 512-byte unit, whatever the sector's size; of plain only its low 32
 * bits, so that beyond 2 TiB IVs come again. */
#ifndef NDIO_CIPHER_H
#define NDIO_CIPHER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Can this cipher be made? name is cipher and mode as LUKS spells them, "aes-xts-plain64".
 * 0, or -ENOTSUP with a message that names the cipher (or the key's length in bits). */
int cipher_supported(const char *name, size_t key_len, struct error *err);

/* How many bytes of a sector hang together: a change to one of them changes the ciphertext of
 * others among them only. A block of AES with XTS; the sector where it is chained. */
unsigned cipher_granule(const char *name, unsigned sector);

/* The working state of one thread: OpenSSL contexts, set up once. key is copied into them and
 * may go afterwards. sector is 512, 1024, 2048 or 4096 bytes. NULL with a message. */
struct cipher;
struct cipher *cipher_new(const char *name, const void *key, size_t key_len, unsigned sector,
			  struct error *err);
void cipher_free(struct cipher *cipher);

/* len bytes, whole sectors; unit is the IV of the first. in == out works in place; else they
 * don't overlap. tags are those of the sectors, side by side, to be made or checked; not looked at
 * by a cipher that has none. 0; -EIO if OpenSSL fails; -EILSEQ: the tag of a sector is wrong, and
 * neither that sector nor one behind it was written to out. */
typedef int cipher_fn(struct cipher *cipher, uint64_t unit, const void *in, void *out, size_t len,
		      uint8_t *tags);
cipher_fn cipher_encrypt, cipher_decrypt;

/* What a volume's sectors are encrypted by: these of here, or those that make tags, too. */
struct volume;
struct cipher_ops {
	struct cipher *(*make)(struct volume *volume, struct error *err); /* for one thread */
	void (*free)(struct cipher *cipher);                              /* NULL is fine */
	cipher_fn *encrypt, *decrypt;
};
extern const struct cipher_ops cipher_plain;

#endif
