/* statistics: what the server counts, and where that is told. */
#ifndef NDIO_SERVE_STATISTICS_H
#define NDIO_SERVE_STATISTICS_H

#include "exports.h"
#include "metrics/meter.h"

/* The door's, for it to count in. */
extern struct door_meter statistics_door;

/* Where: see metrics.h; NULL: nowhere. All exports have started, with their meters, and stay until the end of this.
 * listener: the name of the first. 0, or a negative errno with a message. */
int statistics_start(const char *where, const struct exports *exports, const char *listener,
		     struct error *err);

/* Also if it never started. */
void statistics_end(void);

#endif
