#include "integrity/trusted.h"

#include <errno.h>
#include <json-c/json.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "luks/luks-json.h"

int trusted_open(struct trusted *trusted, const char *path, bool read_only, struct error *err)
{
	int ret = 0;

	*trusted = (struct trusted){ .file = { .fd = -1 }, .token = { .number = -1 } };
	if (path)
		ret = trust_file_open(&trusted->file, &trusted->trust, path, read_only, err);
	trusted->has_file = path && ret == 0;
	return ret;
}

int trusted_close(struct trusted *trusted, struct error *err)
{
	int ret = 0;

	if (trusted->has_file)
		ret = trust_file_close(&trusted->file, &trusted->trust, err);
	free(trusted->text);
	free(trusted->name);
	*trusted = (struct trusted){ .file = { .fd = -1 } };
	return ret;
}

/* What is wrong is said of the disk, and by which file. */
static int of_disk(const struct trusted *trusted, int ret, struct error *err)
{
	struct error why;

	if (ret == 0)
		return 0;
	why = *err;
	return error_set(err, -ret, "%s: %s%s", trusted->name, why.text,
			 ret == -ESTALE ? " (if that was you: ndio trust --again)" : "");
}

static int read_sealed(struct trusted *trusted, struct luks_memfd *memfd, struct error *err)
{
	struct json_object *metadata;
	int ret = luks_json_load(memfd, &metadata, err);

	if (ret < 0)
		return ret;
	free(trusted->text);
	trusted->text = seal_text(metadata);
	seal_token_find(metadata, &trusted->token);
	json_object_put(metadata);
	return trusted->text ? 0 : error_set(err, ENOMEM, "%s: no memory", memfd->name);
}

/* Of its areas nothing is known yet. */
static int check_uuid(const struct trusted *trusted, struct error *err)
{
	struct trust_volume volume = trusted->trust.volume;

	memcpy(volume.uuid, trusted->uuid, TRUST_UUID);
	return trust_check_volume(&trusted->trust, &volume, err);
}

int trusted_read_header(struct trusted *trusted, struct luks_memfd *memfd, struct error *err)
{
	const char *uuid = crypt_get_uuid(memfd->cd);

	free(trusted->name);
	trusted->name = strdup(memfd->name);
	if (!trusted->name)
		return error_set(err, ENOMEM, "%s: no memory", memfd->name);
	snprintf(trusted->uuid, sizeof(trusted->uuid), "%s", uuid ? uuid : "");
	return luks_memfd_version(memfd) == 2 ? read_sealed(trusted, memfd, err) : 0;
}

int trusted_check_header(struct trusted *trusted, struct luks_memfd *memfd, struct error *err)
{
	int ret = trusted_read_header(trusted, memfd, err);

	if (ret < 0 || !trusted->has_file)
		return ret;
	if (luks_memfd_version(memfd) != 2)
		return error_set(err, ENOTSUP,
				 "%s: a trust file is for LUKS2: LUKS1's header can't be sealed",
				 memfd->name);
	ret = check_uuid(trusted, err);
	if (ret == 0)
		ret = trust_check_header(&trusted->trust, trusted->text, err);
	return of_disk(trusted, ret, err);
}

/* Without a trust file nobody knows what it was. */
static int check_token(const struct trusted *trusted, const void *volume_key, size_t key_len,
		       struct error *err)
{
	const struct seal_token *token = &trusted->token;
	uint8_t mac[SEAL_MAC];
	int ret = token->good ? seal_mac(volume_key, key_len, trusted->uuid, token->count,
					 trusted->text, mac) :
				0;

	if (ret < 0)
		return error_set(err, -ret, "%s: the header's MAC: %s", trusted->name,
				 strerror(-ret));
	if (token->good && seal_same(mac, token->mac))
		return 0;
	return error_set(
		err, ESTALE,
		"%s: the header isn't the one that was sealed: another program changed it, "
		"or who stores it (if it was you, ndio trust --again seals it)",
		trusted->name);
}

int trusted_check_key(struct trusted *trusted, const void *volume_key, size_t key_len,
		      struct error *err)
{
	int ret;

	if (!trusted->text)
		return 0;
	if (!trusted->has_file)
		return trusted->token.number < 0 ? 0 :
						   check_token(trusted, volume_key, key_len, err);
	ret = trust_check_key(&trusted->trust, volume_key, key_len, err);
	if (ret == 0 && !trusted->file.read_only)
		ret = trust_settle_header(&trusted->trust, trusted->text, volume_key, key_len, err);
	return of_disk(trusted, ret, err);
}

struct trust_volume trusted_volume(const struct trusted *trusted, const struct layout *layout)
{
	struct trust_volume volume = { .seals = 0 };

	memcpy(volume.uuid, trusted->uuid, TRUST_UUID);
	if (!layout)
		return volume;
	volume.size = layout->size;
	volume.area_len = layout->area_data;
	volume.block = layout->block;
	volume.tag_size = layout->tag_size;
	return volume;
}

int trusted_check_areas(const struct trusted *trusted, const struct layout *layout,
			struct error *err)
{
	struct trust_volume volume;

	if (!trusted->has_file)
		return 0;
	volume = trusted_volume(trusted, layout);
	return of_disk(trusted, trust_check_volume(&trusted->trust, &volume, err), err);
}
