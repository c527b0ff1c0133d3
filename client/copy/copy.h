/* copy: moves what one endpoint holds to another: many buffers in flight at once, each read and
 * then written, on the library's threads. */
#ifndef NDIO_COPY_H
#define NDIO_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "copy/digest.h"
#include "copy/endpoint.h"
#include "terminal/progress.h"

#define COPY_CONNECTIONS  4 /* what nobody asks for otherwise */
#define COPY_REQUESTS     16
#define COPY_REQUEST_SIZE (256 * 1024)
#define COPY_MEMORY_MAX   (UINT64_C(1) << 30)

struct copy_options {
	struct progress_options progress;
	size_t sparse; /* bytes: runs of zeroes as long as this aren't written as data; a power of
			  two, at most request_size; 0: all that isn't a hole is written */
	size_t request_size; /* bytes that are read and written at a time; a power of two */
	unsigned requests;   /* at once; each has request_size bytes of memory */
	bool resume;         /* a copy that was stopped goes on, see endpoint_resume() */
	struct resume_from from;
	uint64_t rate;        /* bytes a second, at most; 0: as fast as it goes */
	const char *checksum; /* one of digest_is_known(), of all that the source holds; or NULL */
	bool skip_holes;      /* what takes no space in the source isn't written at all */
	bool only_changes;    /* nor is what the destination has already */
};

struct copy_report {
	bool begun;       /* the destination isn't what it was */
	bool keep;        /* a plain file isn't to be cut: what it has wasn't all looked at */
	uint64_t done;    /* bytes that have arrived */
	uint64_t total;   /* or SIZE_UNKNOWN */
	uint64_t below;   /* all before this offset has arrived */
	uint64_t changed; /* bytes that were written, of only_changes */
	char checksum[DIGEST_TEXT]; /* or "" */
};

/* Copies, flushes, and closes both volumes. SIGINT, SIGTERM and SIGHUP stop it; one that comes
 * seconds later kills. 0, or a negative errno with a message; -EINTR after a signal. Main
 * thread only. */
int copy_run(struct endpoint *source, struct endpoint *destination,
	     const struct copy_options *options, struct copy_report *report, struct error *err);

#endif
