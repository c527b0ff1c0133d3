#include "luks/token-clevis.h"

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/filter.h"
#include "base/program-find.h"
#include "luks/luks-json.h"

#define PIN_MAX 16 /* letters of the name of how it is held */

/* The parts of a JWE, in the order of its compact form, which has a dot between them. */
static const char *const parts[] = { "protected", "encrypted_key", "iv", "ciphertext", "tag" };
#define NR_PARTS (sizeof(parts) / sizeof(parts[0]))

/* Base64 as URLs have it: NULL for anything else. */
static const char *jwe_part(struct json_object *jwe, const char *name)
{
	struct json_object *part = luks_json_member(jwe, name);
	const char *text = json_object_get_string(part);

	if (!json_object_is_type(part, json_type_string) ||
	    strlen(text) != (size_t)json_object_get_string_len(part))
		return NULL;
	for (const char *c = text; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
			return NULL;
	return text;
}

/* ---- what it says of itself ---- */

/* Whole groups of four are what OpenSSL decodes. The caller frees it. */
static char *decode_base64(const char *text)
{
	size_t len = strlen(text), padded = (len + 3) / 4 * 4;
	char *groups = malloc(padded + 1), *bytes = malloc(padded + 1);
	int n = -1;

	if (groups && bytes) {
		for (size_t i = 0; i < padded; i++)
			groups[i] = i >= len       ? '=' :
				    text[i] == '-' ? '+' :
				    text[i] == '_' ? '/' :
						     text[i];
		n = EVP_DecodeBlock((unsigned char *)bytes, (unsigned char *)groups, padded);
	}
	free(groups);
	if (n < 0) {
		free(bytes);
		return NULL;
	}
	bytes[n] = '\0';
	return bytes;
}

/* To be put; or NULL. */
static struct json_object *read_protected(struct json_object *token)
{
	const char *part = jwe_part(luks_json_member(token, "jwe"), "protected");
	char *text = part && strlen(part) <= FILTER_IN_MAX ? decode_base64(part) : NULL;
	struct json_object *json = text ? json_tokener_parse(text) : NULL;

	free(text);
	return json;
}

/* It becomes a part of the name of a program, so it is a plain word. */
static const char *pin_of(struct json_object *header)
{
	struct json_object *clevis = luks_json_member(header, "clevis");
	struct json_object *name = luks_json_member(clevis, "pin");
	const char *pin = luks_json_text(name);

	if (!json_object_is_type(name, json_type_string))
		return NULL;
	for (const char *c = pin; *c; c++)
		if (!isalnum((unsigned char)*c) || c - pin >= PIN_MAX)
			return NULL;
	return *pin ? pin : NULL;
}

void token_clevis_about(struct json_object *token, char *text, size_t size)
{
	struct json_object *header = read_protected(token);
	const char *pin = pin_of(header);
	struct json_object *clevis = luks_json_member(header, "clevis");
	struct json_object *url =
		luks_json_member(luks_json_member(clevis, pin ? pin : "none"), "url");

	text[0] = '\0';
	if (header && pin)
		snprintf(text, size, "%s%s%.100s", pin, url ? " " : "",
			 url ? luks_json_text(url) : "");
	json_object_put(header);
}

/* ---- opening it ---- */

/* Its compact form. The caller frees it. */
static char *compact_jwe(struct json_object *jwe, struct error *why)
{
	size_t len = NR_PARTS;
	char *text, *end;

	for (size_t i = 0; i < NR_PARTS; i++) {
		const char *part = jwe_part(jwe, parts[i]);

		len += part ? strlen(part) : FILTER_IN_MAX;
	}
	if (len > FILTER_IN_MAX) {
		error_set(why, EINVAL, "what it holds is damaged");
		return NULL;
	}
	text = end = malloc(len);
	if (!text)
		error_set(why, ENOMEM, "out of memory");
	for (size_t i = 0; i < NR_PARTS && text; i++)
		end += sprintf(end, "%s%s", jwe_part(jwe, parts[i]), i + 1 < NR_PARTS ? "." : "");
	return text;
}

static int check_pin(struct json_object *token, struct error *why)
{
	struct json_object *header = read_protected(token);
	bool is_one = pin_of(header);

	json_object_put(header);
	return is_one ? 0 : error_set(why, EINVAL, "what it holds is damaged");
}

static int decrypt_jwe(const char *jwe, unsigned ms, struct key *pass, struct error *why)
{
	char path[PATH_MAX];
	const struct filter filter = {
		.argv = (const char *const[]){ path, "decrypt", NULL },
		.in = jwe,
		.in_len = strlen(jwe),
		.out = pass->data,
		.out_size = CLEVIS_PASSPHRASE_MAX,
		.ms = ms,
	};
	long n = program_find("clevis", "clevis", path, why);

	if (n == 0)
		n = filter_run(&filter, why);
	if (n == 0)
		n = error_set(why, EIO, "clevis has no answer");
	pass->len = n > 0 ? n : 0;
	return n < 0 ? n : 0;
}

int token_clevis_open(struct json_object *token, unsigned ms, struct key *pass, struct error *why)
{
	int ret = check_pin(token, why);
	char *jwe = ret == 0 ? compact_jwe(luks_json_member(token, "jwe"), why) : NULL;

	if (!jwe)
		return -EINVAL;
	ret = key_make(pass, CLEVIS_PASSPHRASE_MAX, why);
	while (ret == 0 && pass->locked < CLEVIS_PASSPHRASE_MAX)
		ret = key_grow(pass, why);
	if (ret == 0)
		ret = decrypt_jwe(jwe, ms, pass, why);
	free(jwe);
	return ret;
}
