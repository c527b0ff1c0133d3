/* allocations: what a disk that survives its server does when memory can't be had, once, anywhere.
 *
 * A run is one process: a small NBD server in a thread of its own, which comes back as another process
 * would and forgets what wasn't flushed, and the library, which uses it and recovers. One allocation of
 * a run fails. So at most one call may fail, with a message, and succeeds when it is made once more; no
 * byte is wrong, nothing hangs or crashes, and no descriptor is left. */
#ifndef NDIO_TESTS_ALLOCATIONS_H
#define NDIO_TESTS_ALLOCATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- memory ---- */

/* Whose allocations are counted: of libndio's code alone, or whoever calls. */
enum whose { OWN, ALL };
#define WHOSE 2

/* The at'th of these is to fail; 0: none. */
void memory_fail(enum whose whose, long at);
void memory_begin(enum whose whose); /* from now on they are counted */
void memory_end(void);
void memory_spare(void); /* those of the calling thread are nobody's */
long memory_count(enum whose whose);
bool memory_has_failed(void);

/* ---- the server ---- */

#define DISK (18 * 1024 * 1024) /* bytes at the most */

/* Listens on a Unix socket, with this disk. */
void server_start(const char *path, const uint8_t *disk, size_t size);
void server_stop(void);

/* It is killed, and is back as another: all connections end, and what wasn't flushed is forgotten. It
 * happens when so many more commands have come, 0: now. */
void server_die(unsigned commands);
unsigned server_deaths(void);

#endif
