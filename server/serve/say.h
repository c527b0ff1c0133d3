/* say: what the server tells its user: a line on standard error, or in the journal. */
#ifndef NDIO_SERVE_SAY_H
#define NDIO_SERVE_SAY_H

/* "ndio serve: " and the message, put together as by printf. Any thread; a line stays in one piece. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
