/* http: tells by HTTP what was counted, to whoever asks for /metrics: libmicrohttpd's part of it.
 *
 * Clients are few at a time, and each has some seconds in all: one more, and the one that has been here
 * longest goes. So whoever doesn't read, or doesn't say anything, keeps nobody out, and costs a bounded
 * piece of memory. One thread. */
#ifndef NDIO_METRICS_HTTP_H
#define NDIO_METRICS_HTTP_H

#include "base/error.h"
#include "metrics/exposition.h"

struct http;

/* To be freed, with its length; or NULL: no memory. */
typedef char *http_text_fn(void *opaque, enum exposition_format format, size_t *len);

/* 0, or a negative errno with a message. Not across a fork. */
int http_open(http_text_fn *text, void *opaque, struct http **http, struct error *err);
void http_close(struct http *http); /* its clients, too; NULL is fine */

/* To be waited for until it can be read, and for how many milliseconds at the most (-1: any): then
 * http_go_on(). */
int http_fd(const struct http *http);
int http_timeout(const struct http *http);
void http_go_on(struct http *http);

/* Takes over a socket that doesn't block. */
void http_take(struct http *http, int fd);

#endif
