/* header-run: what the commands share that look at a LUKS header, or change it: it is locked against
 * other ndio, opened and, with whatever happens, closed. */
#ifndef NDIO_HEADER_RUN_H
#define NDIO_HEADER_RUN_H

#include <stdbool.h>

#include "base/error.h"
#include "header/header.h"

struct header_place {
	const char *locator; /* of the disk */
	const char *header;  /* a detached header's, or NULL */
	unsigned answer_timeout;
	bool writes, no_lock; /* of the image */
};

/* Where the header is. */
const char *header_place_name(const struct header_place *place);

/* What is done with it: it is open, and not loaded. 0, or a negative errno with a message. */
typedef int header_run_fn(struct header *header, void *opaque, struct error *err);

/* Runs it. An enum cmd_status. Main thread only; signals may have been deferred. */
int header_run(const struct header_place *place, header_run_fn *run, void *opaque);

/* For run: loads it, with its key areas, and refuses one that is given without its disk. */
int header_run_load(struct header *header, const struct header_place *place, struct error *err);

#endif
