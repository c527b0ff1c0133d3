/* clash: is something written that is needed, and would be lost: the source of a copy, a header, a
 * key file? See same.h. */
#ifndef NDIO_CLASH_H
#define NDIO_CLASH_H

#include "base/error.h"
#include "terminal/key-input.h"

/* Refuses it if what is written to one locator is read from another, or NULL. what names that, as "the
 * source". Of a URI also what proves by TLS who this is. 0, or -EINVAL with a message. */
int clash_refuse(const char *written, const char *read, const char *what, struct error *err);

/* The same of a key that comes from a file or a descriptor. */
int clash_refuse_key(const char *written, const struct key_source *key, struct error *err);

/* Of a disk and a header beside it, or NULL: neither may be on the other. */
int clash_refuse_header(const char *disk, const char *header, struct error *err);

#endif
