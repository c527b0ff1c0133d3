/* json: members for an object of json-c's, and its text for programs. */
#ifndef NDIO_JSON_H
#define NDIO_JSON_H

#include <stdbool.h>
#include <stdint.h>

struct json_object;

void json_add_text(struct json_object *object, const char *name, const char *text);
void json_add_number(struct json_object *object, const char *name, uint64_t number);
void json_add_flag(struct json_object *object, const char *name, bool flag);

/* On standard output. Frees the object. */
void json_print(struct json_object *object);

#endif
