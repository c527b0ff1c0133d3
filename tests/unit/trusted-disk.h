/* trusted-disk: a disk with integrity and a trust file, both in memory, that are written, cut off, changed
 * by whoever stores the disk, and opened again. A block's data and tag are made of its number and a
 * version, so that it is known of each whether it may be so. */
#ifndef NDIO_TESTS_TRUSTED_DISK_H
#define NDIO_TESTS_TRUSTED_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/target.h"
#include "integrity/layout.h"
#include "integrity/trust.h"
#include "torn-target.h"

#define TRUSTED_BLOCK  512
#define TRUSTED_TAG    28
#define TRUSTED_BLOCKS 1200 /* in five areas, the last of which has fewer */
#define TRUSTED_TRUST  (2304 * 1024 + 8192)

struct trusted_disk {
	struct layout layout;
	struct torn_disk disk, file;
	struct torn_target below;
	struct trust trust;
	struct target *target; /* NULL: it isn't open */
	struct target_queue *queue;
	struct error err;
	bool journal;
	bool untrusted; /* it is opened without the trust file; */
	bool readonly;  /* only to be read */
	bool spares;    /* queues: the disk has as many as anybody wants, as a file has */
	uint64_t takes; /* bytes at a time; 0: a mebibyte */
	uint64_t cache;
	long left; /* writes and flushes of both until they are cut off; less than 0: none comes */
	bool is_cut;
	bool by_server; /* then: only the disk is */
	unsigned told;  /* notices */

	/* Of each block: what a flush covers; what was written last; and what it was found to be. */
	uint32_t flushed[TRUSTED_BLOCKS], written[TRUSTED_BLOCKS];
};

/* Every block is written, in version 1, and seen by the trust file. */
void trusted_disk_init(struct trusted_disk *disk, bool journal);

/* The same in areas of 8 blocks; written directly. */
#define TRUSTED_SMALL 8
void trusted_disk_init_small(struct trusted_disk *disk);
void trusted_disk_free(struct trusted_disk *disk); /* it isn't open */

/* Another trust file, that knows nothing of any area. */
void trusted_disk_forget(struct trusted_disk *disk);

/* 0, or a negative errno; nothing is cut off until left is set. */
int trusted_disk_open(struct trusted_disk *disk);

/* With the trust file. Or without: as if the program was killed. */
void trusted_disk_close(struct trusted_disk *disk);
void trusted_disk_kill(struct trusted_disk *disk);

/* Writes the next version of count blocks; flush. 0 or a negative errno. */
int trusted_disk_write(struct trusted_disk *disk, unsigned block, unsigned count, bool fua);
int trusted_disk_flush(struct trusted_disk *disk);

/* The version that a block is in, or a negative errno; -EILSEQ: its tag isn't its data's. */
int64_t trusted_disk_read(struct trusted_disk *disk, unsigned block);

/* Blocks that are in these versions, TRUSTED_RUN at the most, in one go; fails the test if they aren't. */
#define TRUSTED_RUN 16
void trusted_disk_read_run(struct trusted_disk *disk, unsigned block, unsigned count,
			   const int64_t *versions);

/* Something of all this, several times. */
void trusted_disk_walk(struct trusted_disk *disk, unsigned steps, uint64_t *random);

/* Of all blocks: fails the test unless each is what was flushed or what was written since. An unreadable
 * one is allowed where something was written since, without a journal. Then all that is so counts. */
void trusted_disk_check(struct trusted_disk *disk);

#endif
