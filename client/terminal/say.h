/* say: what a user is told, on stderr, a line at a time.
 *
 * Unprintable characters become '?': names of files and what servers say can be hostile to a
 * terminal. Any thread. */
#ifndef NDIO_SAY_H
#define NDIO_SAY_H

#include <stdarg.h>
#include <stdbool.h>

/* Prints "ndio: ..." and a newline. */
void say_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same, with another name in front of the colon. */
void say_as(const char *who, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));

/* From now on there is a line on the terminal that has no newline yet, or isn't: what is said comes in
 * its place. Who draws that line holds stderr's lock (flockfile) meanwhile. */
void say_over(bool line);

/* For ndio_options.notice: prints it as say_error() does, unless it is what it printed last. opaque
 * is unused. */
void say_notice(void *opaque, const char *message);

#endif
