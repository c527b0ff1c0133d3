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

static bool same_token(const struct seal_token *one, const struct seal_token *other)
{
	return one->number >= 0 && one->good && other->good && one->count == other->count &&
	       seal_same(one->mac, other->mac);
}

/* A sealed header was changed without the volume key, so whether a seal fits isn't known: the sentence that
 * is true all the same, or NULL. */
static const char *what_became(const struct header *header, enum header_change change, bool same,
			       const struct seal_token *token)
{
	if (change != HEADER_RESTORED)
		return same ? NULL :
			      "its header isn't the one that was sealed any more, and is refused: "
			      "ndio trust --again seals it";
	if (token->number < 0)
		return "its header has no seal any more, since the backup has none: it opens, and only "
		       "a trust file could refuse it: ndio trust seals it";
	if (same && same_token(&header->trusted.token, token))
		return NULL;
	return "its header has the backup's seal now: if that fits it opens, with passphrases that were "
	       "removed since as well, and only a trust file could refuse it; what is refused is "
	       "believed after ndio trust --again";
}

int header_seal_before(struct header *header, enum header_change change, struct error *err)
{
	struct trusted *trusted = &header->trusted;
	bool anew = change == HEADER_SEALED, same;
	struct seal_token token;
	char *text = NULL;
	int ret;

	header->seal_became = NULL;
	if (!trusted->text || (!anew && trusted->token.number < 0 && !trusted->has_file))
		return 0;
	if (header->version != 2) {
		header->seal_became = "its header is LUKS1's now, and has no seal any more";
		return 0;
	}
	ret = read_new(header, &text, &token, err);
	if (ret < 0)
		return ret;
	same = strcmp(text, trusted->text) == 0;
	if (!header->volume_key)
		header->seal_became = what_became(header, change, same, &token);
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

	if (header->seal_became)
		say_error("%s: %s", header->name, header->seal_became);
	if (header->version != 2 || !known || header->seal_became)
		return 0;
	ret = header_seal_look(header, err);
	if (ret == 0 && trusted->has_file && header->volume_key)
		ret = trust_seal(&trusted->trust, trusted->text, header->volume_key,
				 header->volume_key_len, err);
	return ret;
}
