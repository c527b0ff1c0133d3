/* clock: time for deadlines. */
#ifndef NDIO_CLOCK_H
#define NDIO_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds since some fixed time; never set back. */
static inline int64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

#endif
