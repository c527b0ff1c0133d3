#include "header/header-seal.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "luks/luks-json.h"
#include "memory/secret.h"
#include "terminal/say.h"

void header_seal_init(struct header *header)
{
	trusted_open(&header->trusted, NULL, true, NULL);
}

int header_seal_open(struct header *header, const char *trust, bool readonly, struct error *err)
{
	return trusted_open(&header->trusted, trust, readonly, err);
}

void header_seal_close(struct header *header)
{
	struct error err;

	secret_free(header->volume_key, header->volume_key_len);
	header->volume_key = NULL;
	if (trusted_close(&header->trusted, &err) < 0)
		say_error("%s", err.text);
}

int header_seal_look(struct header *header, struct error *err)
{
	return header->breaks_seal ? trusted_read_header(&header->trusted, &header->memfd, err) :
				     trusted_check_header(&header->trusted, &header->memfd, err);
}

int header_seal_key(struct header *header, const void *volume_key, size_t key_len,
		    struct error *err)
{
	struct trusted *trusted = &header->trusted;
	int ret = 0;

	if (!header->breaks_seal)
		ret = trusted_check_key(trusted, volume_key, key_len, err);
	else if (trusted->has_file)
		ret = trust_check_key(&trusted->trust, volume_key, key_len, err);
	if (ret < 0 || header->volume_key)
		return ret;
	header->volume_key = secret_alloc(key_len, err);
	if (!header->volume_key)
		return -ENOMEM;
	memcpy(header->volume_key, volume_key, key_len);
	header->volume_key_len = key_len;
	return 0;
}

/* What it was sealed as, and what it will be. */
static int read_new(struct header *header, char **text, struct seal_token *token, struct error *err)
{
	struct json_object *metadata;
	int ret = luks_json_load(&header->memfd, &metadata, err);

	if (ret < 0)
		return ret;
	*text = seal_text(metadata);
	seal_token_find(metadata, token);
	json_object_put(metadata);
	return *text ? 0 : error_set(err, ENOMEM, "%s: no memory", header->name);
}

static int seal_new(struct header *header, const char *text, struct seal_token *token,
		    struct error *err)
{
	const struct trusted *trusted = &header->trusted;
	int ret;

	if (!token->good)
		token->count = 0;
	if (trusted->has_file && trusted->trust.volume.seals > token->count)
		token->count = trusted->trust.volume.seals;
	token->count++;
	ret = seal_mac(header->volume_key, header->volume_key_len, trusted->uuid, token->count,
		       text, token->mac);
	if (ret < 0)
		return error_set(err, -ret, "%s: sealing its header: %s", header->name,
				 strerror(-ret));
	return seal_token_put(&header->memfd, token, err);
}

int header_seal_before(struct header *header, bool anew, struct error *err)
{
	struct trusted *trusted = &header->trusted;
	struct seal_token token;
	char *text = NULL;
	bool same;
	int ret;

	header->unsealed = false;
	if (header->version != 2 || !trusted->text ||
	    (!anew && trusted->token.number < 0 && !trusted->has_file))
		return 0;
	ret = read_new(header, &text, &token, err);
	if (ret < 0)
		return ret;
	same = strcmp(text, trusted->text) == 0;
	header->unsealed = !same && !header->volume_key;
	/* A token that was taken away is meant to be gone. */
	if (ret == 0 && header->volume_key && (anew || (!same && token.number >= 0)))
		ret = seal_new(header, text, &token, err);
	if (ret == 0 && header->volume_key && trusted->has_file &&
	    strcmp(text, trusted->trust.text) != 0)
		ret = trust_intend_header(&trusted->trust, text, header->volume_key,
					  header->volume_key_len, err);
	free(text);
	return ret;
}

int header_seal_after(struct header *header, struct error *err)
{
	struct trusted *trusted = &header->trusted;
	bool known = trusted->text;
	int ret;

	if (header->unsealed)
		say_error("%s: its header isn't the one that was sealed any more, and is refused: "
			  "ndio trust --again seals it",
			  header->name);
	if (header->version != 2 || !known || header->unsealed)
		return 0;
	ret = header_seal_look(header, err);
	if (ret == 0 && trusted->has_file && header->volume_key)
		ret = trust_seal(&trusted->trust, trusted->text, header->volume_key,
				 header->volume_key_len, err);
	return ret;
}
