#include <dlfcn.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/cipher.h"

#define BLOCK 16

/* IEEE 1619-2007, annex B. Vectors 2 and 3 are of 32 bytes: the start of a sector that goes on
 * in the same way, as no block of XTS depends on another. */
static const char vector_2[] = "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0";
static const char vector_3[] = "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89";
static const char vector_4[] = "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
			       "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
			       "328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
			       "93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265"
			       "5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8"
			       "a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
			       "1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c"
			       "5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e"
			       "94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
			       "1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3"
			       "e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344"
			       "b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
			       "74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752"
			       "afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e"
			       "bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
			       "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568";
static const char vector_10[] = "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
				"5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
				"5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
				"c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
				"2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
				"b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
				"93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
				"583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
				"84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
				"505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
				"9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
				"a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
				"6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
				"645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
				"1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
				"773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";

/* SP 800-38A, F.2.1 and F.2.5: CBC with AES-128 and AES-256. */
static const char sp_plain[] = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
			       "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
static const char sp_f21[] = "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
			     "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7";
static const char sp_f25[] = "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
			     "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b";

static size_t from_hex(const char *hex, unsigned char *bytes, size_t room)
{
	size_t len;

	assert_true(OPENSSL_hexstr2buf_ex(bytes, room, &len, hex, '\0'));
	return len;
}

static void pattern(unsigned char *bytes, size_t len, unsigned start)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = i + start;
}

static struct cipher *make(const char *name, const void *key, size_t key_len, unsigned sector)
{
	struct error err = { { 0 } };
	struct cipher *cipher = cipher_new(name, key, key_len, sector, &err);

	assert_string_equal(err.text, "");
	assert_non_null(cipher);
	return cipher;
}

/* The first bytes of a sector encrypt to expected, and all of it decrypts again. */
static void sector_becomes(const char *key_hex, uint64_t unit, const unsigned char *plain,
			   const char *expected_hex)
{
	unsigned char key[64], expected[512], out[512], back[512];
	size_t key_len = from_hex(key_hex, key, sizeof(key));
	size_t len = from_hex(expected_hex, expected, sizeof(expected));
	struct cipher *cipher = make("aes-xts-plain64", key, key_len, 512);

	assert_int_equal(cipher_encrypt(cipher, unit, plain, out, 512, NULL), 0);
	assert_memory_equal(out, expected, len);
	assert_int_equal(cipher_decrypt(cipher, unit, out, back, 512, NULL), 0);
	assert_memory_equal(back, plain, 512);
	cipher_free(cipher);
}

static void xts_128_ieee_1619_vectors_2_and_3(void **state)
{
	unsigned char plain[512];

	(void)state;
	memset(plain, 0x44, sizeof(plain));
	sector_becomes("1111111111111111111111111111111122222222222222222222222222222222",
		       0x3333333333, plain, vector_2);
	sector_becomes("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f022222222222222222222222222222222",
		       0x3333333333, plain, vector_3);
}

static void xts_128_ieee_1619_vector_4(void **state)
{
	unsigned char plain[512];

	(void)state;
	pattern(plain, sizeof(plain), 0);
	sector_becomes("2718281828459045235360287471352631415926535897932384626433832795", 0, plain,
		       vector_4);
}

static void xts_256_ieee_1619_vector_10(void **state)
{
	unsigned char plain[512];

	(void)state;
	pattern(plain, sizeof(plain), 0);
	sector_becomes("2718281828459045235360287471352662497757247093699959574966967627"
		       "3141592653589793238462643383279502884197169399375105820974944592",
		       0xff, plain, vector_10);
}

/* AES of one block, the only thing that the checks below take from OpenSSL. */
static void block_encrypt(const unsigned char *key, size_t key_len, const unsigned char *in,
			  unsigned char *out)
{
	const EVP_CIPHER *aes = key_len == 16 ? EVP_aes_128_ecb() :
				key_len == 24 ? EVP_aes_192_ecb() :
						EVP_aes_256_ecb();
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int done;

	assert_non_null(ctx);
	assert_true(EVP_EncryptInit_ex(ctx, aes, NULL, key, NULL));
	assert_true(EVP_EncryptUpdate(ctx, out, &done, in, BLOCK));
	assert_int_equal(done, BLOCK);
	EVP_CIPHER_CTX_free(ctx);
}

