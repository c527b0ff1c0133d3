/* mapping: what kind of memory a range is. */
#ifndef NDIO_MAPPING_H
#define NDIO_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

/* Does any entry touch a shared mapping? A page of a shared file mapping faults when it is
 * written even if it is locked, since the file system wants to know. Reads /proc/self/maps;
 * true if that can't be told. */
bool mapping_is_shared(const struct iovec *iov, size_t count);

#endif
