/* program-find: where another program is. */
#ifndef NDIO_PROGRAM_FIND_H
#define NDIO_PROGRAM_FIND_H

#include <limits.h>

#include "base/error.h"

/* Finds a program in PATH, and in /usr/sbin and /sbin, which PATH may lack. 0, or -ENOENT with a
 * message that says which package has it. */
int program_find(const char *name, const char *package, char path[PATH_MAX], struct error *err);

#endif
