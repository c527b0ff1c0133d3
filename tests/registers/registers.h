/* registers: a program that uses a disk and knows what each read of it may return, whatever happens
 * to the server meanwhile. See main.c for how it is called.
 *
 *   main.c    options, commands, the result          lane.c   threads, and what they ask for
 *   model.c   what each block may hold               pauses.c how long things took
 *   stamp.c   what is written                        disk-ndio.c, disk-nbd.c   who does it
 *
 * A block is a register. Writes of it are numbered from 1 on, its versions, and nobody has two in
 * flight; so there is always an oldest and a newest version that a read may return. */
#ifndef NDIO_TESTS_REGISTERS_H
#define NDIO_TESTS_REGISTERS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "../lib/fail.h"

#define SECTOR     512 /* bytes; each has a stamp of its own */
#define MAX_BLOCKS 64  /* of one operation */
#define MAX_LANES  64
#define MAX_DEPTH  64

struct options {
	const char *locator, *key_path, *state_path;
	bool by_nbd; /* libnbd rather than libndio */
	bool verify; /* compare a disk with a state file, and do nothing else */
	bool may_fail, no_trim, discard;
	unsigned lanes, depth, connections;
	unsigned reconnect, answer; /* seconds, of the library; 0: its default */
	unsigned stuck; /* seconds that an operation may take, or all is taken to hang */
	double seconds; /* 0: until told to end */
	uint64_t seed, start, size, block;
};
extern struct options options;

enum kind { READ, WRITE, ZERO, TRIM, FLUSH, KINDS };
extern const char *const kind_names[KINDS];

/* One operation at a time. */
struct slot {
	struct lane *lane;
	struct slot *next_done;
	enum kind kind;
	bool busy, fua;
	uint64_t number; /* counts all operations up */
	double begun;
	int error; /* of its end: an errno, or 0 */
	uint64_t first;
	unsigned count; /* blocks */
	uint8_t *data;
	uint64_t *acked; /* of a flush: what it covers, by block */
	/* By block: the version that is written; or of a read, the oldest that may be returned, and
	 * how things were at its start. */
	uint64_t version[MAX_BLOCKS], newest[MAX_BLOCKS];
	bool doubt[MAX_BLOCKS], loose[MAX_BLOCKS];
};

struct lane {
	unsigned number;
	uint64_t random;
	void *disk; /* the disk's own */
	struct slot *slots;
	struct slot *done; /* ended, to be fetched */
};

/* ---- disks ---- */

struct disk {
	uint64_t size; /* bytes */
	bool can_zero, can_trim, can_fua, can_multi_conn;
};

/* Everything fails by ending the program, but for operations. */
struct disk_ops {
	void (*open)(struct disk *disk);
	void (*close)(void);
	void (*lane_open)(struct lane *lane);
	void (*lane_close)(struct lane *lane);
	/* Starts it; or an errno, and then it has ended. */
	int (*issue)(struct lane *lane, struct slot *slot);
	/* Waits for a tenth of a second, or until something has ended: lane_ended(). */
	void (*wait)(struct lane *lane);
};
extern const struct disk_ops ndio_disk, nbd_disk;

void lane_ended(struct slot *slot, int error);

/* ---- stamps ---- */

/* What a sector holds. */
enum content {
	CONTENT_STAMP, /* of the block that was asked for, and whole */
	CONTENT_ZEROES,
	CONTENT_FOREIGN, /* another block's, another sector's, or another run's */
	CONTENT_TORN,    /* begins as one of ours */
	CONTENT_GARBAGE,
};

struct stamp {
	uint64_t run, block, version;
	uint32_t writer, sector;
};

void stamp_write(uint8_t *block_data, uint64_t run, uint64_t block, uint64_t version,
		 unsigned writer);
enum content stamp_read(const uint8_t *data, uint64_t run, uint64_t block, unsigned sector,
			struct stamp *stamp);

/* ---- the model ---- */

/* Makes the state, in options.state_path if there is one: however the program ends, that has it. */
void model_create(uint64_t blocks);

/* What a disk may hold whose user has died with that state: of what wasn't flushed, anything. */
void model_open(void);
uint64_t model_blocks(void);
uint64_t model_run(void);

/* Before an operation is sent, and after it has ended. False: one of the blocks is being written. */
bool model_begin(struct slot *slot);
void model_end(struct slot *slot);

uint64_t model_violations(void);
uint64_t model_mixed(void);

/* ---- times ---- */

double now(void); /* seconds since the start */

void pauses_ended(const struct slot *slot);
void pauses_mark(const char *name); /* something is done to the server now */
void pauses_up(void);               /* and it is as it was before */
void pauses_print(void);

/* ---- lanes ---- */

struct counts {
	uint64_t done[KINDS], fua, errors[KINDS];
};

/* Writes every block, and starts the threads. Stopping waits for all that is in flight. */
void lanes_start(const struct disk_ops *ops, const struct disk *disk);
void lanes_stop(void);

/* Between these two, in the caller's thread: a flush, and a look at every block. */
void lanes_look(void);
void lanes_close(void);

void lanes_counts(struct counts *counts);
void lanes_print_errors(void);

/* Returns when so many operations have ended that began after the call, and all that were in flight
 * then. */
void lanes_wait(uint64_t count);

/* Ends the program if an operation takes longer than options.stuck. */
void lanes_end_if_stuck(void);

/* A look at every block and nothing else. */
void lanes_verify(const struct disk_ops *ops, const struct disk *disk);

/* xorshift64*: the state is any number but 0. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1d;
}

/* 0 to below - 1 */
static inline uint64_t random_below(uint64_t *state, uint64_t below)
{
	return (random_next(state) >> 16) % below;
}

#endif
