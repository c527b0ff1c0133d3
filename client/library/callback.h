/* callback: code of the program's that the library runs: completions, extents, notices. It is mostly
 * on a thread that the disk's other requests wait for, so that whatever would wait there, for a
 * request, a thread or a page of memory, might wait for itself. */
#ifndef NDIO_CALLBACK_H
#define NDIO_CALLBACK_H

#include <stdbool.h>

/* Around each call of such code. */
void callback_enter(void);
void callback_leave(void);

/* Is this thread in one? */
bool callback_is_running(void);

/* 0, or in a callback -EDEADLK, with a message: what says what can't be done there. */
int callback_refuse(const char *what);

#endif