static void reference_cbc(const unsigned char *key, size_t key_len, const unsigned char *iv,
			  const unsigned char *in, unsigned char *out, size_t len)
{
	unsigned char block[BLOCK];

	for (size_t at = 0; at < len; at += BLOCK) {
		for (size_t i = 0; i < BLOCK; i++)
			block[i] = in[at + i] ^ iv[i];
		block_encrypt(key, key_len, block, out + at);
		iv = out + at;
	}
}

enum reference { PLAIN64, PLAIN, ESSIV };

/* What dm-crypt's documentation says of plain64, plain and essiv:sha256. */
static void reference_iv(enum reference how, const unsigned char *key, size_t key_len,
			 uint64_t unit, unsigned char *iv)
{
	unsigned char plain[BLOCK] = { 0 }, salt[32];

	for (size_t i = 0; i < (how == PLAIN ? 4 : 8); i++)
		plain[i] = unit >> (8 * i);
	memcpy(iv, plain, BLOCK);
	if (how == ESSIV) {
		assert_true(EVP_Digest(key, key_len, salt, NULL, EVP_sha256(), NULL));
		block_encrypt(salt, sizeof(salt), plain, iv);
	}
}

/* The reference agrees with a published vector, so what agrees with the reference is right:
 * the vectors' own IV is no sector's number. */
static void cbc_reference_is_that_of_sp_800_38a(void **state)
{
	unsigned char key[32], iv[BLOCK], plain[64], expected[64], out[64];

	(void)state;
	pattern(iv, BLOCK, 0);
	from_hex(sp_plain, plain, sizeof(plain));
	from_hex("2b7e151628aed2a6abf7158809cf4f3c", key, sizeof(key));
	from_hex(sp_f21, expected, sizeof(expected));
	reference_cbc(key, 16, iv, plain, out, sizeof(out));
	assert_memory_equal(out, expected, sizeof(out));
	from_hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", key,
		 sizeof(key));
	from_hex(sp_f25, expected, sizeof(expected));
	reference_cbc(key, 32, iv, plain, out, sizeof(out));
	assert_memory_equal(out, expected, sizeof(out));
}

static void cbc_agrees(const char *name, enum reference how, size_t key_len, unsigned sector,
		       uint64_t unit)
{
	unsigned char key[32], iv[BLOCK], plain[4096], expected[4096], out[4096];
	struct cipher *cipher;

	pattern(key, sizeof(key), 3);
	pattern(plain, sizeof(plain), 7);
	reference_iv(how, key, key_len, unit, iv);
	reference_cbc(key, key_len, iv, plain, expected, sector);
	cipher = make(name, key, key_len, sector);
	assert_int_equal(cipher_encrypt(cipher, unit, plain, out, sector, NULL), 0);
	assert_memory_equal(out, expected, sector);
	assert_int_equal(cipher_decrypt(cipher, unit, out, out, sector, NULL), 0);
	assert_memory_equal(out, plain, sector);
	cipher_free(cipher);
}

static void cbc_plain64_agrees_with_the_reference(void **state)
{
	(void)state;
	for (size_t key_len = 16; key_len <= 32; key_len += 8) {
		cbc_agrees("aes-cbc-plain64", PLAIN64, key_len, 512, 0);
		cbc_agrees("aes-cbc-plain64", PLAIN64, key_len, 512, 0x123456789a);
		cbc_agrees("aes-cbc-plain64", PLAIN64, key_len, 4096, 8);
	}
}

static void cbc_plain_agrees_with_the_reference(void **state)
{
	(void)state;
	for (size_t key_len = 16; key_len <= 32; key_len += 8) {
		cbc_agrees("aes-cbc-plain", PLAIN, key_len, 512, 0);
		cbc_agrees("aes-cbc-plain", PLAIN, key_len, 512, UINT32_MAX);
		cbc_agrees("aes-cbc-plain", PLAIN, key_len, 512, UINT64_C(1) << 32);
		cbc_agrees("aes-cbc-plain", PLAIN, key_len, 512, 0x123456789a);
		cbc_agrees("aes-cbc-plain", PLAIN, key_len, 4096, 0x1234567898);
	}
}

