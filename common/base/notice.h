/* notice: where to tell what a user should know though nothing failed. */
#ifndef NDIO_NOTICE_H
#define NDIO_NOTICE_H

struct notice {
	void (*tell)(void *opaque, const char *message); /* NULL: nobody listens */
	void *opaque;
};

/* Tells it, put together as by printf and cut to 512 bytes. */
void notice_tell(const struct notice *notice, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
