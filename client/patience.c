#include "patience.h"

#include <stdint.h>
#include <time.h>

#define INTERVAL_MS 20

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

bool patience(unsigned ms, bool (*is_true)(void *opaque), void *opaque)
{
	const struct timespec interval = { .tv_nsec = INTERVAL_MS * 1000000L };
	int64_t deadline = now_ms() + ms;

	while (!is_true(opaque)) {
		if (now_ms() >= deadline)
			return false;
		nanosleep(&interval, NULL);
	}
	return true;
}