static void cbc_essiv_agrees_with_the_reference(void **state)
{
	(void)state;
	for (size_t key_len = 16; key_len <= 32; key_len += 8) {
		cbc_agrees("aes-cbc-essiv:sha256", ESSIV, key_len, 512, 0);
		cbc_agrees("aes-cbc-essiv:sha256", ESSIV, key_len, 512, 0x123456789a);
		cbc_agrees("aes-cbc-essiv:sha256", ESSIV, key_len, 4096, 8);
	}
}

static const struct {
	const char *name;
	size_t key_len;
} all[] = {
	{ "aes-xts-plain64", 32 },      { "aes-xts-plain64", 64 },
	{ "aes-cbc-plain64", 16 },      { "aes-cbc-plain64", 24 },
	{ "aes-cbc-plain64", 32 },      { "aes-cbc-plain", 16 },
	{ "aes-cbc-plain", 24 },        { "aes-cbc-plain", 32 },
	{ "aes-cbc-essiv:sha256", 16 }, { "aes-cbc-essiv:sha256", 24 },
	{ "aes-cbc-essiv:sha256", 32 },
};
#define ALL_COUNT (sizeof(all) / sizeof(all[0]))

static void many_sectors_equal_single_ones(size_t which, unsigned sector)
{
	unsigned char key[64], plain[16384], many[16384], single[16384];
	const uint64_t unit = 0xfffffff8; /* so that the number grows past 32 bits */
	struct cipher *cipher;

	pattern(key, sizeof(key), 11);
	pattern(plain, sizeof(plain), 5);
	cipher = make(all[which].name, key, all[which].key_len, sector);
	assert_int_equal(cipher_encrypt(cipher, unit, plain, many, sizeof(plain), NULL), 0);
	for (size_t at = 0; at < sizeof(plain); at += sector)
		assert_int_equal(cipher_encrypt(cipher, unit + at / 512, plain + at, single + at,
						sector, NULL),
				 0);
	assert_memory_equal(many, single, sizeof(many));
	assert_int_equal(cipher_decrypt(cipher, unit, many, single, sizeof(plain), NULL), 0);
	assert_memory_equal(single, plain, sizeof(plain));
	cipher_free(cipher);
}

static void units_step_by_the_sector_size(void **state)
{
	(void)state;
	for (size_t i = 0; i < ALL_COUNT; i++)
		for (unsigned sector = 512; sector <= 4096; sector *= 2)
			many_sectors_equal_single_ones(i, sector);
}

static void in_place_equals_out_of_place(void **state)
{
	unsigned char key[64], plain[8192], out[8192], place[8192];

	(void)state;
	pattern(key, sizeof(key), 11);
	pattern(plain, sizeof(plain), 5);
	for (size_t i = 0; i < ALL_COUNT; i++) {
		struct cipher *cipher = make(all[i].name, key, all[i].key_len, 4096);

		memcpy(place, plain, sizeof(plain));
		assert_int_equal(cipher_encrypt(cipher, 16, plain, out, sizeof(out), NULL), 0);
		assert_int_equal(cipher_encrypt(cipher, 16, place, place, sizeof(place), NULL), 0);
		assert_memory_equal(out, place, sizeof(out));
		assert_int_equal(cipher_decrypt(cipher, 16, place, place, sizeof(place), NULL), 0);
		assert_memory_equal(place, plain, sizeof(plain));
		cipher_free(cipher);
	}
}

static void no_bytes_are_fine(void **state)
{
	unsigned char key[32];
	struct cipher *cipher;

	(void)state;
	pattern(key, sizeof(key), 0);
	cipher = make("aes-xts-plain64", key, sizeof(key), 512);
	assert_int_equal(cipher_encrypt(cipher, 0, key, key, 0, NULL), 0);
	cipher_free(cipher);
}

static void refused(const char *name, size_t key_len, const char *message)
{
	unsigned char key[128] = { 0 };
	struct error err = { { 0 } };

	assert_int_equal(cipher_supported(name, key_len, &err), -ENOTSUP);
	assert_string_equal(err.text, message);
	err.text[0] = '\0';
	assert_null(cipher_new(name, key, key_len, 512, &err));
	assert_string_equal(err.text, message);
}

static void unknown_names_are_refused(void **state)
{
	(void)state;
	refused("serpent-xts-plain64", 64, "cipher serpent-xts-plain64 is not supported");
	refused("aes-xts-plain", 64, "cipher aes-xts-plain is not supported");
	refused("aes-xts-plain64be", 64, "cipher aes-xts-plain64be is not supported");
	refused("aes-cbc-essiv:sha1", 32, "cipher aes-cbc-essiv:sha1 is not supported");
	refused("", 32, "cipher  is not supported");
}

