#include "terminal/patience.h"

#include <time.h>

#include "base/clock.h"
#include "terminal/interrupt.h"

#define INTERVAL_MS 20

bool patience(unsigned ms, bool (*is_true)(void *opaque), void *opaque)
{
	const struct timespec interval = { .tv_nsec = INTERVAL_MS * 1000000L };
	int64_t deadline = clock_ms() + ms;
	bool undoing = interrupt_caught();

	while (!is_true(opaque)) {
		if (clock_ms() >= deadline || (interrupt_caught() && !undoing))
			return false;
		nanosleep(&interval, NULL);
	}
	return true;
}
