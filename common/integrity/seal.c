#include "integrity/seal.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/printable.h"
#include "luks/luks-json.h"

#define VERSION_LINE "ndio sealed header 1"

/* What opens the volume; and what one of it is called. */
static const struct {
	const char *member, *one;
} sealed_parts[] = {
	{ "config", NULL },        { "digests", "digest" }, { "keyslots", "key slot" },
	{ "segments", "segment" }, { "tokens", "token" },
};
#define PARTS (sizeof(sealed_parts) / sizeof(sealed_parts[0]))

/* ---- the canonical form ---- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool sort_json(struct json_object *from, struct json_object **to);

/* Its members in the order of their names: json-c keeps that in which they are added. */
static bool sort_object(struct json_object *from, struct json_object *to)
{
	size_t count = 0, all = json_object_object_length(from);
	const char **names = calloc(all + 1, sizeof(*names));
	struct json_object *value;
	bool good = names;

	json_object_object_foreach(from, name, ignored)
	{
		(void)ignored;
		if (names && count < all)
			names[count++] = name;
	}
	if (names)
		qsort(names, count, sizeof(*names), compare_names);
	for (size_t i = 0; good && i < count; i++)
		good = sort_json(luks_json_member(from, names[i]), &value) &&
		       json_object_object_add(to, names[i], value) == 0;
	free(names);
	return good;
}

static bool sort_array(struct json_object *from, struct json_object *to)
{
	size_t count = json_object_array_length(from);
	struct json_object *value;
	bool good = true;

	for (size_t i = 0; good && i < count; i++)
		good = sort_json(json_object_array_get_idx(from, i), &value) &&
		       json_object_array_add(to, value) == 0;
	return good;
}

/* NULL is a null. json_tokener nests no deeper than 32. */
static bool sort_json(struct json_object *from, struct json_object **to)
{
	bool good;

	if (json_object_is_type(from, json_type_object)) {
		*to = json_object_new_object();
		good = *to && sort_object(from, *to);
	} else if (json_object_is_type(from, json_type_array)) {
		*to = json_object_new_array();
		good = *to && sort_array(from, *to);
	} else {
		*to = json_object_get(from);
		return true;
	}
	if (!good)
		json_object_put(*to);
	return good;
}

/* What the MAC is kept in can't be under it, and opens nothing. Of the sorted tokens. */
static void drop_seals(struct json_object *tokens)
{
	for (int number = 0; number < SEAL_TOKENS; number++) {
		struct json_object *token = luks_json_numbered(tokens, number);
		char name[16];

		snprintf(name, sizeof(name), "%d", number);
		if (strcmp(luks_json_text(luks_json_member(token, "type")), SEAL_TOKEN) == 0)
			json_object_object_del(tokens, name);
	}
}

char *seal_text(struct json_object *metadata)
{
	struct json_object *sealed = json_object_new_object(), *part;
	const char *text = NULL;
	bool good = sealed;
	char *copy;

	for (size_t i = 0; good && i < PARTS; i++)
		if (json_object_object_get_ex(metadata, sealed_parts[i].member, &part))
			good = sort_json(part, &part) &&
			       json_object_object_add(sealed, sealed_parts[i].member, part) == 0;
	drop_seals(luks_json_member(sealed, "tokens"));
	if (good)
		text = json_object_to_json_string_ext(
			sealed, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	copy = text ? strdup(text) : NULL;
	json_object_put(sealed);
	return copy;
}

/* ---- the MAC ---- */

static int derive_key(const void *volume_key, size_t key_len, const char *uuid,
		      uint8_t key[SEAL_MAC])
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)volume_key, key_len),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)uuid, strlen(uuid)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)VERSION_LINE,
						  strlen(VERSION_LINE)),
		OSSL_PARAM_construct_end(),
	};
	int ret = context && EVP_KDF_derive(context, key, SEAL_MAC, params) == 1 ? 0 : -EIO;

	EVP_KDF_CTX_free(context);
	EVP_KDF_free(kdf);
	return ret;
}

