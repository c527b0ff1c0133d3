/* device-users: claiming a block device, and who uses it or a partition of it where that fails. */
#ifndef NDIO_DEVICE_USERS_H
#define NDIO_DEVICE_USERS_H

#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

/* Opens it so that nobody else can mount or otherwise claim it, or a partition of it, meanwhile. A
 * descriptor; -EBUSY, and the message names who, where somebody has. */
int device_claim(const char *path, struct error *err);

/* Fills text with the first user that is found: "nbd0p1 is mounted on /mnt", "dm-0 (vg-root) is made
 * of it", "nbd0p2 is swap". Where there is none, since it has let go meanwhile or is in another
 * mount namespace, the text says so. Returns text. */
const char *device_users(dev_t device, char *text, size_t size);

#endif
