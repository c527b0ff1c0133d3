/* image-lock: the locks that qemu takes on an image, so that two programs don't write to it at once,
 * whichever they are.
 *
 * Every permission has a number. Who has it holds a read lock on byte 100 + number; who lets nobody
 * else have it, on byte 200 + number; and neither goes together with the other. They are advice: who
 * doesn't ask isn't stopped. They belong to open file descriptions (F_OFD_SETLK), so they go over a
 * fork. Within this process a file is locked once, however often it is opened. */
#ifndef NDIO_IMAGE_LOCK_H
#define NDIO_IMAGE_LOCK_H

#include <stdbool.h>

#include "base/error.h"
#include "base/notice.h"

struct image_lock;

/* Takes the lock for writing, on an open file or block device. With resize its size will change, too.
 * -EBUSY with a message that starts with name: another program writes to it, or doesn't let others,
 * and hasn't ended within two seconds.
 * Where the file system has no locks, notice is told, and it is as if nobody else were there. */
int image_lock_take(int fd, const char *name, bool resize, const struct notice *notice,
		    struct image_lock **lock, struct error *err);

/* NULL is fine. The last to release a file gives it free. */
void image_lock_release(struct image_lock *lock);

/* For one that will only be read: tells if another program writes to it meanwhile. */
void image_lock_look(int fd, const char *name, const struct notice *notice);

#endif
