#include "luks.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cipher.h"
#include "luks-memfd.h"
#include "secret.h"

#define UNIT         512
#define MIB          (UINT64_C(1) << 20)
#define HEADER_FIRST (16 * MIB) /* holds both copies of any LUKS2 header */
#define COPY_CHUNK   MIB

struct header {
	const struct luks_source *source;
	struct luks_memfd memfd;
	uint64_t copied; /* bytes of the source that it holds, from the start */
};

static bool is_printable(char c)
{
	return c >= ' ' && c <= '~';
}

static int chunk_copy(struct header *header, void *chunk, size_t len, struct error *err)
{
	const struct luks_source *source = header->source;
	int ret = source->read(source->opaque, chunk, len, header->copied);

	if (ret)
		return error_set(err, -ret, "%s: reading the LUKS header: %s", source->name,
				 error_reason(-ret));
	ret = luks_memfd_write(&header->memfd, chunk, len, header->copied, err);
	if (!ret)
		header->copied += len;
	return ret;
}

/* Copies what is missing of the source's bytes before end. */
static int header_copy(struct header *header, uint64_t end, struct error *err)
{
	void *chunk = malloc(COPY_CHUNK);
	int ret = 0;

	if (!chunk)
		return error_set(err, ENOMEM, "%s: out of memory", header->source->name);
	if (end > header->source->size)
		end = header->source->size;
	while (!ret && header->copied < end) {
		uint64_t left = end - header->copied;

		ret = chunk_copy(header, chunk, left < COPY_CHUNK ? left : COPY_CHUNK, err);
	}
	free(chunk);
	return ret;
}

static int header_load(struct header *header, struct error *err)
{
	int ret = luks_memfd_make(&header->memfd, header->source->size, err);

	if (!ret)
		ret = header_copy(header, HEADER_FIRST, err);
	if (!ret)
		ret = luks_memfd_load(&header->memfd, err);
	return ret == -ENODATA ? -EINVAL : ret;
}

static struct json_object *json_member(struct json_object *object, const char *name)
{
	struct json_object *member = NULL;

	json_object_object_get_ex(object, name, &member);
	return member;
}

/* What stands there, fit for a message; never NULL. */
static const char *json_text(struct json_object *value)
{
	const char *text = json_object_get_string(value);

	if (!text)
		return "none";
	for (const char *c = text; *c; c++)
		if (!is_printable(*c))
			return "(unprintable)";
	return text;
}

/* An array's first entry, or NULL: what isn't an array has none. */
static const char *json_first(struct json_object *array)
{
	if (!json_object_is_type(array, json_type_array) || !json_object_array_length(array))
		return NULL;
	return json_text(json_object_array_get_idx(array, 0));
}

/* A decimal number in a string, as LUKS2 writes what may not fit in 53 bits. */
static int number_read(const struct header *header, struct json_object *segment,
		       const char *member, uint64_t *value, struct error *err)
{
	const char *text = json_text(json_member(segment, member));
	char *end;

	errno = 0;
	if (isdigit((unsigned char)text[0])) {
		*value = strtoull(text, &end, 10);
		if (!errno && !*end && *value <= INT64_MAX)
			return 0;
	}
	return error_set(err, EINVAL, "%s: the LUKS header has an impossible %s: %s",
			 header->source->name, member, text);
}

static int size_read(const struct header *header, struct json_object *segment,
		     struct luks *luks, struct error *err)
{
	const char *text = json_text(json_member(segment, "size"));
	int ret;

	if (!strcmp(text, "dynamic"))
		return 0;
	ret = number_read(header, segment, "size", &luks->data_size, err);
	if (!ret && !luks->data_size)
		return error_set(err, EINVAL, "%s: the LUKS header says that there are no data",
				 header->source->name);
	return ret;
}

static int requirements_refuse(const struct header *header, struct json_object *json,
			       struct error *err)
{
	struct json_object *config = json_member(json, "config");
	struct json_object *requirements = json_member(config, "requirements");
	const char *name = json_first(json_member(requirements, "mandatory"));

