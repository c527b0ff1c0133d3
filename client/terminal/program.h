/* program: runs another program, to its end, and keeps what it printed. */
#ifndef NDIO_PROGRAM_H
#define NDIO_PROGRAM_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/program-find.h"

/* What it printed on standard output and error, cut to fit. */
struct program_output {
	char text[4096];
};

/* One that was started. */
struct program {
	pid_t pid;
	int output;   /* a file with what it prints */
	bool undoing; /* an interrupt had come before */
};

/* Starts argv[0], a path, in a session of its own, with nothing on standard input and files private
 * to the user. fd, unless it is -1, is passed on under its number; no other descriptor is. The
 * program is killed if this one ends; what it leaves in the background isn't. 0, and program_end()
 * is due; or a negative errno with a message. */
int program_start(const char *const argv[], int fd, struct program *program, struct error *err);

/* What it has printed so far. */
void program_printed(const struct program *program, struct program_output *output);

/* Has it ended, or does it within so many milliseconds? */
bool program_ends_within(const struct program *program, unsigned ms);

/* Waits for its end. An interrupt (interrupt.h) ends it, unless it came before the start.
 *
 * Its exit status, 128 and the number of a signal that killed it; or a negative errno with a
 * message. */
int program_end(struct program *program, struct program_output *output, struct error *err);

/* Both. */
int program_run(const char *const argv[], int fd, struct program_output *output, struct error *err);

/* Why it failed: the rest of the first line that starts with mark, or else the last line that isn't
 * empty, or else "it says nothing". Changes the output. */
const char *program_reason(struct program_output *output, const char *mark);

#endif
