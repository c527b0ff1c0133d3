/* pace: how many of a queue's subrequests a disk is given at once. */
#ifndef NDIO_PACE_H
#define NDIO_PACE_H

#include <stdint.h>

/* None: all zeroes. One thread at a time. */
struct pace {
	unsigned most; /* that were wanted at once, of late */
	unsigned
		together; /* of 1024: which part of what was in flight landed at once, on average */
	int64_t since;    /* when the disk, which had none, was given some */
	int64_t took;     /* ns, until all that it had landed, on average */
};

/* How many more the disk may have, of those that are held back, while so many are in flight. One at
 * least, if none is in flight and one is held. now: a time of clock_ns(). */
unsigned pace_room(struct pace *pace, unsigned in_flight, unsigned held, int64_t now);

/* So many landed at once, of so many that had been in flight. */
void pace_landed(struct pace *pace, unsigned landed, unsigned in_flight, int64_t now);

#endif
