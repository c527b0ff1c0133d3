/* A kind is a row of `kinds`. Of AEAD the one call decrypts and checks, so it decrypts to memory of
 * its own first; of a MAC beside a cipher the check comes before. Random IVs are drawn many at a
 * time. One thread at a time has a cipher. */
#include "integrity/tagged-cipher.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "engine/volume.h"
#include "integrity/target-integrity.h"

#define UNIT       512
#define MAX_SECTOR 4096
#define MAX_IV     16
#define MAX_AUTH   64
#define POOL       4096 /* bytes of IVs drawn at once */

static const struct kind {
	const char *name;
	const char *openssl;
	const char *digest; /* of the HMAC; NULL: the cipher makes the tag */
	unsigned cipher_key, mac_key;
	unsigned iv_len; /* bytes */
	bool random;     /* the IV, which is kept then; else it is the sector's number */
	unsigned auth_len;
} kinds[] = {
	{ "aes-gcm-random aead", "AES-128-GCM", NULL, 16, 0, 12, true, 16 },
	{ "aes-gcm-random aead", "AES-256-GCM", NULL, 32, 0, 12, true, 16 },
	{ "chacha20-random poly1305", "ChaCha20-Poly1305", NULL, 32, 0, 12, true, 16 },
	{ "aes-xts-plain64 hmac(sha256)", "AES-256-XTS", "SHA256", 64, 32, 16, false, 32 },
	{ "aes-xts-plain64 hmac(sha256)", "AES-128-XTS", "SHA256", 32, 32, 16, false, 32 },
	{ "aes-xts-random hmac(sha256)", "AES-256-XTS", "SHA256", 64, 32, 16, true, 32 },
	{ "aes-xts-random hmac(sha256)", "AES-128-XTS", "SHA256", 32, 32, 16, true, 32 },
	{ "aes-xts-plain64 hmac(sha512)", "AES-256-XTS", "SHA512", 64, 64, 16, false, 64 },
	{ "aes-xts-plain64 hmac(sha512)", "AES-128-XTS", "SHA512", 32, 64, 16, false, 64 },
	{ "aes-xts-random hmac(sha512)", "AES-256-XTS", "SHA512", 64, 64, 16, true, 64 },
	{ "aes-xts-random hmac(sha512)", "AES-128-XTS", "SHA512", 32, 64, 16, true, 64 },
};

struct cipher {
	const struct kind *kind;
	struct volume *volume;
	unsigned sector, tag_len;
	EVP_CIPHER_CTX *encrypt, *decrypt;
	EVP_MAC_CTX *mac;              /* NULL without a digest */
	unsigned drawn;                /* bytes of the pool that were used */
	unsigned char pool[POOL];      /* IVs: no secret */
	unsigned char one[MAX_SECTOR]; /* what AEAD decrypts to; cleansed when a run is over */
};

static const struct kind *tagged_kind(const char *name, size_t key_len)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0 &&
		    (!key_len || kinds[i].cipher_key + kinds[i].mac_key == key_len))
			return &kinds[i];
	return NULL;
}

int tagged_supported(const char *name, size_t key_len, struct error *err)
{
	if (tagged_kind(name, key_len))
		return 0;
	if (tagged_kind(name, 0))
		return error_set(err, ENOTSUP, "cipher %s is not supported with a key of %zu bits",
				 name, key_len * 8);
	return cipher_supported(name, key_len, err);
}

static unsigned kind_tag_len(const struct kind *kind)
{
	return kind->auth_len + (kind->random ? kind->iv_len : 0);
}

unsigned tagged_tag_len(const char *name)
{
	const struct kind *kind = tagged_kind(name, 0);

	return kind ? kind_tag_len(kind) : 0;
}

/* Of several, the first row's. */
unsigned tagged_key_len(const char *name)
{
	const struct kind *kind = NULL;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0 &&
		    (!kind || kinds[i].cipher_key > kind->cipher_key))
			kind = &kinds[i];
	return kind ? kind->cipher_key + kind->mac_key : 0;
}

/* ---- one sector ---- */

struct header {
	uint64_t sector; /* little-endian */
	unsigned char iv[MAX_IV];
};

