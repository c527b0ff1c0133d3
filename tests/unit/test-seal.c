/* A sealed header: one canonical form for all that means the same, a MAC that others can compute, and
 * words for what changed. */
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "integrity/seal.h"

#define UUID "27ea5185-21db-482a-8ace-68b644c90ce2"

/* A header as cryptsetup writes it, with less in it. */
static const char *usual =
	"{\"keyslots\":{\"0\":{\"type\":\"luks2\",\"key_size\":64,\"af\":{\"type\":\"luks1\","
	"\"stripes\":4000},\"kdf\":{\"type\":\"argon2id\",\"time\":4,\"salt\":\"xyz/+=\"}},"
	"\"1\":{\"type\":\"luks2\",\"key_size\":64}},\"tokens\":{},"
	"\"segments\":{\"0\":{\"type\":\"crypt\",\"offset\":\"16777216\",\"size\":\"dynamic\","
	"\"encryption\":\"aes-xts-plain64\",\"sector_size\":4096}},"
	"\"digests\":{\"0\":{\"type\":\"pbkdf2\",\"keyslots\":[\"0\",\"1\"],\"segments\":[\"0\"]}},"
	"\"config\":{\"json_size\":\"12288\",\"keyslots_size\":\"16744448\"}}";

static char *canonical(const char *json)
{
	struct json_object *metadata = json_tokener_parse(json);
	char *text;

	assert_non_null(metadata);
	text = seal_text(metadata);
	assert_non_null(text);
	json_object_put(metadata);
	return text;
}

static void assert_canonical(const char *json, const char *wanted)
{
	char *text = canonical(json);

	assert_string_equal(text, wanted);
	free(text);
}

static void the_canonical_form_is_one(void **state)
{
	(void)state;
	assert_canonical("{ \"keyslots\" : { \"1\":{}, \"0\" : {\"b\":1,\n\"a\":\"x/y\"} } }",
			 "{\"keyslots\":{\"0\":{\"a\":\"x/y\",\"b\":1},\"1\":{}}}");
	assert_canonical(
		"{\"tokens\":{\"0\":{\"n\":null,\"l\":[3,{\"z\":1,\"y\":2},[]]}},\"config\":{}}",
		"{\"config\":{},\"tokens\":{\"0\":{\"l\":[3,{\"y\":2,\"z\":1},[]],\"n\":null}}}");
	/* "10" is before "2": bytes, not numbers. What opens nothing isn't in it. */
	assert_canonical("{\"digests\":{\"2\":0,\"10\":0},\"other\":{\"1\":2}}",
			 "{\"digests\":{\"10\":0,\"2\":0}}");
}

static void the_mac_is_as_documented(void **state)
{
	static const uint8_t wanted[SEAL_MAC] = { 0x4d, 0xb3, 0xc2, 0xa6, 0x67, 0xfe, 0x25, 0xed,
						  0x87, 0xd9, 0x10, 0x46, 0xc6, 0xc3, 0x58, 0xc5,
						  0xd5, 0x2b, 0xf8, 0x5b, 0x40, 0x2c, 0x9f, 0xe6,
						  0x0a, 0x70, 0x3e, 0xb5, 0x55, 0x6e, 0xd0, 0xae };
	uint8_t key[64], mac[SEAL_MAC];
	const char *text = "{\"config\":{},\"keyslots\":{\"0\":{\"a/b\":1}}}";

	(void)state;
	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = i;
	assert_int_equal(seal_mac(key, sizeof(key), UUID, 3, text, mac), 0);
	assert_memory_equal(mac, wanted, SEAL_MAC);
	assert_true(seal_same(mac, wanted));
	assert_int_equal(seal_mac(key, sizeof(key), UUID, 4, text, mac), 0);
	assert_false(seal_same(mac, wanted));
	key[0] ^= 1;
	assert_int_equal(seal_mac(key, sizeof(key), UUID, 3, text, mac), 0);
	assert_false(seal_same(mac, wanted));
}

/* The usual header with this in place of that. */
static void assert_words(const char *that, const char *this, const char *wanted)
{
	const char *at = strstr(usual, that);
	char other[2048], words[256];
	char *before = canonical(usual), *now;

	assert_non_null(at);
	snprintf(other, sizeof(other), "%.*s%s%s", (int)(at - usual), usual, this,
		 at + strlen(that));
	now = canonical(other);
	seal_differences(before, now, words, sizeof(words));
	assert_string_equal(words, wanted);
	free(before);
	free(now);
}

static void what_changed_is_said(void **state)
{
	(void)state;
	assert_words("argon2id", "argon2id", "");
	assert_words(",\"1\":{\"type\":\"luks2\",\"key_size\":64}", "", "key slot 1 is gone");
	assert_words("\"tokens\":{}", "\"tokens\":{\"4\":{\"type\":\"clevis\"}}", "token 4 is new");
	assert_words("aes-xts-plain64", "cipher_null-ecb",
		     "segment 0: encryption was aes-xts-plain64 and is cipher_null-ecb");
	assert_words("xyz", "abc", "key slot 0: kdf changed");
	assert_words("[\"0\",\"1\"]", "[\"0\"]", "digest 0: keyslots changed");
	assert_words("\"12288\"", "\"9\"", "the member config changed");
	assert_words("4096}", "512,\"integrity\":{}}",
		     "segment 0: sector_size changed and integrity is new");
	assert_words("\"1\":{\"type\":\"luks2\"", "\"7\":{\"type\":\"luks2\"",
		     "key slot 1 is gone, key slot 7 is new");
}

/* The new header is somebody else's. */
static void nothing_in_it_is_believed(void **state)
{
	static const char *const others[] = { "",
					      "[]",
					      "3",
					      "{\"keyslots\":7}",
					      "{\"keyslots\":null}",
					      "{\"keyslots\":{\"0\":[]}}",
					      "{\"segments\":[1]}" };
	char *before = canonical(usual);
	char words[128], small[8];

	(void)state;
	assert_words("\"tokens\":{}", "\"tokens\":{\"\\u001b[31m\":{}}", "token ?[31m is new");
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		seal_differences(before, others[i], words, sizeof(words));
		assert_true(strlen(words) > 0);
		seal_differences(before, others[i], small, sizeof(small));
		assert_int_equal(strlen(small), sizeof(small) - 1);
	}
	free(before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_canonical_form_is_one),
		cmocka_unit_test(the_mac_is_as_documented),
		cmocka_unit_test(what_changed_is_said),
		cmocka_unit_test(nothing_in_it_is_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
