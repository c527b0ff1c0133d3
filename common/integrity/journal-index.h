/* journal-index: which entry of the journal's memory has the newest data of a sector, and which of two
 * entries of one sector is the newer. A hash table of fixed size. */
#ifndef NDIO_JOURNAL_INDEX_H
#define NDIO_JOURNAL_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#define JOURNAL_NO_ENTRY UINT32_MAX

struct journal_entry {
	uint64_t sector;
	uint32_t newer, older; /* of the same sector, or JOURNAL_NO_ENTRY */
	uint32_t next;         /* in its bucket, if it is the newest */
	bool used;             /* it is in the index */
	bool filled;           /* the owner's */
};

struct journal_index {
	struct journal_entry *entries;
	uint32_t *buckets;
	uint32_t count; /* of entries */
	unsigned bits;  /* 2^bits buckets */
};

/* For entries 0 to count - 1, none used, count > 0. 0, or -ENOMEM. */
int journal_index_init(struct journal_index *index, uint32_t count);
void journal_index_destroy(struct journal_index *index); /* harmless on a zeroed struct */

/* An unused entry becomes the newest of its sector; and its oldest isn't used any more. */
void journal_index_add(struct journal_index *index, uint32_t entry, uint64_t sector);
void journal_index_remove(struct journal_index *index, uint32_t entry);

/* The newest, or JOURNAL_NO_ENTRY. */
uint32_t journal_index_find(const struct journal_index *index, uint64_t sector);

#endif
