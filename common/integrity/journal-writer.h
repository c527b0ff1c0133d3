/* journal-writer: a target's writes through the journal (journal.h), for all its queues together.
 *
 * A queue has a seat. It brings orders, and asks its seat in each round to go on; what was carried out
 * comes back then. Those that must wait (for room, or until something is durable) wait in their seat's
 * list, as long as it takes.
 *
 * Who does the acts. Where the target below has queues to spare (a file), a thread with one of its own,
 * the keeper, does all of them; it is there from the first write until the last seat is given up. Where
 * it has not (an NBD server: a queue is a connection) or there is no thread to be had, whoever goes on
 * takes what there is to do, and the queue that has taken it does it, beside all else. An act becomes
 * possible only by somebody's doing (a block was put, a reader is done, an act has landed), and whoever
 * did that goes on with his seat before he sleeps: then it is taken. One who isn't going to poll any
 * more, since all he had is done, doesn't take any; he wakes who waits, and they take it. If nobody
 * waits, nobody misses it.
 *
 * Who sleeps. A seat that has orders waiting sleeps until something of its queue's lands, or it is nudged;
 * all of those are nudged whenever an act has landed. A nudge is a descriptor that stays readable
 * until the seat goes on, so none is lost; without a descriptor they sleep for some ms at a time. What
 * was written and not flushed is committed, and copied, when nothing was to be done for a second.
 *
 * A seat whose queue is down (its connection was lost, and nobody waits for it) fails its own orders
 * and takes no act. An act that fails, by a lost connection too, is the end of all writing until the
 * target is opened anew: who waits is told that error, once, and whoever writes later.
 *
 * One lock, under which nothing waits; blocks are put into the journal without it. */
#ifndef NDIO_JOURNAL_WRITER_H
#define NDIO_JOURNAL_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/notice.h"
#include "integrity/below.h"
#include "integrity/journal.h"
#include "integrity/tags.h"

#define JOURNAL_ROOM                                                                               \
	32 /* subrequests that a seat may have in flight in its queue, besides others */

struct journal_writer;
struct journal_seat;

struct journal_writer_options {
	struct target *below;
	uint64_t start; /* bytes: of the segment */
	const struct layout *layout;
	struct tags *tags;
	struct areas *areas; /* or NULL: there is no trust file */
	uint64_t memory;     /* bytes for sections, about; two at the least */
	const struct notice *notice;
	const char *name; /* the disk's, for messages */
};

/* Nothing is asked of below until something is written. What options point to stays. NULL: no memory. */
struct journal_writer *journal_writer_new(const struct journal_writer_options *options);
void journal_writer_free(struct journal_writer *writer); /* no seat is left; NULL is fine */

/* Does a keeper do the acts? Then a queue below needs no JOURNAL_ROOM. */
bool journal_writer_keeps(const struct journal_writer *writer);

/* One thread at a time has a seat, that of its queue. None is opened while the last one is given up. NULL:
 * no memory. */
struct journal_seat *journal_seat_open(struct journal_writer *writer, const struct below *below);

/* Nothing of it waits. The last one to go has everything copied, and the journal emptied; unless it
 * is down or was cancelled. */
void journal_seat_close(struct journal_seat *seat);

enum journal_order_kind { ORDER_WRITE, ORDER_FLUSH, ORDER_READ };

struct journal_order {
	struct journal_order *next;
	enum journal_order_kind kind;
	uint64_t offset;            /* WRITE: bytes, among the data; */
	unsigned blocks;            /* how many; */
	const uint8_t *data, *tags; /* and themselves, until it is carried out */
	bool durable;               /* and on the disk by then */
	uint64_t mark;              /* its own */
	int result;                 /* 0, or a negative errno */
};

/* Takes an order. True: it is carried out; else it waits. READ: until it can be asked where something
 * lies. */
bool journal_seat_order(struct journal_seat *seat, struct journal_order *order);

/* Where are blocks from offset on? How many are alike is put into *blocks. Those in memory are copied;
 * those in place are read until journal_seat_read_end(), which has *epoch. */
enum journal_place { PLACE_MEMORY, PLACE_DISK, PLACE_UNKNOWN };
enum journal_place journal_seat_look(struct journal_seat *seat, uint64_t offset, unsigned *blocks,
				     uint8_t *data, uint8_t *tags, int *epoch);
void journal_seat_read_end(struct journal_seat *seat, int epoch);

/* In each round, before the queue sleeps. stays: it will be polled again, whatever ends now. Those
 * orders that waited and are carried out, linked by ->next. */
struct journal_order *journal_seat_go_on(struct journal_seat *seat, bool stays);

/* Is it one of the seat's own that has landed below? Then it is taken. */
bool journal_seat_land(struct journal_seat *seat, struct ndio_subrequest *sub);

/* How many acts its queue does: they need it to be polled. */
unsigned journal_seat_acts(const struct journal_seat *seat);

/* What the queue below is to sleep on in place of wake_fd, perhaps -1. *nap: it can't be told all by
 * that, so it must not sleep longer than some ms. */
int journal_seat_descriptor(struct journal_seat *seat, int wake_fd, bool *nap);

/* There is nothing to be done but to wait for wake_fd: sleeps on it here, as long as there is something
 * that has to be committed when it is idle. False: nothing is. */
bool journal_seat_rest(struct journal_seat *seat, int wake_fd);

/* Orders that wait fail from now on. */
void journal_seat_cancel(struct journal_seat *seat);

#endif
