/* start: what the plugin opens before and after nbdkit's fork, and closes at the end. */
#ifndef NDIO_START_H
#define NDIO_START_H

#include "engine/request.h"
#include "engine/volume.h"
#include "metrics/meter.h"
#include "nbd/fence.h"

/* From start_get_ready() to start_unload(); the fences are of all connections. */
extern struct volume *volume;
extern struct fences fences;
extern struct meters *meters; /* or NULL: nothing is counted */

/* nbdkit's get_ready, after_fork and unload. */
int start_get_ready(void);
int start_after_fork(void);
void start_unload(void);

/* Runs a request to its end, in a channel or by a worker. Returns request->error. Any thread. */
int start_run(struct ndio_request *request);

#endif
