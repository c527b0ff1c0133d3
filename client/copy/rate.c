#include "copy/rate.h"

#include <limits.h>

#include "base/clock.h"

#define NS_PER_MS     1000000
#define NS_PER_SECOND INT64_C(1000000000)
#define CATCH_UP      (NS_PER_SECOND / 10) /* of what a slow disk has held up */

int rate_wait(const struct rate *rate)
{
	int64_t left = rate->per_second ? rate->free_at - clock_ns() : 0;
	int64_t ms = (left + NS_PER_MS - 1) / NS_PER_MS;

	return left <= 0 ? 0 : ms < INT_MAX ? ms : INT_MAX;
}

void rate_charge(struct rate *rate, uint64_t bytes)
{
	int64_t earliest = clock_ns() - CATCH_UP;

	if (!rate->per_second)
		return;
	if (rate->free_at < earliest)
		rate->free_at = earliest;
	rate->free_at += bytes * NS_PER_SECOND / rate->per_second;
}
