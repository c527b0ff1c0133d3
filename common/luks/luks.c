#include "luks/luks.h"

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <libcryptsetup.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "luks/luks-json.h"
#include "luks/luks-memfd.h"
#include "luks/luks-tokens.h"
#include "memory/secret.h"

#define UNIT         512
#define MIB          (UINT64_C(1) << 20)
#define HEADER_FIRST (16 * MIB) /* holds both copies of any LUKS2 header */
#define COPY_CHUNK   MIB

/* Of LUKS1 (its specification, figure 1), up to the key slots, which behind these may be any: magic,
 * cipher, hash, the data's offset, the key's digest, the UUID. */
#define LUKS1_METADATA 4096
#define LUKS1_FIXED    208

struct header {
	const struct luks_source *source;
	struct luks_memfd memfd;
	uint64_t copied; /* bytes of the source that it holds, from the start */
};

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

/* A disk that can't be read there may be LUKS all the same. */
static int tail_copy(struct header *header, struct error *err)
{
	const struct luks_source *source = header->source;
	uint64_t offset = luks_memfd_tail(&header->memfd, header->copied);
	void *tail = malloc(LUKS_TAIL);
	int ret = 0;

	if (!tail)
		return error_set(err, ENOMEM, "%s: out of memory", source->name);
	if (offset < source->size &&
	    !source->read(source->opaque, tail, source->size - offset, offset))
		ret = luks_memfd_write(&header->memfd, tail, source->size - offset, offset, err);
	free(tail);
	return ret;
}

static int start_load(struct header *header, uint64_t first, struct error *err)
{
	int ret = luks_memfd_make(&header->memfd, header->source->size, err);

	return ret ? ret : header_copy(header, first, err);
}

static int finish_load(struct header *header, struct error *err)
{
	int ret = luks_memfd_load(&header->memfd, err);

	return ret == -ENODATA ? -EINVAL : ret;
}

static int luks_header_load(struct header *header, struct error *err)
{
	int ret = start_load(header, HEADER_FIRST, err);

	if (!ret)
		ret = tail_copy(header, err);
	return ret ? ret : finish_load(header, err);
}