static void other_key_lengths_are_refused(void **state)
{
	(void)state;
	refused("aes-xts-plain64", 48,
		"cipher aes-xts-plain64 is not supported with a key of 384 bits");
	refused("aes-cbc-plain64", 64,
		"cipher aes-cbc-plain64 is not supported with a key of 512 bits");
	refused("aes-cbc-essiv:sha256", 0,
		"cipher aes-cbc-essiv:sha256 is not supported with a key of 0 bits");
}

static void supported_ones_are_told(void **state)
{
	struct error err = { { 0 } };

	(void)state;
	for (size_t i = 0; i < ALL_COUNT; i++)
		assert_int_equal(cipher_supported(all[i].name, all[i].key_len, &err), 0);
	assert_string_equal(err.text, "");
}

static void xts_key_of_equal_halves_is_refused(void **state)
{
	unsigned char key[64] = { 0 };
	struct error err = { { 0 } };

	(void)state;
	assert_null(cipher_new("aes-xts-plain64", key, sizeof(key), 512, &err));
	assert_string_equal(err.text, "cipher aes-xts-plain64: OpenSSL refuses it or its key");
}

static void freeing_nothing_is_harmless(void **state)
{
	(void)state;
	cipher_free(NULL);
}

/* What cipher_new() learns of where OpenSSL keeps an IV. */
static enum { AS_IT_IS, REFUSED, ELSEWHERE } iv_place;

static unsigned char elsewhere[BLOCK];

/* In place of libcrypto's. */
int EVP_CIPHER_CTX_get_params(EVP_CIPHER_CTX *ctx, OSSL_PARAM params[])
{
	int (*real)(EVP_CIPHER_CTX *, OSSL_PARAM *);
	OSSL_PARAM *param = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_UPDATED_IV);

	*(void **)&real = dlsym(RTLD_NEXT, "EVP_CIPHER_CTX_get_params");
	if (param && iv_place == REFUSED)
		return 0;
	if (param && iv_place == ELSEWHERE)
		return OSSL_PARAM_set_octet_ptr(param, elsewhere, sizeof(elsewhere));
	return real(ctx, params);
}

static void all_is_right_with_iv(int place)
{
	iv_place = place;
	xts_256_ieee_1619_vector_10(NULL);
	cbc_plain64_agrees_with_the_reference(NULL);
	cbc_plain_agrees_with_the_reference(NULL);
	cbc_essiv_agrees_with_the_reference(NULL);
	units_step_by_the_sector_size(NULL);
	in_place_equals_out_of_place(NULL);
	iv_place = AS_IT_IS;
}

static void openssl_may_not_tell_where_ivs_are(void **state)
{
	(void)state;
	all_is_right_with_iv(REFUSED);
}

static void writing_where_ivs_were_may_do_nothing(void **state)
{
	static const unsigned char untouched[BLOCK];

	(void)state;
	all_is_right_with_iv(ELSEWHERE);
	assert_memory_not_equal(elsewhere, untouched, BLOCK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(xts_128_ieee_1619_vectors_2_and_3),
		cmocka_unit_test(xts_128_ieee_1619_vector_4),
		cmocka_unit_test(xts_256_ieee_1619_vector_10),
		cmocka_unit_test(cbc_reference_is_that_of_sp_800_38a),
		cmocka_unit_test(cbc_plain64_agrees_with_the_reference),
		cmocka_unit_test(cbc_plain_agrees_with_the_reference),
		cmocka_unit_test(cbc_essiv_agrees_with_the_reference),
		cmocka_unit_test(units_step_by_the_sector_size),
		cmocka_unit_test(in_place_equals_out_of_place),
		cmocka_unit_test(openssl_may_not_tell_where_ivs_are),
		cmocka_unit_test(writing_where_ivs_were_may_do_nothing),
		cmocka_unit_test(no_bytes_are_fine),
		cmocka_unit_test(unknown_names_are_refused),
		cmocka_unit_test(other_key_lengths_are_refused),
		cmocka_unit_test(supported_ones_are_told),
		cmocka_unit_test(xts_key_of_equal_halves_is_refused),
		cmocka_unit_test(freeing_nothing_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
