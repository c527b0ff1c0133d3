#include "luks/luks-tokens.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "luks/token-clevis.h"
#include "luks/token-keyring.h"
#include "luks/token-plugin.h"

#define MAX_TOKENS  (LUKS_MAX_TOKEN + 1)
#define REASONS_MAX 400 /* bytes */

/* One search for a token that opens. */
struct hunt {
	struct luks_memfd *memfd;
	const struct luks_pass *pass; /* what there is of it but for the token */
	const char *cipher;
	void **key;
	size_t *key_len;
	int64_t until;             /* of clock_ms(): from then on none is begun */
	char reasons[REASONS_MAX]; /* why those that were tried don't */
};

/* ---- what the header says of one ---- */

static bool is_type(struct json_object *token, const char *type)
{
	return strcmp(luks_json_text(luks_json_member(token, "type")), type) == 0;
}

void luks_token_about(struct json_object *token, char *text, size_t size)
{
	text[0] = '\0';
	if (is_type(token, "clevis"))
		token_clevis_about(token, text, size);
	else if (is_type(token, "luks2-keyring"))
		token_keyring_about(token, text, size);
}

/* "token 0 (clevis, tang http://host)" */
static void name_token(int number, struct json_object *token, char *text, size_t size)
{
	char about[LUKS_TOKEN_ABOUT];

	luks_token_about(token, about, sizeof(about));
	snprintf(text, size, "token %d (%.48s%s%s)", number,
		 luks_json_text(luks_json_member(token, "type")), about[0] ? ", " : "", about);
}

uint32_t luks_token_slots(struct json_object *token)
{
	struct json_object *names = luks_json_member(token, "keyslots");
	uint32_t slots = 0;

	if (!json_object_is_type(names, json_type_array))
		return 0;
	for (size_t i = 0; i < json_object_array_length(names); i++) {
		const char *name = luks_json_text(json_object_array_get_idx(names, i));
		unsigned slot;

		if (sscanf(name, "%2u", &slot) == 1 && slot < 32)
			slots |= UINT32_C(1) << slot;
	}
	return slots;
}

/* ---- trying one ---- */

/* A passphrase that it gives opens one of its slots. */
static int open_by_passphrase(struct hunt *hunt, const struct luks_pass *pass,
			      struct json_object *token, struct error *why)
{
	const struct luks_tokens *tokens = pass->tokens;
	unsigned wait = tokens->wait ? tokens->wait : LUKS_TOKEN_WAIT;
	struct luks_pass given = *pass;
	struct key key = { 0 };
	int ret;

	if (is_type(token, "clevis"))
		ret = token_clevis_open(token, wait * 1000, &key, why);
	else
		ret = token_keyring_open(token, &key, why);
	given.data = key.data;
	given.len = key.len;
	given.name = "what it gives";
	if (ret == 0)
		ret = luks_slots_open(hunt->memfd, &given, hunt->cipher, hunt->key, hunt->key_len,
				      why);
	key_clear(&key);
	return ret;
}

/* As often as it wants a PIN, and there is one. */
static int open_by_pins(struct hunt *hunt, int number, const char *type, const char *name,
			size_t key_len, struct error *why)
{
	const struct luks_tokens *tokens = hunt->pass->tokens;
	struct key pin = { 0 };
	char whose[320];
	int ret = token_plugin_open(hunt->memfd, number, type, NULL, *hunt->key, key_len, why);

	snprintf(whose, sizeof(whose), "%.100s: %s", hunt->memfd->name, name);
	if (ret == -ENOANO)
		why->text[0] = '\0';
	while (ret == -ENOANO && tokens->pin) {
		key_clear(&pin);
		ret = tokens->pin(tokens->opaque, whose, &pin, why);
		if (ret < 0)
			break;
		ret = token_plugin_open(hunt->memfd, number, type, &pin, *hunt->key, key_len, why);
		if (ret == -ENOANO)
			error_set(why, EPERM, "it doesn't take this PIN");
	}
	key_clear(&pin);
	if (ret == -ENOANO && !tokens->pin)
		error_set(why, EPERM, "it needs a PIN, and nobody is asked for it");
	return ret;
}

static int open_by_plugin(struct hunt *hunt, const struct luks_pass *pass, int number,
			  struct json_object *token, const char *name, struct error *why)
{
	const char *type = json_object_get_string(luks_json_member(token, "type"));
	int ret = luks_slots_check(hunt->memfd, pass, hunt->cipher, hunt->key_len, why);

