#include "header/header-integrity.h"

#include <endian.h>
#include <errno.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/align.h"
#include "integrity/journal-section.h"
#include "integrity/layout.h"
#include "luks/luks-json.h"

#define WRITE_LEN (1024 * 1024)

/* Of LUKS2 (its specification, 2.1), in front of the JSON: where these are, in bytes. */
#define BINARY_LEN 4096
#define CSUM_AT    448
#define CSUM_LEN   64

/* ---- the segment ---- */

static int unexpected_header(const struct header *header, struct error *err)
{
	return error_set(err, EIO, "%s: the new LUKS header isn't as expected", header->name);
}

static void put_text(struct json_object *object, const char *member, const char *text)
{
	json_object_object_add(object, member, json_object_new_string(text));
}

static struct json_object *array_of(const char *text)
{
	struct json_object *array = json_object_new_array();

	json_object_array_add(array, json_object_new_string(text));
	return array;
}

/* The digest of the key slot becomes the segment's, and the other, of a key that nobody has, goes. */
static bool move_digest(struct json_object *json)
{
	struct json_object *digests = luks_json_member(json, "digests");
	const char *ours = NULL, *other = NULL;
	struct json_object *digest;

	if (!json_object_is_type(digests, json_type_object))
		return false;
	json_object_object_foreach(digests, number, it)
	{
		if (luks_json_first(luks_json_member(it, "keyslots")))
			ours = number;
		else
			other = number;
	}
	if (!ours || !other || json_object_object_length(digests) != 2)
		return false;
	digest = luks_json_member(digests, ours);
	json_object_object_add(digest, "segments", array_of("0"));
	json_object_object_del(digests, other);
	return true;
}

static bool add_segment(struct json_object *json, const struct header_integrity *integrity)
{
	struct json_object *segment = luks_json_numbered(luks_json_member(json, "segments"), 0);
	struct json_object *config = luks_json_member(json, "config");
	struct json_object *how = json_object_new_object();

	if (!segment || !config || !move_digest(json)) {
		json_object_put(how);
		return false;
	}
	put_text(how, "type", integrity->type);
	put_text(how, "journal_encryption", "none");
	put_text(how, "journal_integrity", "none");
	put_text(segment, "encryption", integrity->cipher);
	json_object_object_add(segment, "integrity", how);
	if (integrity->no_journal)
		json_object_object_add(config, "flags", array_of("no-journal"));
	return true;
}

/* One of the two copies: its own binary part, and the JSON that both have. */
static int write_copy(struct header *header, uint64_t at, const char *text, struct error *err)
{
	uint8_t *copy = malloc(header->copy_len);
	unsigned length;
	int ret = 0;

	if (!copy)
		return error_set(err, ENOMEM, "%s: no memory", header->name);
	if (pread(header->memfd.fd, copy, BINARY_LEN, at) != BINARY_LEN ||
	    strlen(text) >= header->copy_len - BINARY_LEN) {
		ret = unexpected_header(header, err);
	} else {
		memset(copy + BINARY_LEN, 0, header->copy_len - BINARY_LEN);
		memcpy(copy + BINARY_LEN, text, strlen(text));
		memset(copy + CSUM_AT, 0, CSUM_LEN);
		if (!EVP_Digest(copy, header->copy_len, copy + CSUM_AT, &length, EVP_sha256(),
				NULL))
			ret = unexpected_header(header, err);
	}
	if (ret == 0)
		ret = luks_memfd_write(&header->memfd, copy, header->copy_len, at, err);
	free(copy);
	return ret;
}

int header_add_integrity(struct header *header, const struct header_integrity *integrity,
			 struct error *err)
{
	struct json_object *json;
	const char *text;
	int ret = luks_json_load(&header->memfd, &json, err);

	if (ret < 0)
		return ret;
	if (!add_segment(json, integrity)) {
		ret = unexpected_header(header, err);
	} else {
		text = json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN |
								    JSON_C_TO_STRING_NOSLASHESCAPE);
		ret = write_copy(header, 0, text, err);
		if (ret == 0)
			ret = write_copy(header, header->copy_len, text, err);
	}
	json_object_put(json);
	return ret;
}

/* ---- what lies behind it ---- */

/* As many sections at a time as WRITE_LEN has, all unused. */
static int write_journal(struct header *data, const struct layout *layout, uint64_t start,
			 struct error *err)
{
	uint32_t some = max_u64(WRITE_LEN / layout->section_len, 1);
	uint8_t *bytes = calloc(some, layout->section_len);
	int ret = bytes ? 0 : error_set(err, ENOMEM, "%s: no memory", data->name);
	uint32_t count;

	for (uint32_t section = 0; section < layout->sections && ret == 0; section += count) {
		count = min_u64(some, layout->sections - section);
		for (uint32_t i = 0; i < count; i++) {
			uint8_t *one = bytes + i * layout->section_len;

			journal_section_clear(layout, one, true);
			journal_section_seal(layout, one, section + i, 0);
		}
		ret = header_write_bytes(data, bytes, count * layout->section_len,
					 start + layout_section_at(layout, section),
					 "writing the journal", err);
	}
	free(bytes);
	return ret;
}

int header_write_integrity(struct header *data, const struct header_integrity *integrity,
			   uint64_t start, struct error *err)
{
	uint8_t bytes[SUPERBLOCK_AREA];
	struct superblock superblock;
	struct layout layout;
	uint64_t room = data->size > start ? data->size - start : 0;
	int ret = superblock_make(&superblock, integrity->sector, integrity->tag_size, room,
				  data->name, err);

	if (ret == 0)
		ret = layout_make(&superblock, room, data->name, &layout, err);
	if (ret == 0)
		ret = write_journal(data, &layout, start, err);
	if (ret == 0)
		ret = header_flush(data, "writing the journal", err);
	if (ret < 0)
		return ret;
	superblock_write(&superblock, bytes);
	ret = header_write_bytes(data, bytes, sizeof(bytes), start, "writing the superblock", err);
	if (ret == 0)
		ret = header_flush(data, "writing the superblock", err);
	return ret;
}
