/* luks-json: reading the metadata of LUKS2, which a hostile header fills with what it likes. */
#ifndef NDIO_LUKS_JSON_H
#define NDIO_LUKS_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "luks/luks-memfd.h"

struct json_object;

/* The metadata of what was loaded, to be put. 0, or a negative errno with a message. */
int luks_json_load(struct luks_memfd *memfd, struct json_object **json, struct error *err);

/* NULL where there is no such member, or object isn't one. */
struct json_object *luks_json_member(struct json_object *object, const char *name);

/* An entry of an object whose members are numbered, as key slots are. */
struct json_object *luks_json_numbered(struct json_object *object, int number);

/* What stands there, fit for a message; never NULL. */
const char *luks_json_text(struct json_object *value);

/* An array's first entry, or NULL: what isn't an array has none. */
const char *luks_json_first(struct json_object *array);

/* A number from 0 to max; libcryptsetup takes one that is too large for another. */
bool luks_json_number(struct json_object *value, uint64_t max, uint64_t *number);

#endif
