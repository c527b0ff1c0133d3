/* journal: the journal of a volume with integrity while it is used: which section is written, copied
 * to its place and used again when, so that data and tag of a block are never of two writes, and what
 * was flushed is there, wherever somebody is cut off.
 *
 * Only decisions, and the sections' memory: no I/O, no clock, no thread. It is told what happens
 * (events) and says what is to be done (acts). One lock around every call is the caller's, but for
 * those that say otherwise.
 *
 *   READING --> REPLAYING --> ERASING --> RUNNING --close--> CLOSING --> CLOSED
 *       |           |                        ^
 *       +-----------+---- all is there ------+          any --an act failed--> FAILED, for good
 *
 *   READING    sees all sections, and decides (journal-replay)
 *   REPLAYING  reads those again that count, and copies their blocks into place, one by one
 *   ERASING    makes all sections unused, where they can't go on as they are
 *   RUNNING    takes writes
 *   CLOSING    commits, copies and flushes all there is, and erases what was written
 *
 * RUNNING, a block goes into the section at `open`, in memory, and its write may be acknowledged.
 * Positions of sections count up; position p lies in section p % sections, and its commit ids' number
 * goes up at each wrap:
 *
 *     freed <= placed <= committed <= open
 *
 *   below open       sealed: full, or somebody waits for it
 *   below committed  written to the journal with FUA: durable
 *   below placed     copied to where its blocks belong; its memory is free
 *   below freed      flushed since: its place in the journal may be used again
 *
 * One of each act is under way at a time. While a commit is, writes gather for the next: however many
 * wait, they share it.
 *
 * Why nothing is written past the journal: after a crash all that is in it is carried out again,
 * in order, and what came later by another way would be undone.
 *
 * Order: blocks of one sector are carried out in the order of journal_reserve(). An entry isn't
 * copied once a newer one of its sector is committed.
 *
 * Reads: a block that is in the journal is read from memory, journal_read(). All others are read in
 * place, between journal_read_begin() and _end(): copying waits for those that have begun before,
 * so that nobody sees half of it.
 *
 * After an error of the disk nothing is written any more and nothing more becomes durable, but what
 * is in memory can be read. */
#ifndef NDIO_JOURNAL_H
#define NDIO_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "integrity/journal-index.h"
#include "integrity/journal-replay.h"
#include "integrity/journal-section.h"
#include "integrity/layout.h"

enum journal_state {
	JOURNAL_READING,
	JOURNAL_REPLAYING,
	JOURNAL_ERASING,
	JOURNAL_RUNNING,
	JOURNAL_CLOSING,
	JOURNAL_CLOSED,
	JOURNAL_FAILED,
};
#define JOURNAL_STATES 7

enum journal_act {
	JOURNAL_NOTHING,
	JOURNAL_READ,  /* sections into memory */
	JOURNAL_WRITE, /* sections from memory, with FUA */
	JOURNAL_COPY,  /* blocks to where their data and tags belong */
	JOURNAL_FLUSH, /* the disk: what was copied by now */
};
#define JOURNAL_ACTS 5

#define JOURNAL_ERASINGS 4

/* What an act is about. It stays so until journal_landed(). */
struct journal_work {
	uint32_t section, count;            /* READ, WRITE: sections that follow each other, */
	uint8_t *bytes;                     /* side by side, count * layout->section_len */
	const struct journal_block *blocks; /* COPY: in ascending order, each sector once */
	size_t block_count;
};

struct journal {
	struct layout layout;
	const char *name; /* the disk's, for messages */
	enum journal_state state;
	int error;        /* of FAILED, negative */
	struct error why; /* and in words, if there are any */

	uint8_t *memory;
	unsigned buffers;           /* sections in memory: position p is in buffer p % buffers */
	struct journal_index index; /* entry n is n % layout.entries of buffer n / layout.entries */
	struct journal_block *blocks; /* what COPY is told */
	size_t block_count;
	unsigned *filling; /* a buffer each: entries that were reserved and aren't filled */

