/* target-integrity: a target on top of a target, that keeps a tag with each block.
 *
 * A subrequest carries the tags of its blocks (sub->tags): a read brings them, a write takes them.
 * It knows nothing of what they mean. Tags are written behind the data: when many are dirty, at a
 * flush or FUA write, and when a queue is closed. doc/integrity.md has the why. */
#ifndef NDIO_TARGET_INTEGRITY_H
#define NDIO_TARGET_INTEGRITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/notice.h"
#include "engine/target.h"
#include "integrity/layout.h"
#include "integrity/trust.h"

#define INTEGRITY_CACHE (UINT64_C(32) * 1024 * 1024)

struct target_integrity_options {
	uint64_t start, room; /* bytes: where its superblock is, and how many are its own */
	unsigned block;       /* bytes, as the LUKS header has them */
	unsigned tag_size;    /* bytes, as the cipher makes them */
	uint64_t cache;       /* bytes of tags kept in memory; 0: INTEGRITY_CACHE */
	bool recover;         /* carry out what is left in the journal, by writing to the disk */
	bool over_journal;    /* or, where nothing is written, read it over what is in place */
	bool journal;         /* what is written goes through the journal */
	struct notice notice; /* told of blocks whose tag is wrong, later */
	/* What the areas were, or NULL: opened, and its volume, header and key checked, by the caller, who
	 * closes it after the target and doesn't use it until then. */
	struct trust *trust;
	bool trust_read_only; /* it is told nothing */
	/* May this be the disk's layout? Before anything is written. 0, or a negative errno with a
	 * message. Or NULL. */
	int (*check)(void *opaque, const struct layout *layout, struct error *err);
	void (*closed)(void *opaque); /* when it is, or NULL: the target uses nothing any more */
	void *opaque;
};

/* Reads the superblock. below, which may have no queues yet, becomes the new target's, to be closed
 * with it; but not if this fails. 0, or a negative errno with a message: -ENOTSUP it is a kind of
 * integrity that isn't supported, -EINVAL it says something impossible or else than the header,
 * -EUCLEAN something is left in the journal, and neither recover nor over_journal is set. */
int target_integrity_open(struct target *below, const struct target_integrity_options *options,
			  struct target **target, struct error *err);

/* The tag of the block at this byte of the data is wrong; or there is none, since it was never
 * written. Any thread. */
void target_integrity_tell_bad(struct target *target, uint64_t offset, bool never_written);

struct target_integrity_facts {
	struct layout layout;
	uint64_t bad;        /* blocks read whose tag was wrong, as often as one was read */
	uint64_t bad_blocks; /* how many of them there are */
	bool trusted;        /* there is a trust file */
	uint64_t stale;      /* areas that weren't what it says */
	size_t dirty_pages;  /* of tags */
	size_t areas;        /* that are in memory */
};
bool target_is_integrity(const struct target *target);
void target_integrity_facts(struct target *target, struct target_integrity_facts *facts);

#endif
