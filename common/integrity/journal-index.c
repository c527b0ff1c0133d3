#include "integrity/journal-index.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int journal_index_init(struct journal_index *index, uint32_t count)
{
	*index = (struct journal_index){ .count = count, .bits = 1 };
	while (index->bits < 31 && 1u << index->bits < count)
		index->bits++;
	index->entries = calloc(count, sizeof(*index->entries));
	index->buckets = malloc(sizeof(*index->buckets) << index->bits);
	if (!index->entries || !index->buckets) {
		journal_index_destroy(index);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < 1u << index->bits; i++)
		index->buckets[i] = JOURNAL_NO_ENTRY;
	return 0;
}

void journal_index_destroy(struct journal_index *index)
{
	free(index->entries);
	free(index->buckets);
	*index = (struct journal_index){ 0 };
}

/* By Fibonacci hashing: sectors are multiples of a block's. */
static uint32_t *bucket_of(const struct journal_index *index, uint64_t sector)
{
	return &index->buckets[sector * UINT64_C(0x9e3779b97f4a7c15) >> (64 - index->bits)];
}

uint32_t journal_index_find(const struct journal_index *index, uint64_t sector)
{
	uint32_t entry = *bucket_of(index, sector);

	while (entry != JOURNAL_NO_ENTRY && index->entries[entry].sector != sector)
		entry = index->entries[entry].next;
	return entry;
}

/* Out of its bucket. */
static void unlink_newest(struct journal_index *index, uint32_t entry)
{
	uint32_t *link = bucket_of(index, index->entries[entry].sector);

	while (*link != entry)
		link = &index->entries[*link].next;
	*link = index->entries[entry].next;
}

static void link_newest(struct journal_index *index, uint32_t entry)
{
	uint32_t *bucket = bucket_of(index, index->entries[entry].sector);

	index->entries[entry].next = *bucket;
	*bucket = entry;
}

void journal_index_add(struct journal_index *index, uint32_t entry, uint64_t sector)
{
	uint32_t older = journal_index_find(index, sector);

	assert(entry < index->count && !index->entries[entry].used);
	index->entries[entry] = (struct journal_entry){
		.sector = sector,
		.newer = JOURNAL_NO_ENTRY,
		.older = older,
		.used = true,
	};
	if (older != JOURNAL_NO_ENTRY) {
		unlink_newest(index, older);
		index->entries[older].newer = entry;
	}
	link_newest(index, entry);
}

void journal_index_remove(struct journal_index *index, uint32_t entry)
{
	struct journal_entry *gone = &index->entries[entry];

	assert(entry < index->count && gone->used && gone->older == JOURNAL_NO_ENTRY);
	if (gone->newer == JOURNAL_NO_ENTRY)
		unlink_newest(index, entry);
	else
		index->entries[gone->newer].older = JOURNAL_NO_ENTRY;
	gone->used = false;
}
