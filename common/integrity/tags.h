/* tags: those that were read from the disk, in chunks, and those that are still to be written there.
 *
 * A chunk is a run of an area's tags as they lie there. Whoever reads or writes sectors holds the
 * chunks that have their tags; one that nobody holds and that isn't dirty goes when others need
 * the room, the one used longest ago first. A chunk that isn't valid was never read: several may
 * read it at a time, and the first to come fills it. No I/O; any thread. */
#ifndef NDIO_TAGS_H
#define NDIO_TAGS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "integrity/layout.h"

#define TAG_CHUNK   (32 * 1024) /* bytes, at the most */
#define TAG_PAGE    4096        /* bytes that are written as one */
#define TAG_PAGES   (TAG_CHUNK / TAG_PAGE)
#define TAG_BUCKETS 1024

struct tag_chunk {
	struct tag_chunk *next;          /* in its bucket */
	struct tag_chunk *newer, *older; /* by their last use */
	uint64_t at;                     /* bytes, from the start of the segment */
	size_t len;
	uint8_t *bytes;   /* NULL: not valid */
	uint8_t *leaves;  /* hashes of them as they are on the disk, for areas.h; or NULL */
	unsigned held;    /* by so many */
	unsigned dirty;   /* a bit a page */
	uint64_t changed; /* and a bit a leaf (trust.h) of those */
	bool is_written;  /* taken by tags_take_dirty() */
	uint64_t turn;    /* in which it became dirty */
	struct tag_chunk *next_dirty;
};

struct tags {
	const struct layout *layout;
	pthread_mutex_t lock;
	size_t max, count;   /* chunks; more than max only while they are held or dirty */
	size_t dirty_pages;  /* in all */
	size_t dirty_chunks; /* that have some, or are being written */
	struct tag_chunk *newest, *oldest;
	struct tag_chunk *first_dirty,
		**dirty_end; /* those that can be taken, dirty longest first */
	uint64_t turn;
	struct tag_chunk *buckets[TAG_BUCKETS];
};

/* max is in bytes. */
void tags_init(struct tags *tags, const struct layout *layout, uint64_t max);
void tags_destroy(struct tags *tags); /* nothing is held; what is dirty is lost */

/* The chunk with the first byte of the tag of the block at offset, among the data; and, as long as
 * *next is set, that behind it, since a tag may lie in both. NULL: no memory. */
struct tag_chunk *tags_hold(struct tags *tags, uint64_t offset);
struct tag_chunk *tags_hold_next(struct tags *tags, const struct tag_chunk *chunk);
void tags_let_go(struct tags *tags, struct tag_chunk *chunk);

bool tags_is_valid(struct tags *tags, const struct tag_chunk *chunk);

/* Its len bytes were read, into memory from malloc() that is the callee's now. */
void tags_fill(struct tags *tags, struct tag_chunk *chunk, uint8_t *bytes);
void tags_fill_hashed(struct tags *tags, struct tag_chunk *chunk, uint8_t *bytes, uint8_t *leaves);

/* The same of bytes, and hashes for all of a chunk, that stay the caller's. Without memory it isn't filled. */
void tags_fill_copied(struct tags *tags, struct tag_chunk *chunk, const uint8_t *bytes,
		      const uint8_t *leaves);

/* The tags of count blocks, the first of them at offset, to buf or from it; they lie in chunk and, unless
 * it is NULL, the next one, both held and valid. What is written is dirty. */
void tags_get(struct tags *tags, struct tag_chunk *const chunk[2], uint64_t offset, unsigned count,
	      uint8_t *buf);
void tags_put(struct tags *tags, struct tag_chunk *const chunk[2], uint64_t offset, unsigned count,
	      const uint8_t *buf);

/* All bytes of a page of a chunk, and its leaves' hashes; it is dirty then. */
void tags_put_page(struct tags *tags, struct tag_chunk *chunk, unsigned page, const uint8_t *bytes,
		   const uint8_t *leaves);

/* Takes a run of dirty pages to be written: copies them to buf, of TAG_CHUNK bytes, and holds their
 * chunk until tags_wrote(), with the same. NULL: nothing is dirty, but for chunks that were taken. */
struct tag_run {
	struct tag_chunk *chunk;
	unsigned first, count; /* pages of it */
	uint64_t changed;      /* leaves of it */
};
bool tags_take_dirty(struct tags *tags, struct tag_run *run, uint8_t *buf);

/* The same of all of a chunk's dirty pages, with those between them; of chunks that were dirty before this turn:
 * others go on making some so. */
uint64_t tags_next_turn(struct tags *tags);
bool tags_take_chunk(struct tags *tags, uint64_t turn, struct tag_run *run, uint8_t *buf);
void tags_wrote(struct tags *tags, const struct tag_run *run, bool failed);

size_t tags_dirty_pages(struct tags *tags);

/* Chunks that are dirty take all the memory there is for tags; or that of TAGS_LEAST, if that is more. */
#define TAGS_LEAST 64
bool tags_are_full(struct tags *tags);

#endif