int seal_mac(const void *volume_key, size_t key_len, const char *uuid, uint64_t count,
	     const char *text, uint8_t mac[SEAL_MAC])
{
	uint8_t key[SEAL_MAC];
	size_t len = 0;
	char *all;
	int ret;

	if (asprintf(&all, "%s\n%s\n%" PRIu64 "\n%s", VERSION_LINE, uuid, count, text) < 0)
		return -ENOMEM;
	ret = derive_key(volume_key, key_len, uuid, key);
	if (ret == 0 && !EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, sizeof(key),
				   (const uint8_t *)all, strlen(all), mac, SEAL_MAC, &len))
		ret = -EIO;
	OPENSSL_cleanse(key, sizeof(key));
	free(all);
	return ret;
}

bool seal_same(const uint8_t one[SEAL_MAC], const uint8_t other[SEAL_MAC])
{
	return CRYPTO_memcmp(one, other, SEAL_MAC) == 0;
}

/* ---- what changed ---- */

struct words {
	char *at;
	size_t left;
	bool any;
};

static void say_words(struct words *words, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void say_words(struct words *words, const char *fmt, ...)
{
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(words->at, words->left, fmt, args);
	va_end(args);
	if (len < 0 || (size_t)len >= words->left)
		len = words->left - 1;
	words->at += len;
	words->left -= len;
}

/* "key slot 1" */
static void say_subject(struct words *words, const char *one, const char *number)
{
	say_words(words, "%s%s %.40s", words->any ? ", " : "", one, number);
	words->any = true;
}

/* Which members of something that is in both are others. Short texts are told. */
static void say_members(struct words *words, struct json_object *before, struct json_object *now)
{
	const char *colon = ":";

	if (!json_object_is_type(before, json_type_object) ||
	    !json_object_is_type(now, json_type_object)) {
		say_words(words, " changed");
		return;
	}
	json_object_object_foreach(before, name, was)
	{
		struct json_object *is = luks_json_member(now, name);

		if (json_object_equal(was, is))
			continue;
		say_words(words, "%s %.40s", colon, name);
		if (json_object_is_type(was, json_type_string) &&
		    json_object_is_type(is, json_type_string))
			say_words(words, " was %.40s and is %.40s", luks_json_text(was),
				  luks_json_text(is));
		else
			say_words(words, " changed");
		colon = " and";
	}
	json_object_object_foreach(now, added, ignored)
	{
		(void)ignored;
		if (json_object_object_get_ex(before, added, NULL))
			continue;
		say_words(words, "%s %.40s is new", colon, added);
		colon = " and";
	}
}

static void say_part(struct words *words, const char *one, struct json_object *before,
		     struct json_object *now)
{
	json_object_object_foreach(before, number, was)
	{
		struct json_object *is;

		if (!json_object_object_get_ex(now, number, &is)) {
			say_subject(words, one, number);
			say_words(words, " is gone");
		} else if (!json_object_equal(was, is)) {
			say_subject(words, one, number);
			say_members(words, was, is);
		}
	}
	json_object_object_foreach(now, added, ignored)
	{
		(void)ignored;
		if (json_object_object_get_ex(before, added, NULL))
			continue;
		say_subject(words, one, added);
		say_words(words, " is new");
	}
}

void seal_differences(const char *before, const char *now, char *words, size_t size)
{
	char raw[1024];
	struct words said = { .at = raw, .left = sizeof(raw) };
	struct json_object *one = json_tokener_parse(before), *other = json_tokener_parse(now);

	raw[0] = '\0';
	for (size_t i = 0; i < PARTS; i++) {
		struct json_object *was = luks_json_member(one, sealed_parts[i].member);
		struct json_object *is = luks_json_member(other, sealed_parts[i].member);

		if (sealed_parts[i].one && json_object_is_type(was, json_type_object) &&
		    json_object_is_type(is, json_type_object))
			say_part(&said, sealed_parts[i].one, was, is);
		else if (!json_object_equal(was, is)) {
			say_subject(&said, "the member", sealed_parts[i].member);
			say_words(&said, " changed");
		}
	}
	json_object_put(one);
	json_object_put(other);
	printable(raw, words, size);
}
