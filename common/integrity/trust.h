/* trust: what a disk was when it was last seen, in a file of the client's, so that whoever stores the
 * disk can't hand back an older one. A tag tells a block that was changed; that it is the newest only
 * its owner can know. The tags of an area lie together, so one hash of them, 32 bytes an area, pins
 * all its blocks. The same file pins the header (seal.h).
 *
 * Each area has a hash, or none yet. While it is written with a journal, from which what was cut off is
 * carried out as a whole, others count as well:
 *
 *   trust_intend()  before it goes to the journal: that hash counts, too
 *   trust_sync()    and that is safe, so the write may be sent
 *   trust_wrote()   it is there for good: what counted before it doesn't any more
 *
 * Without one, who is cut off leaves some sectors of the tags that were written and some that weren't.
 * So each of them, a leaf, has hashes that count on their own:
 *
 *   trust_intend_leaf()  what it is, and what it becomes; others, in later writes
 *   trust_sync()         and that is safe
 *   trust_saw()          all was written and flushed: the area is this, and nothing else
 *
 * An area's hash: its tags, as many as it has blocks, in leaves of 512 bytes, the last of which may have
 * fewer. SHA-256 over a byte 0 and a leaf's bytes is the leaf's; over a byte 1 and those of 8 leaves, the
 * last of which may be fewer, a page's; over a byte 2 and those of all pages the area's.
 *
 * The file, version 1. Numbers are little-endian, places in bytes:
 *
 *   0         two heads, 128 KiB each: that of generation g is number g % 2, and the valid one with
 *             the higher generation counts
 *   256 KiB   two logs of 1 MiB, likewise
 *   2304 KiB  the hashes: 32 bytes an area; zeroes: not known
 *
 * A head: magic "ndiotrus", u32 version, u32 length of the text, u64 generation, u64 random number,
 * u64 bytes of data, u64 bytes of data in an area, u32 bytes in a block, u32 bytes in a tag, u64 count of seals,
 * the volume's UUID (40 bytes, padded with zeroes), the header's MAC (32), SHA-256 of all this and the
 * text (32); at 256 the text, the canonical form of the header; while that is changed, the new one
 * behind it, with a newline between them. The MAC is over all of it.
 *
 * A log: records of 64 bytes: u64 area, u64 random number of its head, u32 number in the log from 0 on,
 * u32 kind, the hash (32), the first 8 bytes of SHA-256 of the 56 before. It ends where one isn't valid.
 * Kind 1: this hash counts as well. Kind 2: what counted before it doesn't any more. Kind 3: it counts
 * alone. Kind 4: so does this one for a leaf, whose number is in the upper 24 bits of the area; the first
 * of a leaf's is what it was.
 *
 * When a log is full, and after a file was opened, the next generation begins: the hashes that count
 * are written to their places and what was intended to the next log; when that is safe, a head. So at
 * any cut one head is valid, with all of its log, and an area's hash that was overwritten by then is one
 * that its log comes to.
 *
 * One thread at a time. The file is behind calls of its own, so that a test cuts it off at each. */
#ifndef NDIO_TRUST_H
#define NDIO_TRUST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "integrity/seal.h"

#define TRUST_HASH   32                 /* bytes */
#define TRUST_LEAF   512                /* bytes of tags */
#define TRUST_PAGE   8                  /* leaves */
#define TRUST_LEAVES (1 << 24)          /* in an area, at the most */
#define TRUST_UUID   40                 /* with its end */
#define TRUST_TEXT   (128 * 1024 - 256) /* bytes of a header's canonical form, at the most */

/* 0, or a negative errno. A read behind the end gives zeroes. */
struct trust_io {
	int (*read)(void *file, uint64_t at, void *bytes, size_t len);
	int (*write)(void *file, uint64_t at, const void *bytes, size_t len);
	int (*sync)(void *file);
	void *file;
	const char *name; /* for messages */
};

/* Which volume it is. Without areas: only its header is known. */
struct trust_volume {
	char uuid[TRUST_UUID];
	uint64_t size, area_len;  /* bytes of data, and of those in an area */
	uint32_t block, tag_size; /* bytes */
	uint64_t seals;           /* how often its header was sealed */
	uint8_t mac[SEAL_MAC];
};

struct trust_pending {
	uint8_t hash[TRUST_HASH];
	uint32_t leaf; /* UINT32_MAX: it is the area's */
	uint32_t next; /* of the same area, intended later; or of those that are free */
};

struct trust {
	struct trust_io io;
	struct trust_volume volume;
	char *text;      /* the header's canonical form */
	uint8_t *hashes; /* TRUST_HASH an area */
	uint64_t generation;

	uint32_t *first;               /* of each area: what counts as well; none: UINT32_MAX */
	struct trust_pending *pending; /* there */
	uint32_t pending_count, pending_room, pending_free;
	uint8_t *dirty;     /* of each 4096 bytes of hashes: they changed since they were written */
	uint8_t *next_log;  /* of the next one, while it is made */
	uint8_t *log;       /* of this generation: */
	size_t log_count;   /* records, */
	size_t log_written; /* and so many are in the file */
	uint64_t nonce;     /* which they have */
	bool changed;       /* since the generation began, or the file was opened */
	int error;          /* of the file, not for want of memory: nothing is written any more */
};