	uint64_t open, committed, placed, freed; /* positions */
	unsigned first_seq;                      /* of the sections from position 0 on */
	unsigned used;                           /* entries of the section at `open` */
	uint64_t wanted;                         /* somebody waits until that is committed, */
	uint64_t to_place;                       /* or placed */
	bool starved;                            /* or until there is room */
	uint64_t dirty; /* from here on sections aren't empty on the disk */

	bool busy[JOURNAL_ACTS];               /* under way */
	struct journal_work work;              /* of READ or WRITE */
	uint64_t committing, placing, freeing; /* up to where, if so */
	bool waiting;                          /* COPY, until readers are gone */
	unsigned readers[2], epoch;

	struct journal_replay replay;
	struct journal_plan plan;
	uint32_t done;   /* sections that were read, or carried out, */
	uint32_t loaded; /* and are in memory, to be carried out, */
	bool unflushed;  /* or were copied and not flushed */
	struct journal_erasing {
		uint32_t section, count;
		unsigned seq;
	} erase[JOURNAL_ERASINGS]; /* each when the one before is durable */
	unsigned erase_at, erase_count;
};

/* The usual number of sections in memory: about 16 MiB. */
unsigned journal_buffers(const struct layout *layout);

/* READING. memory, of buffers * layout->section_len bytes, is the caller's, aligned as its disk wants
 * it, and not touched by others until journal_destroy(). name stays. 0, or -ENOMEM. */
int journal_init(struct journal *journal, const struct layout *layout, const char *name,
		 uint8_t *memory, unsigned buffers);
void journal_destroy(struct journal *journal); /* harmless on a zeroed struct */

/* For a journal that was just made by journal_section_clear(), all sections with number 0: RUNNING. */
void journal_is_new(struct journal *journal);

/* ---- acts ---- */

/* What has to be done next; asked until it is nothing, after each event. Several may be under way
 * at once, one of a kind. */
enum journal_act journal_next(struct journal *journal, struct journal_work *work);

/* It was done: 0, or a negative errno. */
void journal_landed(struct journal *journal, enum journal_act act, int error);

/* ---- writes ---- */

/* Room for blocks from sector on, up to so many. How many there is for, at *entry and behind; 0: none
 * now, ask again after each event, when journal_next() has nothing more. Or a negative errno: FAILED,
 * or closed. What was reserved must be filled: nothing goes on without it. */
int journal_reserve(struct journal *journal, uint64_t sector, unsigned blocks, uint32_t *entry);

/* Puts a block there. Any thread, without the lock. */
void journal_fill(struct journal *journal, uint32_t entry, const void *data, const void *tag);

/* All of them are filled: now it may be acknowledged. The mark that journal_is_durable() takes. */
uint64_t journal_filled(struct journal *journal, uint32_t entry, unsigned blocks);

/* A flush: all that was filled by now is to be committed. The mark as above; a FUA write asks for its
 * own by journal_commit(). Nobody need wait. */
uint64_t journal_flush(struct journal *journal);
void journal_commit(struct journal *journal, uint64_t mark);

/* 1: it is durable. 0: not yet. Or a negative errno: it never will be. */
int journal_is_durable(const struct journal *journal, uint64_t mark);

/* Has all of it copied to its place: for who is idle, or wants to read it there. */
void journal_settle(struct journal *journal);

/* Of one that is RUNNING, or FAILED: no more is written. Acts go on until it is CLOSED or FAILED. Who
 * closes it sooner just goes away. */
void journal_close(struct journal *journal);

/* ---- reads ---- */

/* How many blocks from sector on, blocks at the most, are alike: all in memory, or none of them. */
unsigned journal_look(const struct journal *journal, uint64_t sector, unsigned blocks,
		      bool *in_memory);

/* A block that is in memory; tag may be NULL. False: it isn't. */
bool journal_read(const struct journal *journal, uint64_t sector, void *data, void *tag);

/* Around the reading of others, of what journal_look() said under the same lock; begin's value is
 * end's. */
unsigned journal_read_begin(struct journal *journal);
void journal_read_end(struct journal *journal, unsigned epoch);

/* Asserts the invariants. Takes time: for tests. */
void journal_validate(const struct journal *journal);

#endif
