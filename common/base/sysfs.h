/* sysfs: what the kernel tells of devices, in files of a line each. */
#ifndef NDIO_SYSFS_H
#define NDIO_SYSFS_H

#include <stdbool.h>
#include <stddef.h>

/* The first line of a file, cut to fit and without its newline; its path is put together as by printf.
 * False where there is none. */
bool sysfs_line(char *line, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
