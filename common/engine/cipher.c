/* A cipher is a row of `kinds`: LUKS' name for it, a key's length, OpenSSL's name, and how IVs
 * are made. The contexts are set up once, for both directions; a sector costs an IV and one
 * call. One thread at a time has a cipher, since a context holds the IV. */
#include "engine/cipher.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "engine/volume.h"
#include "memory/pin.h"

#define IV_LEN        16
#define AES_BLOCK     16
#define ESSIV_KEY_LEN 32
#define UNIT          512
#define AHEAD         1024 /* bytes */

/* What find_iv() tries. */
#define MAX_SECTOR    4096
#define TRIAL_SECTORS 3
#define TRIAL_UNIT    UINT64_C(0x123456789abc)

/* OpenSSL has the round keys in one piece of its heap with the IV, in these bytes around it. */
#define BEFORE_IV 256
#define AROUND_IV 1280

/* One direction. */
struct way {
	EVP_CIPHER_CTX *ctx;
	unsigned char *iv; /* where OpenSSL keeps the next IV, or NULL: see find_iv() */
	void *locked;      /* AROUND_IV bytes that are pinned, or NULL */
};

struct cipher {
	struct way encrypt, decrypt;
	EVP_CIPHER_CTX *essiv; /* encrypts IVs; NULL when they are used as they are */
	uint64_t unit_mask;    /* the bits of a unit's number that an IV has */
	unsigned sector;       /* bytes */
};

static const struct kind {
	const char *name;
	size_t key_len;
	const char *openssl;
	enum { PLAIN64, PLAIN, ESSIV } iv;
} kinds[] = {
	{ "aes-xts-plain64", 32, "AES-128-XTS", PLAIN64 },
	{ "aes-xts-plain64", 64, "AES-256-XTS", PLAIN64 },
	{ "aes-cbc-plain64", 16, "AES-128-CBC", PLAIN64 },
	{ "aes-cbc-plain64", 24, "AES-192-CBC", PLAIN64 },
	{ "aes-cbc-plain64", 32, "AES-256-CBC", PLAIN64 },
	{ "aes-cbc-plain", 16, "AES-128-CBC", PLAIN },
	{ "aes-cbc-plain", 24, "AES-192-CBC", PLAIN },
	{ "aes-cbc-plain", 32, "AES-256-CBC", PLAIN },
	{ "aes-cbc-essiv:sha256", 16, "AES-128-CBC", ESSIV },
	{ "aes-cbc-essiv:sha256", 24, "AES-192-CBC", ESSIV },
	{ "aes-cbc-essiv:sha256", 32, "AES-256-CBC", ESSIV },
};

static const struct kind *kind_find(const char *name, size_t key_len, struct error *err)
{
	bool known = false;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].name, name))
			continue;
		if (kinds[i].key_len == key_len)
			return &kinds[i];
		known = true;
	}
	if (known)
		error_set(err, ENOTSUP, "cipher %s is not supported with a key of %zu bits", name,
			  key_len * 8);
	else
		error_set(err, ENOTSUP, "cipher %s is not supported", name);
	return NULL;
}

int cipher_supported(const char *name, size_t key_len, struct error *err)
{
	return kind_find(name, key_len, err) ? 0 : -ENOTSUP;
}

unsigned cipher_granule(const char *name, unsigned sector)
{
	return strstr(name, "-xts-") ? AES_BLOCK : sector;
}

