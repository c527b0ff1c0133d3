#include "header/facts.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "integrity/layout.h"
#include "luks/luks-json.h"

/* Copies what a header says, cut to fit. text may be NULL. */
static void cut_text(char *to, size_t size, const char *text)
{
	snprintf(to, size, "%s", text ? text : "");
	for (; *to; to++)
		if (*to < ' ' || *to > '~')
			*to = '?';
}

/* ---- what only the JSON of LUKS2 tells ---- */

/* An array's texts, with spaces between them. */
static void read_names(struct json_object *names, char *text, size_t size)
{
	size_t len = 0;

	if (!json_object_is_type(names, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(names) && len < size; i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(names, i));

		cut_text(text + len, size - len, i ? " " : "");
		len = strlen(text);
		cut_text(text + len, size - len, name);
		len = strlen(text);
	}
}

static void read_config(struct header_facts *facts, struct json_object *json)
{
	struct json_object *config = luks_json_member(json, "config");

	read_names(luks_json_member(luks_json_member(config, "requirements"), "mandatory"),
		   facts->requirements, sizeof(facts->requirements));
	read_names(luks_json_member(config, "flags"), facts->flags, sizeof(facts->flags));
}

static void read_segment(struct header_facts *facts, struct json_object *json)
{
	struct json_object *segments = luks_json_member(json, "segments");
	struct json_object *segment, *integrity;
	struct json_object_iterator first;
	const char *size;

	if (!json_object_is_type(segments, json_type_object) ||
	    json_object_object_length(segments) == 0)
		return;
	first = json_object_iter_begin(segments);
	segment = json_object_iter_peek_value(&first);
	size = json_object_get_string(luks_json_member(segment, "size"));
	facts->data_size = size ? strtoull(size, NULL, 10) : 0; /* "dynamic" is 0 */
	integrity = luks_json_member(segment, "integrity");
	if (integrity)
		cut_text(facts->integrity, sizeof(facts->integrity),
			 json_object_get_string(luks_json_member(integrity, "type")));
}

static void read_tokens(struct header_facts *facts, struct json_object *json)
{
	struct json_object *tokens = luks_json_member(json, "tokens");

	if (!json_object_is_type(tokens, json_type_object))
		return;
	json_object_object_foreach(tokens, name, it)
	{
		struct token_facts *token = &facts->tokens[facts->nr_tokens];

		if (facts->nr_tokens == FACTS_TOKENS)
			return;
		facts->nr_tokens++;
		token->number = atoi(name);
		token->slots = luks_token_slots(it);
		luks_token_about(it, token->about, sizeof(token->about));
		cut_text(token->type, sizeof(token->type),
			 json_object_get_string(luks_json_member(it, "type")));
	}
}

static int read_json(struct header *header, struct header_facts *facts, struct error *err)
{
	struct json_object *json;
	int ret = luks_json_load(&header->memfd, &json, err);

	if (ret < 0)
		return ret;
	read_config(facts, json);
	read_segment(facts, json);
	read_tokens(facts, json);
	json_object_put(json);
	return 0;
}

/* ---- key slots ---- */

static const char *priority_name(crypt_keyslot_priority priority)
{
	switch (priority) {
	case CRYPT_SLOT_PRIORITY_PREFER:
		return "prefer";
	case CRYPT_SLOT_PRIORITY_IGNORE:
		return "ignore";
	default:
		return "normal";
	}
}

static void read_slot(struct crypt_device *cd, int number, struct slot_facts *slot)
{
	struct crypt_pbkdf_type pbkdf = { 0 };

	slot->number = number;
	slot->unbound = crypt_keyslot_status(cd, number) == CRYPT_SLOT_UNBOUND;
	slot->priority = priority_name(crypt_keyslot_get_priority(cd, number));
	if (crypt_keyslot_get_pbkdf(cd, number, &pbkdf) < 0)
		return;
	cut_text(slot->pbkdf, sizeof(slot->pbkdf), pbkdf.type);
	slot->iterations = pbkdf.iterations;
	if (strcmp(slot->pbkdf, CRYPT_KDF_PBKDF2) == 0) {
		cut_text(slot->hash, sizeof(slot->hash), pbkdf.hash);
	} else {
		slot->memory_kib = pbkdf.max_memory_kb;
		slot->threads = pbkdf.parallel_threads;
	}
}

static void read_slots(struct crypt_device *cd, struct header_facts *facts)
{
	int max = crypt_keyslot_max(crypt_get_type(cd));

	for (int number = 0; number < max && facts->nr_slots < FACTS_SLOTS; number++) {
		struct slot_facts *slot = &facts->slots[facts->nr_slots];

		if (crypt_keyslot_status(cd, number) < CRYPT_SLOT_ACTIVE)
			continue;
		read_slot(cd, number, slot);
		facts->nr_slots++;
		if (!slot->unbound && facts->memory_kib < slot->memory_kib)
			facts->memory_kib = slot->memory_kib;
	}
}