	if (!name)
		return 0;
	if (strstr(name, "reencrypt"))
		return error_set(err, ENOTSUP,
				 "%s: a reencryption is under way (requirement \"%s\")",
				 header->source->name, name);
	return error_set(err, ENOTSUP, "%s: requirement \"%s\" is not supported",
			 header->source->name, name);
}

static int segment_refuse(const struct header *header, struct json_object *segment,
			  struct error *err)
{
	const char *name = header->source->name;
	const char *type = json_text(json_member(segment, "type"));
	const char *flag = json_first(json_member(segment, "flags"));
	struct json_object *integrity = json_member(segment, "integrity");
	const char *integrity_type = json_text(json_member(integrity, "type"));

	if (strcmp(type, "crypt"))
		return error_set(err, ENOTSUP, "%s: segment type %s is not supported", name,
				 type);
	if (integrity)
		return error_set(err, ENOTSUP, "%s: integrity %s is not supported", name,
				 integrity_type);
	if (flag)
		return error_set(err, ENOTSUP, "%s: segment flag \"%s\" is not supported", name,
				 flag);
	return 0;
}

static int segment_find(const struct header *header, struct json_object *json,
			struct json_object **segment, struct error *err)
{
	struct json_object *segments = json_member(json, "segments");
	struct json_object_iterator first;

	if (!json_object_is_type(segments, json_type_object))
		return luks_memfd_damaged(&header->memfd, err);
	if (json_object_object_length(segments) != 1)
		return error_set(err, ENOTSUP, "%s: %d data segments are not supported",
				 header->source->name, json_object_object_length(segments));
	first = json_object_iter_begin(segments);
	*segment = json_object_iter_peek_value(&first);
	return segment_refuse(header, *segment, err);
}

static int segment_read(const struct header *header, struct json_object *segment,
			struct luks *luks, struct error *err)
{
	const char *cipher = json_text(json_member(segment, "encryption"));
	int64_t sector = json_object_get_int64(json_member(segment, "sector_size"));
	int ret;

	snprintf(luks->cipher, sizeof(luks->cipher), "%s", cipher);
	if (sector < 512 || sector > 4096 || (sector & (sector - 1)))
		return error_set(err, EINVAL,
				 "%s: the LUKS header has an impossible sector size: %lld",
				 header->source->name, (long long)sector);
	luks->sector = sector;
	ret = number_read(header, segment, "offset", &luks->data_offset, err);
	if (!ret)
		ret = number_read(header, segment, "iv_tweak", &luks->iv_offset, err);
	if (!ret)
		ret = size_read(header, segment, luks, err);
	return ret;
}

static int luks2_read(struct header *header, struct luks *luks, struct error *err)
{
	struct json_object *json, *segment = NULL;
	const char *text;
	int ret;

	ret = crypt_dump_json(header->memfd.cd, &text, 0);
	if (ret)
		return error_set(err, -ret, "%s: reading the LUKS2 metadata: %s",
				 header->source->name, luks_memfd_reason(&header->memfd, ret));
	json = json_tokener_parse(text);
	if (!json)
		return luks_memfd_damaged(&header->memfd, err);
	ret = requirements_refuse(header, json, err);
	if (!ret)
		ret = segment_find(header, json, &segment, err);
	if (!ret)
		ret = segment_read(header, segment, luks, err);
	json_object_put(json);
	return ret;
}

static void luks1_read(struct header *header, struct luks *luks)
{
	snprintf(luks->cipher, sizeof(luks->cipher), "%s-%s", crypt_get_cipher(header->memfd.cd),
		 crypt_get_cipher_mode(header->memfd.cd));
	for (char *c = luks->cipher; *c; c++)
		if (!is_printable(*c))
			*c = '?';
	luks->sector = UNIT;
	luks->data_offset = crypt_get_data_offset(header->memfd.cd) * UNIT;
}

