/* compare: are two disks, or streams, the same, byte for byte? Many pieces of both are read at once, on
 * the library's threads; what both say is zero isn't read. Everything else is the main thread's, which
 * gets what has been read from a queue: there is no lock.
 *
 * Behind the end of the shorter one the other has to be zero. */
#ifndef NDIO_COMPARE_H
#define NDIO_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "copy/endpoint.h"
#include "terminal/progress.h"

struct compare_options {
	struct progress_options progress;
	bool strict; /* two sizes are a difference, too */
};

enum compare_outcome {
	COMPARE_EQUAL,
	COMPARE_CONTENT, /* they differ, first at report->offset */
	COMPARE_SIZE,    /* their sizes do, and that counts */
};

struct compare_report {
	enum compare_outcome outcome;
	uint64_t offset; /* bytes; what is below it is equal, also where this was stopped */
	uint64_t size
		[2]; /* bytes of both; or SIZE_UNKNOWN, of a stream that wasn't read to its end */
};

/* Compares, and closes both volumes. SIGINT, SIGTERM and SIGHUP stop it; see interrupt.h. 0, or a
 * negative errno with a message if it isn't known whether they are the same, -EINTR after a signal.
 * A difference below what couldn't be read is told as one. Main thread only. */
int compare_run(struct endpoint *a, struct endpoint *b, const struct compare_options *options,
		struct compare_report *report, struct error *err);

#endif
