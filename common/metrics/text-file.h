/* text-file: a small file whose readers see all of it, the old text or the new. */
#ifndef NDIO_TEXT_FILE_H
#define NDIO_TEXT_FILE_H

#include <stddef.h>

#include "base/error.h"

/* Anybody may read it. Written beside its place, to PATH.new, and then put there. 0, or a negative errno
 * with a message. */
int text_file_write(const char *path, const char *text, size_t len, struct error *err);

#endif
