/* locator: does it name a file or an NBD export? One answer for the command, the plugin and the
 * library.
 *
 * An NBD URI is written with its scheme in lower case. What else starts like a URI, or like what
 * other programs have for one, is refused: taken for a path, it would make a file of that name. */
#ifndef NDIO_LOCATOR_H
#define NDIO_LOCATOR_H

#include <stdbool.h>

#include "base/error.h"

enum locator_kind {
	LOCATOR_PATH, /* of a file or block device */
	LOCATOR_URI,  /* of NBD, by its scheme; see nbd-uri.h */
};

/* Which of them, or -EINVAL with a message that says how it is written here. WORD:... is a path if
 * there is such a file; NAME://... and nbd:... are only with ./ in front. */
int locator_kind(const char *locator, struct error *err);

/* For what can only be a file: 0, or -EINVAL with a message. what is "a LUKS header", or the like. */
int locator_check_path(const char *locator, const char *what, struct error *err);

/* Is it an NBD URI? What would be refused isn't. */
bool locator_is_uri(const char *locator);

#endif
