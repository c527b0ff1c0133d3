/* overwrite: may what a place holds be destroyed? Asks at the terminal, where there is one. */
#ifndef NDIO_OVERWRITE_H
#define NDIO_OVERWRITE_H

#include "base/error.h"

/* 0: the user has typed YES. -ECANCELED: something else; -EEXIST: there is nobody to ask. what is what
 * it holds, "a LUKS volume"; option is what says yes on the command line. */
int overwrite_ask(const char *name, const char *what, const char *option, struct error *err);

/* -EBUSY with a message that says who uses it: a block device that is mounted, or that something else
 * has claimed, isn't written over. Anything else is fine. */
int overwrite_check_claims(const char *locator, struct error *err);

#endif
