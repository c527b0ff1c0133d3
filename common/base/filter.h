/* filter: runs another program that makes bytes of bytes, as clevis does: what goes in on its standard
 * input, what comes out on its standard output. No shell, no terminal, and it has its time: then it is killed, with all
 * that it started. It is as well if this process dies.
 *
 * Any thread, also of somebody's program: no signal of its is handled or waited for but that its child
 * ended, and where the program wants none of its children's ends, that isn't needed. */
#ifndef NDIO_FILTER_H
#define NDIO_FILTER_H

#include <stddef.h>

#include "base/error.h"

#define FILTER_IN_MAX 32768 /* bytes, which are locked meanwhile */
#define FILTER_SAID   2048  /* bytes, with a NUL */
#define FILTER_FD     3

struct filter {
	const char *const *argv; /* argv[0] is a path; NULL behind the last */
	const void *in;
	size_t in_len;   /* bytes, FILTER_IN_MAX at the most */
	void *out;       /* where what comes out goes: secret memory, if it is one */
	size_t out_size; /* bytes, more than come */
	unsigned ms;     /* that it may take */
	int fd;          /* passed on as descriptor FILTER_FD; or 0: none is */
	const char *env; /* "NAME=VALUE" in its environment, before ours; or NULL */
	char *said;      /* FILTER_SAID bytes for the last of its standard error; or NULL */
};

/* How many bytes came out; or a negative errno with a message that doesn't name the program: -EIO it failed,
 * and has said that; -ETIMEDOUT; -EFBIG more came than there is room for. */
long filter_run(const struct filter *filter, struct error *err);

#endif