	if (ret < 0)
		return ret;
	*hunt->key = secret_alloc(*hunt->key_len, why);
	if (!*hunt->key)
		return -ENOMEM;
	ret = open_by_pins(hunt, number, type, name, *hunt->key_len, why);
	if (ret < 0) {
		secret_free(*hunt->key, *hunt->key_len);
		*hunt->key = NULL;
	}
	return ret;
}

static int try_token(struct hunt *hunt, int number, struct json_object *token, const char *name,
		     struct error *why)
{
	struct luks_pass pass = *hunt->pass;

	pass.slots = luks_token_slots(token);
	if (pass.slot != LUKS_ANY_SLOT)
		pass.slots &= UINT32_C(1) << pass.slot;
	pass.slot = LUKS_ANY_SLOT;
	if (!pass.slots)
		return error_set(why, ENOENT, "it is of no key slot that may be tried");
	if (clock_ms() >= hunt->until)
		return error_set(why, ETIME, "those before took too long");
	if (is_type(token, "clevis") || is_type(token, "luks2-keyring"))
		return open_by_passphrase(hunt, &pass, token, why);
	if (token_plugin_has(luks_json_text(luks_json_member(token, "type"))))
		return open_by_plugin(hunt, &pass, number, token, name, why);
	return error_set(why, ENOTSUP, "it isn't of a kind that is supported");
}

/* ---- all of them ---- */

static void add_reason(struct hunt *hunt, const char *name, const struct error *why)
{
	size_t len = strlen(hunt->reasons);
	const char *text = why->text, *volume = hunt->memfd->name;

	/* Once is enough. */
	if (strncmp(text, volume, strlen(volume)) == 0 && text[strlen(volume)] == ':')
		text += strlen(volume) + 2;
	snprintf(hunt->reasons + len, sizeof(hunt->reasons) - len, "%s%s: %s", len ? "; " : "",
		 name, text);
}

/* The number of the slot that it opens, or -ENOKEY. */
static int try_number(struct hunt *hunt, int number, struct json_object *token)
{
	char name[192];
	struct error why = { "" };
	int ret;

	name_token(number, token, name, sizeof(name));
	ret = try_token(hunt, number, token, name, &why);
	if (ret >= 0)
		return ret;
	add_reason(hunt, name, &why);
	return -ENOKEY;
}

static int try_tokens(struct hunt *hunt, struct json_object *tokens)
{
	int wanted = hunt->pass->tokens->number, ret = -ENOKEY;

	for (int number = 0; number < MAX_TOKENS && ret < 0; number++) {
		struct json_object *token = luks_json_numbered(tokens, number);

		if (token && (wanted == LUKS_ANY_TOKEN || wanted == number))
			ret = try_number(hunt, number, token);
	}
	return ret;
}

static int none_did(const struct hunt *hunt, struct error *err)
{
	const char *name = hunt->memfd->name;
	int wanted = hunt->pass->tokens->number;

	if (hunt->reasons[0])
		return error_set(err, ENOKEY, "%s: %s", name, hunt->reasons);
	if (wanted != LUKS_ANY_TOKEN)
		return error_set(err, ENOKEY, "%s: the LUKS header has no token %d", name, wanted);
	return error_set(err, ENOKEY, "%s: the LUKS header has no token", name);
}

/* A chain of headers that each keep us busy to the limit would be endless. */
static int64_t time_limit(const struct luks_pass *pass)
{
	unsigned wait = pass->tokens->wait ? pass->tokens->wait : LUKS_TOKEN_WAIT;
	unsigned kdf = pass->max_kdf_time ? pass->max_kdf_time : LUKS_MAX_KDF_TIME;

	return clock_ms() + INT64_C(1000) * (4 * (int64_t)wait + kdf);
}

int luks_tokens_open(struct luks_memfd *memfd, const struct luks_pass *pass, const char *cipher,
		     void **key, size_t *key_len, struct error *err)
{
	struct hunt hunt = {
		.memfd = memfd,
		.pass = pass,
		.cipher = cipher,
		.key = key,
		.key_len = key_len,
		.until = time_limit(pass),
	};
	struct json_object *json;
	int ret;

	*key = NULL;
	if (luks_memfd_version(memfd) != 2)
		return error_set(err, ENOKEY, "%s: LUKS1 headers have no tokens", memfd->name);
	ret = luks_json_load(memfd, &json, err);
	if (ret < 0)
		return ret;
	ret = try_tokens(&hunt, luks_json_member(json, "tokens"));
	json_object_put(json);
	if (ret < 0)
		return none_did(&hunt, err);
	if (hunt.reasons[0] && pass->notice)
		notice_tell(pass->notice, "%s: %s", memfd->name, hunt.reasons);
	return ret;
}
