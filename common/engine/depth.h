/* depth: how many bytes a disk is asked for at once, in the order of asking. */
#ifndef NDIO_DEPTH_H
#define NDIO_DEPTH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct depth_waiter {
	struct depth_waiter *next;
	uint64_t len;
	bool entered;
	pthread_cond_t turn;
};

struct depth {
	pthread_mutex_t lock;
	uint64_t least,
		max;       /* what the disk may be asked for: at first, and as it has turned out */
	uint64_t bytes;    /* what it is asked for */
	unsigned patience; /* milliseconds */
	struct depth_waiter *first, **end; /* who waits, longest first */
};

/* least is the depth for a disk that answers soon. Nobody waits longer than patience, in
 * milliseconds, and who has waited so long deepens it by his own length: the disk may be slow
 * to answer rather than busy, and then more at once is what helps. What was added goes away
 * again by and by. */
void depth_init(struct depth *depth, uint64_t least, unsigned patience);
void depth_destroy(struct depth *depth); /* nobody waits */

/* Waits until there is room for len bytes, or nothing is asked for. Each enter has its leave,
 * with the same len, which tells whether it let somebody in. Any thread. */
void depth_enter(struct depth *depth, uint64_t len);
bool depth_leave(struct depth *depth, uint64_t len);

#endif
