#include "luks.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libcryptsetup.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cipher.h"
#include "secret.h"

#define UNIT         512
#define MIB          (UINT64_C(1) << 20)
#define HEADER_FIRST (16 * MIB)  /* holds both copies of any LUKS2 header */
#define HEADER_MAX   (160 * MIB) /* LUKS2 allows key areas of 128 MiB, after 8 MiB */
#define COPY_CHUNK   MIB
#define MAGIC_LEN    6

static const char magic_first[] = "LUKS\xba\xbe";
static const char magic_second[] = "SKUL\xba\xbe";

struct header {
	const struct luks_source *source;
	int fd;          /* the memfd */
	uint64_t copied; /* bytes of the source that it holds, from the start */
	struct crypt_device *cd;
	char log[256]; /* the last error that libcryptsetup told */
};

static bool is_printable(char c)
{
	return c >= ' ' && c <= '~';
}

/* A hostile header must not send control sequences to the terminal by way of a message. */
static void text_clean(char *text)
{
	for (; *text; text++)
		if (!is_printable(*text))
			*text = '?';
}

/* Without a callback libcryptsetup prints. */
static void header_log(int level, const char *text, void *opaque)
{
	struct header *header = opaque;

	if (level != CRYPT_LOG_ERROR)
		return;
	snprintf(header->log, sizeof(header->log), "%s", text);
	header->log[strcspn(header->log, "\n")] = '\0';
	text_clean(header->log);
}

/* What libcryptsetup said of its own failure, or else what errno means. */
static const char *header_reason(const struct header *header, int ret)
{
	return header->log[0] ? header->log : strerror(-ret);
}

