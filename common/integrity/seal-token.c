#include "integrity/seal-token.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libcryptsetup.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "luks/luks-json.h"

#define MAC_DIGITS (2 * SEAL_MAC)

static bool read_seal_count(struct json_object *token, uint64_t *count)
{
	const char *text = luks_json_text(luks_json_member(token, "count"));
	char again[24];

	*count = strtoull(text, NULL, 10);
	snprintf(again, sizeof(again), "%" PRIu64, *count);
	return *count > 0 && strcmp(text, again) == 0;
}

static bool read_seal_mac(struct json_object *token, uint8_t *mac)
{
	const char *text = luks_json_text(luks_json_member(token, "mac"));
	size_t len = 0;

	return strlen(text) == MAC_DIGITS &&
	       OPENSSL_hexstr2buf_ex(mac, SEAL_MAC, &len, text, '\0') && len == SEAL_MAC;
}

static bool has_no_slots(struct json_object *token)
{
	struct json_object *slots = luks_json_member(token, "keyslots");

	return json_object_is_type(slots, json_type_array) && json_object_array_length(slots) == 0;
}

void seal_token_find(struct json_object *metadata, struct seal_token *token)
{
	struct json_object *tokens = luks_json_member(metadata, "tokens");

	*token = (struct seal_token){ .number = -1 };
	for (int number = 0; number < SEAL_TOKENS && token->number < 0; number++) {
		struct json_object *one = luks_json_numbered(tokens, number);

		if (!one || strcmp(luks_json_text(luks_json_member(one, "type")), SEAL_TOKEN) != 0)
			continue;
		token->number = number;
		token->good = read_seal_count(one, &token->count) &&
			      read_seal_mac(one, token->mac) && has_no_slots(one);
	}
}

int seal_token_put(struct luks_memfd *memfd, const struct seal_token *token, struct error *err)
{
	char mac[MAC_DIGITS + 1], json[256];
	size_t len;
	int ret;

	OPENSSL_buf2hexstr_ex(mac, sizeof(mac), &len, token->mac, SEAL_MAC, '\0');
	snprintf(json, sizeof(json),
		 "{\"type\":\"" SEAL_TOKEN "\",\"keyslots\":[],\"count\":\"%" PRIu64
		 "\",\"mac\":\"%s\"}",
		 token->count, mac);
	ret = crypt_token_json_set(memfd->cd, token->number < 0 ? CRYPT_ANY_TOKEN : token->number,
				   json);
	if (ret < 0)
		return error_set(err, -ret, "%s: sealing its header: %s", memfd->name,
				 luks_memfd_reason(memfd, ret));
	return 0;
}
