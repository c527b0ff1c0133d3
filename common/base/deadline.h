/* deadline: until when something in the network is waited for. */
#ifndef NDIO_DEADLINE_H
#define NDIO_DEADLINE_H

#include <stdatomic.h>
#include <stdint.h>

struct deadline {
	int64_t at;              /* a time of clock_ms() */
	const atomic_bool *stop; /* or until this is true, within 100 ms; or NULL */
};

/* Milliseconds to sleep before this is asked again, more than 0; or -ETIMEDOUT or -ECANCELED. */
int deadline_left(const struct deadline *deadline);

/* Waits for one of these events of poll(2). 0, or -ETIMEDOUT, -ECANCELED ... */
int deadline_wait(int fd, short events, const struct deadline *deadline);

#endif