static EVP_CIPHER_CTX *context_new(const char *openssl, const void *key, bool encrypt)
{
	EVP_CIPHER *algorithm = EVP_CIPHER_fetch(NULL, openssl, NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	unsigned padding = 0;
	/* As a parameter: EVP_CIPHER_CTX_set_padding() would be redone with every IV, which
	 * costs 35 ns a sector. */
	const OSSL_PARAM params[] = {
		OSSL_PARAM_uint(OSSL_CIPHER_PARAM_PADDING, &padding),
		OSSL_PARAM_END,
	};

	if (!algorithm || !ctx || !EVP_CipherInit_ex2(ctx, algorithm, key, NULL, encrypt, params)) {
		EVP_CIPHER_CTX_free(ctx);
		ctx = NULL;
	}
	EVP_CIPHER_free(algorithm);
	return ctx;
}

static EVP_CIPHER_CTX *essiv_new(const void *key, size_t key_len)
{
	unsigned char digest[ESSIV_KEY_LEN];
	EVP_CIPHER_CTX *ctx = NULL;

	if (EVP_Q_digest(NULL, "SHA256", NULL, key, key_len, digest, NULL))
		ctx = context_new("AES-256-ECB", digest, true);
	OPENSSL_cleanse(digest, sizeof(digest));
	return ctx;
}

static bool iv_make(struct cipher *cipher, uint64_t unit, unsigned char *iv)
{
	uint64_t number = htole64(unit & cipher->unit_mask);
	int done;

	memcpy(iv, &number, sizeof(number));
	memset(iv + sizeof(number), 0, IV_LEN - sizeof(number));
	return !cipher->essiv || EVP_CipherUpdate(cipher->essiv, iv, &done, iv, IV_LEN);
}

static bool sector_run(struct cipher *cipher, const struct way *way, uint64_t unit,
		       const unsigned char *in, unsigned char *out)
{
	unsigned char own[IV_LEN];
	unsigned char *iv = way->iv ? way->iv : own;
	int done;

	return iv_make(cipher, unit, iv) &&
	       (way->iv || EVP_CipherInit_ex2(way->ctx, NULL, NULL, iv, -1, NULL)) &&
	       EVP_CipherUpdate(way->ctx, out, &done, in, cipher->sector) &&
	       done == (int)cipher->sector;
}

/* What the processor fetches by itself begins anew with each call to OpenSSL. Sectors of 4096
 * bytes gain nothing by this. */
static void prefetch(const unsigned char *data)
{
	for (size_t i = 0; i < UNIT; i += CACHE_LINE)
		__builtin_prefetch(data + i);
}

static int sectors_run(struct cipher *cipher, const struct way *way, uint64_t unit,
		       const unsigned char *in, unsigned char *out, size_t len)
{
	const unsigned sector = cipher->sector;

	assert(len % sector == 0);
	for (size_t at = 0; at < len; at += sector, unit += sector / UNIT) {
		if (sector == UNIT && at + AHEAD < len) {
			prefetch(in + at + AHEAD);
			prefetch(out + at + AHEAD);
		}
		if (!sector_run(cipher, way, unit, in + at, out + at))
			return -EIO;
	}
	return 0;
}

int cipher_encrypt(struct cipher *cipher, uint64_t unit, const void *in, void *out, size_t len,
		   uint8_t *tags)
{
	(void)tags;
	return sectors_run(cipher, &cipher->encrypt, unit, in, out, len);
}

int cipher_decrypt(struct cipher *cipher, uint64_t unit, const void *in, void *out, size_t len,
		   uint8_t *tags)
{
	(void)tags;
	return sectors_run(cipher, &cipher->decrypt, unit, in, out, len);
}

/* ---- making one ---- */

static bool trial_run(struct cipher *cipher, const struct way *way, unsigned char *out)
{
	static const unsigned char in[MAX_SECTOR];

	for (unsigned unit = 0; unit < TRIAL_SECTORS; unit++)
		if (!sector_run(cipher, way, TRIAL_UNIT + unit, in, out + unit * cipher->sector))
			return false;
	return true;
}

/* To hand OpenSSL an IV costs a call of some 60 ns, nearly half of what a sector of 512 bytes
 * takes. It tells where it keeps the IV ("updated-iv" as a pointer, EVP_EncryptInit(3)), but
 * not that writing there counts. So that is tried, and otherwise not done. */
static void find_iv(struct cipher *cipher, struct way *way)
{
	unsigned char by_call[TRIAL_SECTORS * MAX_SECTOR], by_place[sizeof(by_call)];
	void *iv = NULL, *keys;
	OSSL_PARAM params[] = {
		OSSL_PARAM_octet_ptr(OSSL_CIPHER_PARAM_UPDATED_IV, &iv, IV_LEN),
		OSSL_PARAM_END,
	};

	if (!EVP_CIPHER_CTX_get_params(way->ctx, params) || !iv || params[0].return_size != IV_LEN)
		return;
	/* As far as there is memory to lock. */
	keys = (char *)iv - BEFORE_IV;
	if (pin_range(keys, AROUND_IV) == 0)
		way->locked = keys;
	if (!trial_run(cipher, way, by_call))
		return;
	way->iv = iv;
	if (!trial_run(cipher, way, by_place) ||
	    memcmp(by_call, by_place, TRIAL_SECTORS * cipher->sector))
		way->iv = NULL;
}

struct cipher *cipher_new(const char *name, const void *key, size_t key_len, unsigned sector,
			  struct error *err)
{
	const struct kind *kind = kind_find(name, key_len, err);
	struct cipher *cipher;

	assert(sector == 512 || sector == 1024 || sector == 2048 || sector == 4096);
	if (!kind)
		return NULL;
	cipher = calloc(1, sizeof(*cipher));
	if (!cipher) {
		error_set(err, ENOMEM, "cipher %s: out of memory", name);
		return NULL;
	}
	cipher->sector = sector;
	cipher->unit_mask = kind->iv == PLAIN ? UINT32_MAX : UINT64_MAX;
	cipher->encrypt.ctx = context_new(kind->openssl, key, true);
	cipher->decrypt.ctx = context_new(kind->openssl, key, false);
	if (kind->iv == ESSIV)
		cipher->essiv = essiv_new(key, key_len);
	if (!cipher->encrypt.ctx || !cipher->decrypt.ctx || (kind->iv == ESSIV && !cipher->essiv)) {
		error_set(err, EIO, "cipher %s: OpenSSL refuses it or its key", name);
		cipher_free(cipher);
		return NULL;
	}
	find_iv(cipher, &cipher->encrypt);
	find_iv(cipher, &cipher->decrypt);
	return cipher;
}

static void way_close(struct way *way)
{
	if (way->locked)
		unpin_range(way->locked, AROUND_IV);
	EVP_CIPHER_CTX_free(way->ctx);
}

void cipher_free(struct cipher *cipher)
{
	if (!cipher)
		return;
	EVP_CIPHER_CTX_free(cipher->essiv);
	way_close(&cipher->decrypt);
	way_close(&cipher->encrypt);
	free(cipher);
}

static struct cipher *make_plain(struct volume *volume, struct error *err)
{
	const struct luks *luks = &volume->luks;

	return cipher_new(luks->cipher, luks->key, luks->key_len, luks->sector, err);
}

const struct cipher_ops cipher_plain = {
	.make = make_plain,
	.free = cipher_free,
	.encrypt = cipher_encrypt,
	.decrypt = cipher_decrypt,
};