static bool draw_iv(struct cipher *cipher, unsigned char *iv)
{
	unsigned len = cipher->kind->iv_len;

	if (cipher->drawn + len > POOL) {
		if (RAND_bytes(cipher->pool, POOL) != 1)
			return false;
		cipher->drawn = 0;
	}
	memcpy(iv, cipher->pool + cipher->drawn, len);
	cipher->drawn += len;
	return true;
}

/* What is authenticated beside the sector. A random IV is in the tag by now. */
static struct header header_of(const struct cipher *cipher, uint64_t unit, const uint8_t *tag)
{
	struct header header = { .sector = htole64(unit) };

	if (cipher->kind->random)
		memcpy(header.iv, tag + cipher->kind->auth_len, cipher->kind->iv_len);
	else
		memcpy(header.iv, &header.sector, sizeof(header.sector));
	return header;
}

static unsigned header_len(const struct cipher *cipher)
{
	return offsetof(struct header, iv) + cipher->kind->iv_len;
}

static bool mac_make(struct cipher *cipher, const struct header *header, const void *sector,
		     unsigned char *auth)
{
	size_t len;

	return EVP_MAC_init(cipher->mac, NULL, 0, NULL) &&
	       EVP_MAC_update(cipher->mac, (const unsigned char *)header, header_len(cipher)) &&
	       EVP_MAC_update(cipher->mac, sector, cipher->sector) &&
	       EVP_MAC_final(cipher->mac, auth, &len, MAX_AUTH) && len == cipher->kind->auth_len;
}

/* All of it, by AEAD with what is authenticated besides. */
static bool transform(const struct cipher *cipher, EVP_CIPHER_CTX *ctx, const struct header *header,
		      const void *in, void *out)
{
	int done;

	return EVP_CipherInit_ex2(ctx, NULL, NULL, header->iv, -1, NULL) &&
	       (cipher->mac || EVP_CipherUpdate(ctx, NULL, &done, (const unsigned char *)header,
						header_len(cipher))) &&
	       EVP_CipherUpdate(ctx, out, &done, in, cipher->sector) && done == (int)cipher->sector;
}

static bool tag_of_ctx(const struct cipher *cipher, EVP_CIPHER_CTX *ctx, uint8_t *tag)
{
	unsigned char rest[MAX_IV];
	int done;

	return EVP_CipherFinal_ex(ctx, rest, &done) &&
	       EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, cipher->kind->auth_len, tag) > 0;
}

static int tag_and_encrypt(struct cipher *cipher, uint64_t unit, const void *in, void *out,
			   uint8_t *tag)
{
	struct header header;
	bool ok;

	if (cipher->kind->random && !draw_iv(cipher, tag + cipher->kind->auth_len))
		return -EIO;
	header = header_of(cipher, unit, tag);
	ok = transform(cipher, cipher->encrypt, &header, in, out) &&
	     (cipher->mac ? mac_make(cipher, &header, out, tag) :
			    tag_of_ctx(cipher, cipher->encrypt, tag));
	return ok ? 0 : -EIO;
}

static int open_by_mac(struct cipher *cipher, const struct header *header, const void *in,
		       void *out, const uint8_t *tag)
{
	unsigned char auth[MAX_AUTH];

	if (!mac_make(cipher, header, in, auth))
		return -EIO;
	if (CRYPTO_memcmp(auth, tag, cipher->kind->auth_len) != 0)
		return -EILSEQ;
	return transform(cipher, cipher->decrypt, header, in, out) ? 0 : -EIO;
}

static int open_by_aead(struct cipher *cipher, const struct header *header, const void *in,
			void *out, const uint8_t *tag)
{
	unsigned char rest[MAX_IV], auth[MAX_AUTH];
	int done;

	memcpy(auth, tag, cipher->kind->auth_len);
	if (!transform(cipher, cipher->decrypt, header, in, cipher->one) ||
	    EVP_CIPHER_CTX_ctrl(cipher->decrypt, EVP_CTRL_AEAD_SET_TAG, cipher->kind->auth_len,
				auth) <= 0)
		return -EIO;
	if (!EVP_CipherFinal_ex(cipher->decrypt, rest, &done))
		return -EILSEQ;
	memcpy(out, cipher->one, cipher->sector);
	return 0;
}

static int check_and_decrypt(struct cipher *cipher, uint64_t unit, const void *in, void *out,
			     const uint8_t *tag)
{
	struct header header = header_of(cipher, unit, tag);
	int ret = cipher->mac ? open_by_mac(cipher, &header, in, out, tag) :
				open_by_aead(cipher, &header, in, out, tag);

	if (ret == -EILSEQ)
		target_integrity_tell_bad(cipher->volume->target, unit * UNIT,
					  is_zero(tag, cipher->tag_len));
	return ret;
}

