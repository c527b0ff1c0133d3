/* progress: how far something has come: for people a bar on the terminal that stderr is, or now and
 * then a line where it is none; for scripts a line of JSON each second; and for both a line
 * whenever SIGUSR1 comes. One at a time, on the main thread. */
#ifndef NDIO_PROGRESS_H
#define NDIO_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

enum progress_how {
	PROGRESS_OFF, /* but for SIGUSR1 */
	PROGRESS_TEXT,
	PROGRESS_JSON,
};

struct progress_options {
	enum progress_how how;
	int fd; /* for JSON */
};

struct progress {
	struct progress_options options;
	bool terminal;
	double start;   /* seconds, on the monotonic clock; like all that follow */
	uint64_t begun; /* bytes that were done then */
	double drawn;   /* when something was last told, */
	double pause;   /* and how long after that comes the next line */
	bool told;      /* lines that aren't a bar */
	double sampled; /* when done was last looked at, */
	uint64_t sampled_done;
	double rate;  /* and bytes a second, of late */
	bool waiting; /* for a server, which is away */
};

/* What --progress takes: nothing (NULL), "json" (on stderr), or the number of a descriptor that is
 * open for writing. False for anything else. */
bool progress_parse(const char *value, struct progress_options *options);

/* From now on SIGUSR1 doesn't kill: it is answered as soon as there is progress to tell of. */
void progress_catch_signal(void);

/* wake_fd: an eventfd that SIGUSR1 adds to. What was done before the start (bytes) doesn't count as
 * fast. */
void progress_start(struct progress *progress, const struct progress_options *options, int wake_fd,
		    uint64_t done);

/* How long a poll may sleep before progress_update() is worth calling: milliseconds, or -1. */
int progress_timeout(const struct progress *progress);

/* done of total bytes; a total of UINT64_MAX isn't known. waiting: a server is away. Tells when it is time
 * to. */
void progress_update(struct progress *progress, uint64_t done, uint64_t total, bool waiting);

/* Tells a last time, and whether all of it was done. Before any message is printed. */
void progress_end(struct progress *progress, uint64_t done, uint64_t total, bool whole);

#endif
