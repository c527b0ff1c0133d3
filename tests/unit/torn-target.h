/* torn-target: a target in memory, on a disk whose power is cut (torn-disk.h) after so many writes and
 * flushes. What is asked then fails. Any thread. */
#ifndef NDIO_TESTS_TORN_TARGET_H
#define NDIO_TESTS_TORN_TARGET_H

#include <pthread.h>
#include <stdbool.h>

#include "engine/target.h"
#include "torn-disk.h"

struct torn_target {
	struct target target;
	struct torn_disk *disk;
	pthread_mutex_t lock;
	long *left;   /* writes and flushes until the cut; less than 0: none comes */
	bool *is_cut; /* from then on; both may be shared */
	bool is_down; /* its connections are lost */
	unsigned reads;
	unsigned failing;             /* flushes fail, the next ones, and are told so once */
	void (*wrote)(void *opaque);  /* what else happens then; once. Or NULL */
	void (*looked)(void *opaque); /* the same, of a poll that doesn't wait */
	void *opaque;
};

/* Closing the target leaves the disk as it is. */
void torn_target_init(struct torn_target *target, struct torn_disk *disk, long *left, bool *is_cut);

#endif