static int geometry_check(const struct header *header, const struct luks *luks,
			  struct error *err)
{
	const char *name = header->source->name;

	if (luks->data_offset % luks->sector || luks->data_size % luks->sector)
		return error_set(err, EINVAL,
				 "%s: the data don't start or end on a sector of %u", name,
				 luks->sector);
	if (luks->data_size > INT64_MAX - luks->data_offset)
		return error_set(err, EINVAL, "%s: the data end beyond any device", name);
	/* As dm-crypt has it. */
	if (luks->iv_offset % (luks->sector / UNIT))
		return error_set(err, EINVAL, "%s: the first IV is not that of a sector of %u",
				 name, luks->sector);
	return 0;
}

static int no_key_slot(const struct header *header, struct error *err)
{
	return error_set(err, EPERM, "%s: the LUKS header has no key slot that is in use",
			 header->source->name);
}

static int cipher_check(const struct header *header, struct luks *luks, struct error *err)
{
	int key_len = crypt_get_volume_key_size(header->memfd.cd);
	struct error reason;

	if (key_len <= 0)
		return no_key_slot(header, err);
	luks->key_len = key_len;
	if (cipher_supported(luks->cipher, luks->key_len, &reason))
		return error_set(err, ENOTSUP, "%s: %s", header->source->name, reason.text);
	return 0;
}

static int header_read(struct header *header, struct luks *luks, struct error *err)
{
	int ret = 0;

	luks->version = luks_memfd_version(&header->memfd);
	if (luks->version == 2)
		ret = luks2_read(header, luks, err);
	else
		luks1_read(header, luks);
	if (!ret)
		ret = geometry_check(header, luks, err);
	if (!ret)
		ret = cipher_check(header, luks, err);
	return ret;
}

/* The key slots' material lies behind the header that was needed for loading. */
static int key_areas_copy(struct header *header, struct error *err)
{
	uint64_t end;
	int ret = luks_memfd_measure(&header->memfd, &end, NULL, err);

	return ret ? ret : header_copy(header, end, err);
}

static int key_unlock(struct header *header, const void *pass, size_t pass_len,
		      struct luks *luks, struct error *err)
{
	const char *name = header->source->name;
	size_t len = luks->key_len;
	int ret;

	luks->key = secret_alloc(luks->key_len, err);
	if (!luks->key)
		return -ENOMEM;
	ret = crypt_volume_key_get(header->memfd.cd, CRYPT_ANY_SLOT, luks->key, &len,
				   pass_len ? pass : "", pass_len);
	if (ret == -EPERM)
		return error_set(err, EPERM, "%s: no key slot opens with %s", name,
				 pass_len ? "this passphrase" : "an empty passphrase");
	if (ret == -ENOENT)
		return no_key_slot(header, err);
	if (ret < 0)
		return error_set(err, -ret, "%s: opening the key slots: %s", name,
				 luks_memfd_reason(&header->memfd, ret));
	if (len != luks->key_len)
		return error_set(err, EINVAL, "%s: the key slots hold keys of several lengths",
				 name);
	return 0;
}

int luks_unlock(const struct luks_source *source, const void *pass, size_t pass_len,
		struct luks *luks, struct error *err)
{
	struct header header = { .source = source };
	int ret;

	memset(luks, 0, sizeof(*luks));
	luks_memfd_init(&header.memfd, source->name);
	ret = header_load(&header, err);
	if (!ret)
		ret = header_read(&header, luks, err);
	if (!ret)
		ret = key_areas_copy(&header, err);
	if (!ret)
		ret = key_unlock(&header, pass, pass_len, luks, err);
	if (ret)
		luks_clear(luks);
	luks_memfd_close(&header.memfd);
	return ret;
}

void luks_clear(struct luks *luks)
{
	secret_free(luks->key, luks->key_len);
	memset(luks, 0, sizeof(*luks));
}
