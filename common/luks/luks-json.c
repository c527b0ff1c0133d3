#include "luks/luks-json.h"

#include <json-c/json.h>
#include <libcryptsetup.h>
#include <stdio.h>

int luks_json_load(struct luks_memfd *memfd, struct json_object **json, struct error *err)
{
	const char *text;
	int ret = crypt_dump_json(memfd->cd, &text, 0);

	if (ret < 0)
		return error_set(err, -ret, "%s: reading the LUKS2 metadata: %s", memfd->name,
				 luks_memfd_reason(memfd, ret));
	*json = json_tokener_parse(text);
	return *json ? 0 : luks_memfd_damaged(memfd, err);
}

struct json_object *luks_json_member(struct json_object *object, const char *name)
{
	struct json_object *member = NULL;

	json_object_object_get_ex(object, name, &member);
	return member;
}

struct json_object *luks_json_numbered(struct json_object *object, int number)
{
	char name[12];

	snprintf(name, sizeof(name), "%d", number);
	return luks_json_member(object, name);
}

const char *luks_json_text(struct json_object *value)
{
	const char *text = json_object_get_string(value);

	if (!text)
		return "none";
	for (const char *c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			return "(unprintable)";
	return text;
}

const char *luks_json_first(struct json_object *array)
{
	if (!json_object_is_type(array, json_type_array) || !json_object_array_length(array))
		return NULL;
	return luks_json_text(json_object_array_get_idx(array, 0));
}

bool luks_json_number(struct json_object *value, uint64_t max, uint64_t *number)
{
	int64_t n = json_object_get_int64(value);

	if (!json_object_is_type(value, json_type_int) || n < 0 || (uint64_t)n > max)
		return false;
	*number = n;
	return true;
}
