/* header-lock: keeps every other ndio on this machine from editing the same LUKS header.
 *
 * A path's lock is flock(2) on the file itself. A URI's is on an empty file named after it, in the
 * first of these folders where the caller may have one: /run/lock, which is everybody's on Debian
 * and root's on Fedora and in many containers; $XDG_RUNTIME_DIR; /tmp/ndio-UID. Who uses different
 * folders isn't kept out, and is told so. */
#ifndef NDIO_HEADER_LOCK_H
#define NDIO_HEADER_LOCK_H

#include "base/error.h"

/* Can it be locked? To be asked before anything is typed in vain. 0, or a negative errno with a
 * message. */
int header_lock_check(const char *locator, struct error *err);

/* Waits for who has it, and says so. Closing *lock releases it. */
int header_lock(const char *locator, int *lock, struct error *err);

#endif
