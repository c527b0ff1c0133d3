/* header-json: LUKS2 metadata that libcryptsetup has no call to change, such as the length of the data.
 * They are read by libcryptsetup and json-c, written as the LUKS2 specification (section 2) lays them
 * out, and taken only if libcryptsetup loads them again. */
#ifndef NDIO_HEADER_JSON_H
#define NDIO_HEADER_JSON_H

#include "base/error.h"
#include "header/header.h"

struct json_object;

/* Puts the metadata into both copies in the memfd, as newer ones, and loads them anew. Needs
 * header_load_areas(). 0, or a negative errno with a message. */
int header_set_json(struct header *header, struct json_object *json, struct error *err);

#endif