/* A decimal number in a string, as LUKS2 writes what may not fit in 53 bits. */
static int number_read(const struct header *header, struct json_object *segment, const char *member,
		       uint64_t *value, struct error *err)
{
	const char *text = luks_json_text(luks_json_member(segment, member));
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

static int size_read(const struct header *header, struct json_object *segment, struct luks *luks,
		     struct error *err)
{
	const char *text = luks_json_text(luks_json_member(segment, "size"));
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
	struct json_object *config = luks_json_member(json, "config");
	struct json_object *requirements = luks_json_member(config, "requirements");
	const char *name = luks_json_first(luks_json_member(requirements, "mandatory"));

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
	static const char *const journal[] = { "journal_encryption", "journal_integrity" };
	const char *name = header->source->name;
	const char *type = luks_json_text(luks_json_member(segment, "type"));
	const char *flag = luks_json_first(luks_json_member(segment, "flags"));
	struct json_object *integrity = luks_json_member(segment, "integrity");

	if (strcmp(type, "crypt"))
		return error_set(err, ENOTSUP, "%s: segment type %s is not supported", name, type);
	for (size_t i = 0; integrity && i < sizeof(journal) / sizeof(journal[0]); i++) {
		const char *how = luks_json_text(luks_json_member(integrity, journal[i]));

		if (strcmp(how, "none"))
			return error_set(err, ENOTSUP, "%s: integrity with %s %s is not supported",
					 name, journal[i], how);
	}
	if (flag)
		return error_set(err, ENOTSUP, "%s: segment flag \"%s\" is not supported", name,
				 flag);
	return 0;
}

static int segment_find(const struct header *header, struct json_object *json,
			struct json_object **segment, struct error *err)
{
	struct json_object *segments = luks_json_member(json, "segments");
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

static int segment_read(const struct header *header, struct json_object *segment, struct luks *luks,
			struct error *err)
{
	const char *cipher = luks_json_text(luks_json_member(segment, "encryption"));
	struct json_object *integrity = luks_json_member(segment, "integrity");
	int64_t sector = json_object_get_int64(luks_json_member(segment, "sector_size"));
	int ret;

	luks->integrity = integrity;
	snprintf(luks->cipher, sizeof(luks->cipher), "%s%s%s", cipher, integrity ? " " : "",
		 integrity ? luks_json_text(luks_json_member(integrity, "type")) : "");
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

/* Of the flags that tell how to open it, these are about what it does. */
static void flags_read(struct json_object *json, struct luks *luks)
{
	struct json_object *flags = luks_json_member(luks_json_member(json, "config"), "flags");

	if (!json_object_is_type(flags, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(flags); i++) {
		const char *flag = luks_json_text(json_object_array_get_idx(flags, i));

		luks->allow_discards |= !strcmp(flag, "allow-discards");
		luks->no_journal |= !strcmp(flag, "no-journal");
	}
}

static int luks2_read(struct header *header, struct luks *luks, struct error *err)
{
	struct json_object *json, *segment = NULL;
	int ret = luks_json_load(&header->memfd, &json, err);

	if (ret)
		return ret;
	ret = requirements_refuse(header, json, err);
	if (!ret)
		ret = segment_find(header, json, &segment, err);
	if (!ret)
		ret = segment_read(header, segment, luks, err);
	flags_read(json, luks);
	json_object_put(json);
	return ret;
}

static void luks1_read(struct header *header, struct luks *luks)
{
	luks_memfd_cipher(&header->memfd, luks->cipher, sizeof(luks->cipher));
	luks->sector = UNIT;
	luks->data_offset = crypt_get_data_offset(header->memfd.cd) * UNIT;
}

static int geometry_check(const struct header *header, const struct luks *luks, struct error *err)
{
	const char *name = header->source->name;

	if (luks->data_offset % luks->sector || luks->data_size % luks->sector)
		return error_set(err, EINVAL, "%s: the data don't start or end on a sector of %u",
				 name, luks->sector);
	if (luks->data_size > INT64_MAX - luks->data_offset)
		return error_set(err, EINVAL, "%s: the data end beyond any device", name);
	if (luks->integrity && luks->iv_offset)
		return error_set(err, ENOTSUP,
				 "%s: integrity with a first IV of another sector is not supported",
				 name);
	/* As dm-crypt has it. */
	if (luks->iv_offset % (luks->sector / UNIT))
		return error_set(err, EINVAL, "%s: the first IV is not that of a sector of %u",
				 name, luks->sector);
	return 0;
}

/* Data that start inside of the header are those of another disk: the first write to them would
 * destroy it. */
static int place_check(struct header *header, struct luks *luks, struct error *err)
{
	uint64_t copy_len = 0;
	int ret = luks_memfd_measure(&header->memfd, &luks->header_len, &copy_len, err);

	luks->metadata_len = copy_len ? 2 * copy_len : LUKS1_METADATA;
	if (ret || header->source->detached || luks->data_offset >= luks->header_len)
		return ret;
	return error_set(err, EINVAL,
			 "%s: this is a detached LUKS header: its data are elsewhere: "
			 "give it as the header (header=, --header) of the disk that has them",
			 header->source->name);
}

static int header_read(struct header *header, const struct luks_pass *pass, struct luks *luks,
		       struct error *err)
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
		ret = place_check(header, luks, err);
	if (!ret && !pass->volume_key)
		ret = luks_slots_check_cipher(&header->memfd, pass, luks->cipher, err);
	return ret;
}

/* ---- which volume it is ---- */

static int add_text(EVP_MD_CTX *sum, const char *text)
{
	return EVP_DigestUpdate(sum, text, strlen(text) + 1);
}

/* Key slots are named by a digest too, and change. */
static int add_luks2(EVP_MD_CTX *sum, struct json_object *json)
{
	struct json_object *digests = luks_json_member(json, "digests");
	struct json_object *segments = luks_json_member(json, "segments");
	int ok = segments ? add_text(sum, json_object_to_json_string(segments)) : 0;

	if (!json_object_is_type(digests, json_type_object))
		return 0;
	json_object_object_foreach(digests, number, digest)
	{
		ok = ok && add_text(sum, number) &&
		     add_text(sum, luks_json_text(luks_json_member(digest, "salt"))) &&
		     add_text(sum, luks_json_text(luks_json_member(digest, "digest")));
	}
	return ok;
}

static int add_header(struct luks_memfd *memfd, EVP_MD_CTX *sum, struct error *err)
{
	const char *uuid = crypt_get_uuid(memfd->cd);
	uint8_t fixed[LUKS1_FIXED];
	struct json_object *json;
	int ret, ok = add_text(sum, uuid ? uuid : "");

	if (luks_memfd_version(memfd) == 1) {
		ok = ok && pread(memfd->fd, fixed, LUKS1_FIXED, 0) == LUKS1_FIXED &&
		     EVP_DigestUpdate(sum, fixed, LUKS1_FIXED);
	} else {
		ret = luks_json_load(memfd, &json, err);
		if (ret)
			return ret;
		ok = ok && add_luks2(sum, json);
		json_object_put(json);
	}
	return ok ? 0 : luks_memfd_damaged(memfd, err);
}

int luks_identify_memfd(struct luks_memfd *memfd, uint8_t identity[LUKS_IDENTITY_LEN],
			struct error *err)
{
	EVP_MD_CTX *sum = EVP_MD_CTX_new();
	int ret = 0;

	if (!sum || !EVP_DigestInit_ex(sum, EVP_sha256(), NULL))
		ret = error_set(err, ENOMEM, "%s: no memory", memfd->name);
	if (!ret)
		ret = add_header(memfd, sum, err);
	if (!ret && !EVP_DigestFinal_ex(sum, identity, NULL))
		ret = luks_memfd_damaged(memfd, err);
	EVP_MD_CTX_free(sum);
	return ret;
}

static int add_metadata(const struct luks_source *source, uint64_t len, void *chunk,
			EVP_MD_CTX *sum, struct error *err)
{
	for (uint64_t at = 0, part; at < len; at += part) {
		int ret;

		part = len - at < COPY_CHUNK ? len - at : COPY_CHUNK;
		ret = source->read(source->opaque, chunk, part, at);
		if (ret)
			return error_set(err, -ret, "%s: reading the LUKS header: %s", source->name,
					 error_reason(-ret));
		if (!EVP_DigestUpdate(sum, chunk, part))
			return error_set(err, ENOMEM, "%s: no memory", source->name);
	}
	return 0;
}

static int sum_metadata(const struct luks_source *source, uint64_t len,
			uint8_t metadata[LUKS_IDENTITY_LEN], struct error *err)
{
	EVP_MD_CTX *sum = EVP_MD_CTX_new();
	void *chunk = malloc(COPY_CHUNK);
	int ret = 0;

	if (len > source->size)
		len = source->size;
	if (!sum || !chunk || !EVP_DigestInit_ex(sum, EVP_sha256(), NULL))
		ret = error_set(err, ENOMEM, "%s: no memory", source->name);
	if (!ret)
		ret = add_metadata(source, len, chunk, sum, err);
	if (!ret && !EVP_DigestFinal_ex(sum, metadata, NULL))
		ret = error_set(err, ENOMEM, "%s: no memory", source->name);
	free(chunk);
	EVP_MD_CTX_free(sum);
	return ret;
}

static int read_loaded(void *opaque, void *buf, size_t len, uint64_t offset)
{
	const struct luks_memfd *memfd = opaque;
	ssize_t n = pread(memfd->fd, buf, len, offset);

	return n < 0 ? -errno : n == (ssize_t)len ? 0 : -EIO;
}

/* As they were read. If libcryptsetup has repaired them they are others, and it is asked each time. */
static int sum_loaded(struct header *header, struct luks *luks, struct error *err)
{
	const struct luks_source loaded = {
		.name = header->source->name,
		.size = header->source->size,
		.read = read_loaded,
		.opaque = &header->memfd,
	};

	return sum_metadata(&loaded, luks->metadata_len, luks->metadata, err);
}

static int load_and_identify(const struct luks_source *source, uint64_t metadata_len,
			     uint8_t identity[LUKS_IDENTITY_LEN], struct error *err)
{
	struct header header = { .source = source };
	int ret;

	luks_memfd_init(&header.memfd, source->name);
	ret = start_load(&header, metadata_len, err);
	if (!ret)
		ret = finish_load(&header, err);
	if (!ret)
		ret = luks_identify_memfd(&header.memfd, identity, err);
	luks_memfd_close(&header.memfd);
	return ret;
}

/* Most times nothing at all has changed. To see that takes little memory, and no parser, which may crash
 * where it gets none, or miss something. */
int luks_identify(const struct luks_source *source, const struct luks *luks,
		  uint8_t identity[LUKS_IDENTITY_LEN], struct error *err)
{
	uint8_t metadata[LUKS_IDENTITY_LEN];
	int ret = sum_metadata(source, luks->metadata_len, metadata, err);

	if (ret)
		return ret;
	if (memcmp(metadata, luks->metadata, sizeof(metadata)) != 0)
		return load_and_identify(source, luks->metadata_len, identity, err);
	memcpy(identity, luks->identity, LUKS_IDENTITY_LEN);
	return 0;
}

/* ---- unlocking ---- */

static int slots_open(struct header *header, const struct luks_pass *pass, struct luks *luks,
		      struct error *err)
{
	return luks_slots_open(&header->memfd, pass, luks->cipher, &luks->key, &luks->key_len, err);
}

static int slots_open_by_asking(struct header *header, const struct luks_pass *pass,
				struct luks *luks, struct error *err)
{
	struct luks_pass asked = *pass;
	struct key key = { 0 };
	int ret;

	err->text[0] = '\0';
	do {
		key_clear(&key);
		ret = pass->asker->ask(pass->asker->opaque, &key, err);
		if (ret < 0)
			break;
		asked.data = key.data;
		asked.len = key.len;
		ret = slots_open(header, &asked, luks, err);
	} while (ret == -EPERM);
	key_clear(&key);
	return ret;
}

/* What the tokens don't open, a passphrase may. */
static int tokens_open(struct header *header, const struct luks_pass *pass, struct luks *luks,
		       struct error *err)
{
	int ret = -ENOKEY;

	if (pass->tokens)
		ret = luks_tokens_open(&header->memfd, pass, luks->cipher, &luks->key,
				       &luks->key_len, err);
	if (pass->tokens && (ret != -ENOKEY || !(pass->asker || pass->data)))
		return ret;
	if (pass->tokens && pass->notice)
		notice_tell(pass->notice, "%s", err->text);
	return pass->asker ? slots_open_by_asking(header, pass, luks, err) :
			     slots_open(header, pass, luks, err);
}

int luks_unlock(const struct luks_source *source, const struct luks_pass *pass, struct luks *luks,
		struct error *err)
{
	const struct luks_guard *guard = pass->guard;
	struct header header = { .source = source };
	int ret;

	memset(luks, 0, sizeof(*luks));
	luks_memfd_init(&header.memfd, source->name);
	ret = luks_header_load(&header, err);
	if (!ret && guard)
		ret = guard->check_header(guard->opaque, &header.memfd, err);
	if (!ret)
		ret = header_read(&header, pass, luks, err);
	if (!ret)
		ret = luks_identify_memfd(&header.memfd, luks->identity, err);
	if (!ret)
		ret = sum_loaded(&header, luks, err);
	/* The key slots' material lies behind the header that was needed for loading. */
	if (!ret)
		ret = header_copy(&header, luks->header_len, err);
	if (!ret)
		ret = tokens_open(&header, pass, luks, err);
	luks->slot = ret;
	if (ret >= 0 && guard)
		ret = guard->check_key(guard->opaque, luks->key, luks->key_len, err);
	if (ret < 0)
		luks_clear(luks);
	luks_memfd_close(&header.memfd);
	return ret < 0 ? ret : 0;
}

void luks_clear(struct luks *luks)
{
	secret_free(luks->key, luks->key_len);
	memset(luks, 0, sizeof(*luks));
}
