/* clock: time for deadlines, and how long things take. */
#ifndef NDIO_CLOCK_H
#define NDIO_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* Milliseconds since some fixed time; never set back. */
static inline int64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* The same time, in nanoseconds. */
static inline int64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* As pthread_cond_timedwait(3), until a time of clock_ms(). */
static inline int clock_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until)
{
	const struct timespec at = { .tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000 };

	return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &at);
}

#endif
