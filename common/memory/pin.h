/* pin: keep pages resident, counted, in the one table of the process.
 *
 * A pin makes every page that a range touches resident and locked (mlock(2)); the last pin
 * of a page to be undone unlocks it, unless the page was locked by someone else when the
 * first pin came (the caller's own mlock, mlockall): such a page is never unlocked here.
 * The system call is used, not libc's function, which sanitizers turn off.
 *
 * Any thread may call; one mutex guards the table. Nobody may lock, unlock or unmap the
 * memory itself while it is pinned here. */
#ifndef NDIO_PIN_H
#define NDIO_PIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Pins a range. -ENOMEM (over RLIMIT_MEMLOCK, or not mapped), -EPERM (limit is 0), -EAGAIN;
 * then nothing has changed. A length of 0 pins nothing and succeeds. Faults happen in the
 * calling thread. */
int pin_range(const void *base, size_t len);

/* Undoes one pin of exactly such a range. */
void unpin_range(const void *base, size_t len);

/* Pins a range for the long term. Undone by pin_unregister() with exactly the same range:
 * -ENOENT if there is none such. */
int pin_register(const void *base, size_t len);
int pin_unregister(const void *base, size_t len);

/* Does the range lie inside a registered one, so that it need not be pinned again? */
bool pin_is_registered(const void *base, size_t len);

/* Did the registered range that it is in touch a shared mapping when it was registered? See
 * mapping.h. */
bool pin_is_shared(const void *base, size_t len);

/* Somebody has locked all memory of the process, now and later, for good (mlockall(2)): then nothing
 * has to be asked page by page. Until pin_after_fork(). */
void pin_all_is_locked(void);

/* Could so much more memory be locked now? Asks for the limit alone: nothing is touched. */
bool pin_has_room(size_t len);

/* A fork's child inherits the table but no lock. Locks all that is pinned again: -errno of the
 * first range that can't be. Call in the child, before other threads use the table. */
int pin_after_fork(void);

struct pin_stats {
	uint64_t pinned;   /* ranges pinned so far */
	uint64_t unpinned; /* and undone */
	uint64_t failed;   /* pins that were refused */
	size_t pages;      /* pages in the table now */
};
void pin_stats(struct pin_stats *stats);

#endif
