/* areas: which areas of a disk are what its owner's trust file says they were, and what that file is told
 * of those that are written without a journal.
 *
 *                 all its tags were read
 *   (not there) --> LOADING --> GOOD     the file knows it, or knows none yet
 *                      |          |  a chunk that was read isn't what it was
 *                      +--------> STALE, until the disk is closed
 *
 * A good area's pages of tags have their hashes in memory, so that a chunk can be read again alone, and
 * one that is written needs only its own leaves hashed. An area goes when others need the room, unless
 * somebody holds it, or it has tags that aren't on the disk for good: then it is in doubt. Of a stale one
 * nothing stays but a bit.
 *
 * Tags are written by one thread at a time, who has the sweep's turn:
 *
 *   areas_begin()   what was seen is recorded; of an area that is seen later, before it is intended
 *   areas_intend()  for each chunk that is to be written; then
 *   areas_sync()    once for all of them; then they are written. Again, until nothing is left that was dirty at first;
 *   areas_settle()  when that was flushed: areas are what they are now, and nothing else
 *
 * The trust file's memory is read under the lock, and changed under it by who has the turn; the file is
 * written by him without it. No other I/O. */
#ifndef NDIO_AREAS_H
#define NDIO_AREAS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "integrity/layout.h"
#include "integrity/tags.h"
#include "integrity/trust.h"

#define AREA_BUCKETS 1024

enum area_state {
	AREA_LOADING,
	AREA_GOOD,
	AREA_STALE,
};

struct area {
	struct area *next;          /* in its bucket */
	struct area *newer, *older; /* of those that are idle, by their last use */
	struct area *next_doubtful;
	uint64_t number;
	unsigned held; /* by so many */
	enum area_state state;
	bool doubtful, idle; /* idle: neither held nor that */
	uint64_t touched;    /* when its tags in memory were changed last: in which turn */
	uint8_t pages[];     /* TRUST_HASH a page of tags, as the disk has them */
};

struct area_seen {
	uint64_t number;
	uint8_t hash[TRUST_HASH];
};

struct areas {
	const struct layout *layout;
	struct trust *trust;
	bool read_only;
	bool journaled;       /* it is written through a journal */
	size_t leaves, pages; /* of an area; the last may have fewer */
	pthread_mutex_t lock;
	size_t max, count; /* more than max only while they are held or in doubt */
	struct area *newest, *oldest, *doubtful;
	size_t doubtful_count;
	struct area *buckets[AREA_BUCKETS];
	uint64_t turn;          /* so many began */
	uint64_t copy_turn;     /* when the copy under way did */
	struct area_seen *seen; /* for the first time, to be recorded */
	size_t seen_count, seen_room;
	uint64_t stale;      /* areas; */
	uint8_t *were_stale; /* a bit for each there is */
};

/* max is in bytes. read_only: the file is told nothing. name is the disk's. 0, or a negative errno with
 * a message. */
int areas_init(struct areas *areas, const struct layout *layout, struct trust *trust,
	       bool read_only, uint64_t max, const char *name, struct error *err);
void areas_destroy(struct areas *areas); /* nothing is held */

/* How many leaves an area has, and bytes in one. */
size_t areas_leaves(const struct areas *areas, uint64_t number);
size_t areas_leaf_len(const struct areas *areas, uint64_t number, size_t leaf);

/* The first of a chunk's leaves. */
size_t areas_first_leaf(const struct areas *areas, const struct tag_chunk *chunk);

size_t areas_pages_of(const struct areas *areas, uint64_t number);

/* Of leaves of an area's tags that lie there, from the first on. 0, or a negative errno. */
int areas_hash(const struct areas *areas, uint64_t number, size_t first, size_t count,
	       const uint8_t *bytes, uint8_t *hashes);

/* An area. NULL: no memory. It can be let go of once it is stale, too. */
struct area *areas_hold(struct areas *areas, uint64_t number);
void areas_let_go(struct areas *areas, struct area *area); /* NULL is fine */
enum area_state areas_state(struct areas *areas, const struct area *area);

/* All its leaves' hashes, read while it was held and LOADING. 0: it is good; -ESTALE; *first: nobody has said
 * so before. Or -ENOMEM: it is LOADING as before. */
int areas_loaded(struct areas *areas, struct area *area, const uint8_t *leaves, bool *first);

/* A good area's leaves, whole pages of them but at its end: are they what they were? 1, 0, or -ENOMEM. If not,
 * and nobody else has read and changed them meanwhile, say so by areas_is_stale(): false if that was known. */
int areas_check(struct areas *areas, const struct area *area, size_t first, const uint8_t *leaves,
		size_t count);
bool areas_is_stale(struct areas *areas, struct area *area);

/* Its tags in memory have changed, just now; it is held. */
void areas_touch(struct areas *areas, struct area *area);

/* ---- with the turn; 0, or a negative errno with a message ---- */

bool areas_has_doubts(struct areas *areas); /* something is to be recorded or settled */
int areas_begin(struct areas *areas, struct error *err);

/* For how many pages is there room? At least those of a chunk. bytes: of those of run. */
#define AREAS_PAGES (TRUST_RECORDS / (2 * TRUST_PAGE + 1)) /* at the most */
int areas_make_room(struct areas *areas, size_t *pages, struct error *err);
int areas_intend(struct areas *areas, const struct tag_run *run, const uint8_t *bytes,
		 struct error *err);
int areas_sync(struct areas *areas, struct error *err);

/* What the trust file can't be told may end all writing: so for memory that it takes one waits, a second at
 * the most. tries begins with 0. True: try once more. */
bool areas_try_again(int ret, unsigned *tries);

/* So much is in doubt that a flush and areas_settle() are due: leaves, for the file; areas, for memory, which
 * only all of them are settled for. */
bool areas_are_many(struct areas *areas);
bool areas_are_full(struct areas *areas);

/* all: nothing was dirty any more that was so at areas_begin(). */
int areas_settle(struct areas *areas, bool all, struct error *err);

/* ---- written through a journal: journal-areas.h; the same ---- */

void areas_pages(struct areas *areas, const struct area *area, uint8_t *pages);
int areas_intend_whole(struct areas *areas, struct area *area, const uint8_t *hash,
		       struct error *err);

/* It is durable, and this is what its tags in memory are from now on. err may be NULL: only that. */
int areas_wrote(struct areas *areas, struct area *area, const uint8_t *pages, const uint8_t *hash,
		struct error *err);

/* Dirty tags are about to be copied; and those that were dirty then aren't any more. Any thread. */
void areas_copy(struct areas *areas);
void areas_copied(struct areas *areas);

uint64_t areas_stale(struct areas *areas);
size_t areas_count(struct areas *areas); /* in memory */

#endif
