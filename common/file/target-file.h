/* target-file: a regular file or block device, by direct I/O where it can be had.
 *
 * Reads and writes go through an io_uring of each queue's own, with registered bounce memory;
 * where the kernel refuses a ring, or the file is buffered, by preadv2(2) and pwritev2(2).
 * The last bytes of a file whose size direct I/O can't reach go through the page cache.
 * FUA is RWF_DSYNC, flush is fdatasync(2), both on an open file of their own: an error of writeback
 * is told once for each open file, and there a write that isn't to sync can't be told it. */
#ifndef NDIO_TARGET_FILE_H
#define NDIO_TARGET_FILE_H

#include <stdbool.h>

#include "base/error.h"
#include "base/notice.h"
#include "engine/target.h"

enum direct_mode {
	DIRECT_AUTO, /* O_DIRECT, or buffered with a notice where the file system refuses */
	DIRECT_ON,   /* O_DIRECT or an error */
	DIRECT_OFF,
};

/* "auto", "on" or "off"; false: it is none of them. */
bool direct_mode_parse(const char *word, enum direct_mode *mode);

/* Of other programs, see image-lock.h. Who only reads is told if somebody writes. */
enum image_locking {
	LOCK_IMAGE,       /* what is opened for writing */
	LOCK_IMAGE_LATER, /* target_file_lock() is due before anything is written */
	LOCK_IMAGE_OFF,   /* neither locked nor looked at */
};

struct target_file_options {
	enum direct_mode direct;
	bool readonly;
	enum image_locking locking;
	uint64_t size;        /* bytes: a file that can be written is taken to be at least so long:
				 what is written behind its end makes it longer */
	struct notice notice; /* told where direct I/O is refused under DIRECT_AUTO, ... */
};

/* Opens a path. What can't be opened for writing (EACCES, EROFS, EPERM) is opened read-only.
 * 0 or a negative errno with a message: -EBUSY where another program writes to it. */
int target_file_open(const char *path, const struct target_file_options *options,
		     struct target **target, struct error *err);

/* Locks it if that hasn't been done. Messages as of target_file_open(). */
int target_file_lock(struct target *target, struct error *err);

#endif
