/* target-file: a regular file or block device, by direct I/O where it can be had.
 *
 * Reads and writes go through an io_uring of each queue's own, with registered bounce memory;
 * where the kernel refuses a ring, or the file is buffered, by preadv2(2) and pwritev2(2).
 * FUA is RWF_DSYNC, flush is fdatasync(2). */
#ifndef NDIO_TARGET_FILE_H
#define NDIO_TARGET_FILE_H

#include <stdbool.h>

#include "error.h"
#include "target.h"

enum direct_mode {
	DIRECT_AUTO, /* O_DIRECT, or buffered with a notice where the file system refuses */
	DIRECT_ON,   /* O_DIRECT or an error */
	DIRECT_OFF,
};

/* Opens a path. What can't be opened for writing (EACCES, EROFS, EPERM) is opened read-only.
 * notice is told where direct I/O is refused under DIRECT_AUTO. 0 or a negative errno with a
 * message. */
int target_file_open(const char *path, enum direct_mode mode, bool readonly,
		     const struct notice *notice, struct target **target, struct error *err);

#endif
