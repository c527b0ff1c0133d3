/* patience: waits for what gives no sign, by looking again and again. */
#ifndef NDIO_PATIENCE_H
#define NDIO_PATIENCE_H

#include <stdbool.h>

/* Looks every 20 ms, for at most ms milliseconds, whether it is true. Did it become so? An interrupt
 * ends the wait, unless it came before: then it is one of those that undo things. */
bool patience(unsigned ms, bool (*is_true)(void *opaque), void *opaque);

#endif