static int chunk_copy(struct header *header, void *chunk, size_t len, struct error *err)
{
	const struct luks_source *source = header->source;
	int ret = source->read(source->opaque, chunk, len, header->copied);
	ssize_t n;

	if (ret)
		return error_set(err, -ret, "%s: reading the LUKS header: %s", source->name,
				 strerror(-ret));
	n = pwrite(header->fd, chunk, len, header->copied);
	if (n != (ssize_t)len)
		return error_set(err, n < 0 ? errno : EIO, "%s: copying the LUKS header: %s",
				 source->name, strerror(n < 0 ? errno : EIO));
	header->copied += len;
	return 0;
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

static int header_create(struct header *header, struct error *err)
{
	const struct luks_source *source = header->source;

	if (source->size > INT64_MAX)
		return error_set(err, EINVAL, "%s: its size is impossible", source->name);
	header->fd = memfd_create("ndio-luks-header", MFD_CLOEXEC);
	if (header->fd < 0 || ftruncate(header->fd, source->size))
		return error_set(err, errno, "%s: making a place for the LUKS header: %s",
				 source->name, strerror(errno));
	return header_copy(header, HEADER_FIRST, err);
}

static bool magic_at(const struct header *header, off_t offset, const char *magic)
{
	char found[MAGIC_LEN];

	return pread(header->fd, found, MAGIC_LEN, offset) == MAGIC_LEN &&
	       !memcmp(found, magic, MAGIC_LEN);
}

static bool magic_found(const struct header *header)
{
	if (magic_at(header, 0, magic_first))
		return true;
	/* The second copy of a LUKS2 header follows the first, whose size is one of these. */
	for (off_t offset = 16 << 10; offset <= 4 << 20; offset *= 2) {
		if (magic_at(header, offset, magic_second))
			return true;
	}
	return false;
}

static int header_damaged(const struct header *header, struct error *err)
{
	const struct luks_source *source = header->source;

	if (source->size < HEADER_FIRST)
		return error_set(err, EINVAL, "%s: the LUKS header is damaged beyond repair, or the "
				 "rest of it is missing: there are only %" PRIu64 " bytes",
				 source->name, source->size);
	return error_set(err, EINVAL, "%s: the LUKS header is damaged beyond repair", source->name);
}

static int header_load(struct header *header, struct error *err)
{
	const char *name = header->source->name;
	char path[32];
	int ret;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", header->fd);
	ret = crypt_init(&header->cd, path);
	if (ret)
		return error_set(err, -ret, "%s: opening the LUKS header: %s", name,
				 strerror(-ret));
	crypt_set_log_callback(header->cd, header_log, header);
	ret = crypt_load(header->cd, CRYPT_LUKS, NULL);
	/* A memfd has no bad blocks: -EIO is one that is too short. */
	if ((ret == -EINVAL || ret == -EIO) && magic_found(header))
		return header_damaged(header, err);
	if (ret == -EINVAL || ret == -EIO)
		return error_set(err, EINVAL, "%s: not a LUKS volume", name);
	if (ret)
		return error_set(err, -ret, "%s: loading the LUKS header: %s", name,
				 header_reason(header, ret));
	return 0;
}

static void header_close(struct header *header)
{
	crypt_free(header->cd);
	if (header->fd >= 0)
		close(header->fd);
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
		return header_damaged(header, err);
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

	ret = crypt_dump_json(header->cd, &text, 0);
	if (ret)
		return error_set(err, -ret, "%s: reading the LUKS2 metadata: %s",
				 header->source->name, header_reason(header, ret));
	json = json_tokener_parse(text);
	if (!json)
		return header_damaged(header, err);
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
	snprintf(luks->cipher, sizeof(luks->cipher), "%s-%s", crypt_get_cipher(header->cd),
		 crypt_get_cipher_mode(header->cd));
	text_clean(luks->cipher);
	luks->sector = UNIT;
	luks->data_offset = crypt_get_data_offset(header->cd) * UNIT;
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
	int key_len = crypt_get_volume_key_size(header->cd);
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

	luks->version = strcmp(crypt_get_type(header->cd), CRYPT_LUKS2) ? 1 : 2;
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

static uint64_t luks1_key_areas_end(struct header *header)
{
	uint64_t end = 0, offset, len;

	for (int slot = 0; slot < crypt_keyslot_max(CRYPT_LUKS1); slot++) {
		if (crypt_keyslot_status(header->cd, slot) < CRYPT_SLOT_ACTIVE ||
		    crypt_keyslot_area(header->cd, slot, &offset, &len))
			continue;
		if (end < offset + len)
			end = offset + len;
	}
	return end;
}

static uint64_t luks2_key_areas_end(struct header *header)
{
	uint64_t metadata, keyslots;

	if (crypt_get_metadata_size(header->cd, &metadata, &keyslots))
		return 0;
	return 2 * metadata + keyslots;
}

/* The key slots' material lies behind the header that was needed for loading. */
static int key_areas_copy(struct header *header, unsigned version, struct error *err)
{
	uint64_t end = version == 2 ? luks2_key_areas_end(header) : luks1_key_areas_end(header);

	if (end > HEADER_MAX)
		return error_set(err, EINVAL, "%s: the LUKS header says that it has %llu bytes",
				 header->source->name, (unsigned long long)end);
	return header_copy(header, end, err);
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
	ret = crypt_volume_key_get(header->cd, CRYPT_ANY_SLOT, luks->key, &len,
				   pass_len ? pass : "", pass_len);
	if (ret == -EPERM)
		return error_set(err, EPERM, "%s: no key slot opens with %s", name,
				 pass_len ? "this passphrase" : "an empty passphrase");
	if (ret == -ENOENT)
		return no_key_slot(header, err);
	if (ret < 0)
		return error_set(err, -ret, "%s: opening the key slots: %s", name,
				 header_reason(header, ret));
	if (len != luks->key_len)
		return error_set(err, EINVAL, "%s: the key slots hold keys of several lengths",
				 name);
	return 0;
}

int luks_unlock(const struct luks_source *source, const void *pass, size_t pass_len,
		struct luks *luks, struct error *err)
{
	struct header header = {.source = source, .fd = -1};
	int ret;

	memset(luks, 0, sizeof(*luks));
	ret = header_create(&header, err);
	if (!ret)
		ret = header_load(&header, err);
	if (!ret)
		ret = header_read(&header, luks, err);
	if (!ret)
		ret = key_areas_copy(&header, luks->version, err);
	if (!ret)
		ret = key_unlock(&header, pass, pass_len, luks, err);
	if (ret)
		luks_clear(luks);
	header_close(&header);
	return ret;
}

void luks_clear(struct luks *luks)
{
	secret_free(luks->key, luks->key_len);
	memset(luks, 0, sizeof(*luks));
}
