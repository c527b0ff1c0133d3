/* message: the per-thread sentence behind ndio_error(). */
#ifndef NDIO_MESSAGE_H
#define NDIO_MESSAGE_H

/* Records it for the calling thread and returns -errnum; errnum is positive. */
int message_set(int errnum, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
