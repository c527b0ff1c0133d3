/* rate: how fast a copy may be. A piece may start once the time has come that those before it
 * take at that rate; a copy that was late makes up for little of it. Not thread-safe. */
#ifndef NDIO_RATE_H
#define NDIO_RATE_H

#include <stdint.h>

struct rate {
	uint64_t per_second; /* bytes; 0: as fast as it goes */
	int64_t free_at;     /* see clock_ns(): before, no piece may start */
};

/* In how many ms may the next piece start? 0: now. */
int rate_wait(const struct rate *rate);

/* A piece of so many bytes, at most 1 GiB, starts. */
void rate_charge(struct rate *rate, uint64_t bytes);

#endif
