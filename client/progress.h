/* progress: a bar on the terminal that stderr is, if it is one. One thread. */
#ifndef NDIO_PROGRESS_H
#define NDIO_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool on;       /* wanted, and stderr is a terminal */
	double start;  /* seconds, on the monotonic clock */
	double last;   /* when it was drawn */
};

#define PROGRESS_INTERVAL_MS 200 /* how often progress_update() is worth calling */

void progress_start(struct progress *progress, bool wanted);

/* done of total bytes; a total of UINT64_MAX isn't known. Draws at most every interval. */
void progress_update(struct progress *progress, uint64_t done, uint64_t total);

/* Draws it a last time and leaves the line. Before any message is printed. */
void progress_end(struct progress *progress, uint64_t done, uint64_t total);

#endif
