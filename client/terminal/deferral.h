/* deferral: SIGINT, SIGTERM, SIGHUP and SIGQUIT wait while a header is being written, but not for
 * ever: a server may have fallen silent. For the main thread, but for deferral_is_over(). */
#ifndef NDIO_DEFERRAL_H
#define NDIO_DEFERRAL_H

#include <stdbool.h>

#define DEFERRAL_MS 5000 /* how long the writing may still take when a signal has come */

/* From now on they wait. Harmless if they do already. */
void deferral_begin(void);

/* Has one come that has waited for long enough? */
bool deferral_is_over(void);

/* What has come comes now, and ends the program: what there is to say was said, and what was to be
 * removed is gone. */
void deferral_end(void);

#endif