/* ---- runs of them ---- */

static int encrypt_run(struct cipher *cipher, uint64_t unit, const void *in, void *out, size_t len,
		       uint8_t *tags)
{
	int ret = 0;

	assert(len % cipher->sector == 0);
	for (size_t at = 0; at < len && ret == 0; at += cipher->sector, tags += cipher->tag_len)
		ret = tag_and_encrypt(cipher, unit + at / UNIT, (const uint8_t *)in + at,
				      (uint8_t *)out + at, tags);
	return ret;
}

static int decrypt_run(struct cipher *cipher, uint64_t unit, const void *in, void *out, size_t len,
		       uint8_t *tags)
{
	int ret = 0;

	assert(len % cipher->sector == 0);
	for (size_t at = 0; at < len && ret == 0; at += cipher->sector, tags += cipher->tag_len)
		ret = check_and_decrypt(cipher, unit + at / UNIT, (const uint8_t *)in + at,
					(uint8_t *)out + at, tags);
	OPENSSL_cleanse(cipher->one, cipher->sector);
	return ret;
}

/* ---- making one ---- */

static EVP_CIPHER_CTX *tagged_context(const struct kind *kind, const void *key, bool encrypt)
{
	EVP_CIPHER *algorithm = EVP_CIPHER_fetch(NULL, kind->openssl, NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	if (!algorithm || !ctx || !EVP_CipherInit_ex2(ctx, algorithm, key, NULL, encrypt, NULL)) {
		EVP_CIPHER_CTX_free(ctx);
		ctx = NULL;
	}
	EVP_CIPHER_free(algorithm);
	return ctx;
}

static EVP_MAC_CTX *mac_context(const struct kind *kind, const unsigned char *key)
{
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);
	char digest[16];
	const OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_END,
	};

	strcpy(digest, kind->digest);
	if (ctx && !EVP_MAC_init(ctx, key, kind->mac_key, params)) {
		EVP_MAC_CTX_free(ctx);
		ctx = NULL;
	}
	EVP_MAC_free(mac);
	return ctx;
}

/* OpenSSL sets its random numbers up when they are first asked for, and where it has no memory then there
 * are none any more: so before anything is written. */
static bool can_draw(const struct kind *kind)
{
	unsigned char unused;

	return !kind->random || RAND_bytes(&unused, 1) == 1;
}

static void tagged_free(struct cipher *cipher)
{
	if (!cipher)
		return;
	EVP_MAC_CTX_free(cipher->mac);
	EVP_CIPHER_CTX_free(cipher->decrypt);
	EVP_CIPHER_CTX_free(cipher->encrypt);
	free(cipher);
}

static struct cipher *tagged_make(struct volume *volume, struct error *err)
{
	const struct luks *luks = &volume->luks;
	const struct kind *kind = tagged_kind(luks->cipher, luks->key_len);
	const unsigned char *key = luks->key;
	struct cipher *cipher = calloc(1, sizeof(*cipher));

	if (!kind || !cipher) {
		free(cipher);
		error_set(err, ENOMEM, "cipher %s: out of memory", luks->cipher);
		return NULL;
	}
	cipher->kind = kind;
	cipher->volume = volume;
	cipher->sector = luks->sector;
	cipher->tag_len = kind_tag_len(kind);
	cipher->drawn = POOL;
	cipher->encrypt = tagged_context(kind, key, true);
	cipher->decrypt = tagged_context(kind, key, false);
	/* The volume key is the cipher's, and behind it the MAC's. */
	if (kind->digest)
		cipher->mac = mac_context(kind, key + kind->cipher_key);
	if (!cipher->encrypt || !cipher->decrypt || (kind->digest && !cipher->mac) ||
	    !can_draw(kind)) {
		error_set(err, EIO, "cipher %s: OpenSSL refuses it or its key", luks->cipher);
		tagged_free(cipher);
		return NULL;
	}
	return cipher;
}

const struct cipher_ops cipher_tagged = {
	.make = tagged_make,
	.free = tagged_free,
	.encrypt = encrypt_run,
	.decrypt = decrypt_run,
};
