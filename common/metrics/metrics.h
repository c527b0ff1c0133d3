/* metrics: tells what was counted, all the time: over HTTP, or by a file that is written again and
 * again.
 *
 * WHERE it does so is one word:
 *
 *	HOST:PORT, :PORT, PORT     HTTP over TCP; without a host on 127.0.0.1
 *	a path that ends in .prom  a file, for node-exporter's textfile collector
 *	another path               HTTP over a Unix socket
 *
 * What has a slash is a path. */
#ifndef NDIO_METRICS_H
#define NDIO_METRICS_H

#include "base/error.h"
#include "base/notice.h"
#include "engine/volume.h"
#include "metrics/meter.h"

struct metrics;

/* A volume that is served. */
struct metrics_volume {
	const char *name; /* the export's; NULL or "": the disk's is told */
	struct volume *volume;
	const struct meters *meters;
};

/* All of it outlives the thread. */
struct metrics_served {
	const char *program;
	const struct metrics_volume *volumes;
	unsigned count;
	const struct door_meter *door; /* or NULL */
	const char *door_name;         /* where that listens */
};

/* Opens the sockets, or sees whether the file can be written. Before or after a fork. The notice, which
 * is kept, is told where that is, and later, by the thread, what fails. 0, or a negative errno with a
 * message. where may be NULL: nowhere; then there is nothing, and the others do nothing with it. */
int metrics_open(const char *where, const struct notice *notice, struct metrics **metrics,
		 struct error *err);

/* Starts the thread: not across a fork. */
int metrics_start(struct metrics *metrics, const struct metrics_served *served, struct error *err);

/* The same for a volume that any thread runs requests of: makes its meters, which go with the metrics. */
int metrics_start_one(struct metrics *metrics, const char *program, struct volume *volume,
		      struct meters **meters, struct error *err);

/* Ends the thread; the file is written for the last time. Also one that wasn't started. */
void metrics_close(struct metrics *metrics);

#endif