/* ---- all of it ---- */

static void read_cipher(struct crypt_device *cd, struct header_facts *facts)
{
	const char *cipher = crypt_get_cipher(cd), *mode = crypt_get_cipher_mode(cd);
	char both[sizeof(facts->cipher)];

	snprintf(both, sizeof(both), "%s-%s", cipher ? cipher : "?", mode ? mode : "?");
	cut_text(facts->cipher, sizeof(facts->cipher), both);
}

int facts_read_layout(struct header *disk, const struct header_facts *facts, struct layout *layout,
		      struct error *err)
{
	uint64_t start = facts->data_offset;
	uint8_t bytes[SUPERBLOCK_LEN];
	struct superblock superblock;
	int ret;

	if (start > disk->size || disk->size - start < sizeof(bytes))
		return error_set(err, EINVAL, "%s: too small for its LUKS header", disk->name);
	ret = header_read_bytes(disk, bytes, sizeof(bytes), start, "reading the superblock", err);
	if (ret == 0)
		ret = superblock_read(bytes, disk->name, &superblock, err);
	if (ret == 0)
		ret = layout_make(&superblock, disk->size - start, disk->name, layout, err);
	return ret;
}

/* Of a disk with integrity: how large that in it is, and what its tags and journal take. */
static void read_superblock(struct header *header, struct header_facts *facts)
{
	struct layout layout;

	if (!facts->integrity[0] || facts->data_elsewhere || !header->volume ||
	    facts_read_layout(header, facts, &layout, NULL) < 0)
		return;
	facts->data_size = layout.size;
	facts->tag_size = layout.tag_size;
	facts->journal_sections = layout.sections;
}

int facts_read(struct header *header, struct header_facts *facts, struct error *err)
{
	struct crypt_device *cd = header->memfd.cd;
	int key_len = crypt_get_volume_key_size(cd);
	int ret;

	memset(facts, 0, sizeof(*facts));
	facts->version = header->version;
	facts->damaged_copy = header->first_is_stale  ? "first" :
			      header->second_is_stale ? "second" :
							"";
	cut_text(facts->uuid, sizeof(facts->uuid), crypt_get_uuid(cd));
	if (header->version == 2)
		cut_text(facts->label, sizeof(facts->label), crypt_get_label(cd));
	read_cipher(cd, facts);
	facts->key_bits = key_len > 0 ? 8 * key_len : 0;
	facts->sector = header->version == 2 ? crypt_get_sector_size(cd) : HEADER_UNIT;
	facts->data_offset = crypt_get_data_offset(cd) * HEADER_UNIT;
	facts->data_elsewhere = header->data_elsewhere;
	read_slots(cd, facts);
	ret = header->version == 2 ? read_json(header, facts, err) : 0;
	if (ret == 0)
		read_superblock(header, facts);
	return ret;
}

static void print_slot(const struct slot_facts *slot)
{
	printf("%4d  %-8s  %-8s  %10" PRIu32, slot->number, slot->priority, slot->pbkdf,
	       slot->iterations);
	if (slot->memory_kib)
		printf("  %10" PRIu32 "  %7" PRIu32, slot->memory_kib, slot->threads);
	else
		printf("  %10s  %7s", "-", "-");
	printf("%s\n", slot->unbound ? "  unbound: opens nothing" : "");
}

void facts_print_slots(const struct header_facts *facts, const char *indent)
{
	printf("%s%4s  %-8s  %-8s  %10s  %10s  %7s\n", indent, "slot", "priority", "pbkdf",
	       "iterations", "memory/KiB", "threads");
	for (unsigned i = 0; i < facts->nr_slots; i++) {
		printf("%s", indent);
		print_slot(&facts->slots[i]);
	}
}

void facts_print_tokens(const struct header_facts *facts, const char *indent)
{
	printf("%s%5s  %-24s  %s\n", indent, "token", "type", "key slots");
	for (unsigned i = 0; i < facts->nr_tokens; i++) {
		const struct token_facts *token = &facts->tokens[i];

		printf("%s%5d  %-24s ", indent, token->number, token->type);
		for (int slot = 0; slot < FACTS_SLOTS; slot++)
			if (token->slots >> slot & 1)
				printf(" %d", slot);
		printf("%s%s%s\n", token->slots ? "" : " none", token->about[0] ? "  " : "",
		       token->about);
	}
}