enum trust_verdict {
	TRUST_SAME,    /* what it was, or one of what it may have become */
	TRUST_UNKNOWN, /* none is known yet */
	TRUST_OTHER,   /* an older one, or of another disk */
};

/* A file for a volume of which nothing but the header is known. 0, or a negative errno with a message. */
int trust_make(const struct trust_io *io, const struct trust_volume *volume, const char *text,
	       struct error *err);

/* Reads it. trust_destroy() is due if that went well. 0; -EINVAL with a message: it is none, or
 * damaged; -ENOTSUP: of another version; or another negative errno with a message. */
int trust_open(struct trust *trust, const struct trust_io *io, struct error *err);

/* Nothing is written: what isn't synced is lost. */
void trust_destroy(struct trust *trust); /* harmless on a zeroed struct */

/* How many it has. */
uint64_t trust_areas(const struct trust_volume *volume);

/* Is it that volume, of the same size? 0, or -ESTALE with a message. uuid and the rest are the
 * disk's; neither seals nor mac count. */
int trust_check_volume(const struct trust *trust, const struct trust_volume *volume,
		       struct error *err);

/* Is this header the one that was sealed? Before a passphrase is asked for. 0, or -ESTALE with a message
 * that says what changed. */
int trust_check_header(const struct trust *trust, const char *text, struct error *err);

/* And is this its volume's key? When it is unlocked. 0, -ESTALE with a message, or -EIO. */
int trust_check_key(const struct trust *trust, const void *volume_key, size_t key_len,
		    struct error *err);

/* The header is about to be changed by who may, to text: cut off in between, either is accepted. 0 when that
 * is safe, or a negative errno with a message: then it may not be changed. */
int trust_intend_header(struct trust *trust, const char *text, const void *volume_key,
			size_t key_len, struct error *err);

/* That was cut off, and now the header is text, one of the two: from now on it alone. Nothing is done
 * if nothing was cut off. 0, or a negative errno with a message. */
int trust_settle_header(struct trust *trust, const char *text, const void *volume_key,
			size_t key_len, struct error *err);

/* The header was changed by who may. 0 when that is safe, or a negative errno with a message. */
int trust_seal(struct trust *trust, const char *text, const void *volume_key, size_t key_len,
	       struct error *err);

/* ---- areas ---- */

/* The hash of count tags. Or in parts: of a leaf; of a page's leaves; of all pages. 0, or a negative
 * errno. */
int trust_hash(const void *tags, size_t count, size_t tag_size, uint8_t hash[TRUST_HASH]);
int trust_hash_leaf(const void *tags, size_t len, uint8_t hash[TRUST_HASH]);
int trust_hash_page(const void *leaves, size_t count, uint8_t hash[TRUST_HASH]);
int trust_hash_pages(const void *pages, size_t count, uint8_t hash[TRUST_HASH]);

/* Of so many leaves, from a page's first on, all their pages; and how many those are. */
size_t trust_pages(size_t leaves);
int trust_hash_each_page(const uint8_t *leaves, size_t count, uint8_t *pages);

/* Of how many areas is something known? */
uint64_t trust_known(const struct trust *trust);

enum trust_verdict trust_check(const struct trust *trust, uint64_t area,
			       const uint8_t hash[TRUST_HASH]);

/* The same of all its leaves' hashes, some of which may count on their own. A verdict; or -ENOMEM. */
int trust_check_leaves(const struct trust *trust, uint64_t area, const uint8_t *leaves,
		       size_t count);

/* Does something count besides its hash? */
bool trust_is_in_doubt(const struct trust *trust, uint64_t area);

/* Before count records are made: from then on none needs I/O. 0, or a negative errno with a message. */
#define TRUST_RECORDS 4096  /* count, at the most */
#define TRUST_LOG     16384 /* records in a log: fewer than that may be in doubt */
int trust_make_room(struct trust *trust, size_t count, struct error *err);

/* That hash counts as well, once trust_sync() has said so. 0, or a negative errno with a message; then
 * the area may not be written. */
int trust_intend(struct trust *trust, uint64_t area, const uint8_t hash[TRUST_HASH],
		 struct error *err);
int trust_intend_leaf(struct trust *trust, uint64_t area, uint32_t leaf,
		      const uint8_t is[TRUST_HASH], const uint8_t becomes[TRUST_HASH],
		      struct error *err);
int trust_sync(struct trust *trust, struct error *err);

/* The area was written: what counted before this hash, which was intended, doesn't any more. Or: that is
 * how it is, seen before anything was intended. Neither needs a sync: until then more is accepted than
 * need be. 0, or a negative errno with a message. */
int trust_wrote(struct trust *trust, uint64_t area, const uint8_t hash[TRUST_HASH],
		struct error *err);
int trust_saw(struct trust *trust, uint64_t area, const uint8_t hash[TRUST_HASH],
	      struct error *err);

/* Everything is to be found where it belongs: before the file is closed, and now and then. 0 when that is
 * safe, or a negative errno with a message. */
int trust_checkpoint(struct trust *trust, struct error *err);

#endif
