/* A hash table of offsets that only grows: a place that is taken stays so. */
#include "integrity/bad-blocks.h"

#define TRIES  64 /* places that one may have */
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* False: it is there already. True, too, if there is no place for it. */
static bool bad_blocks_remember(struct bad_blocks *bad, uint64_t key)
{
	uint64_t first = (key * GOLDEN) >> 32;

	for (unsigned i = 0; i < TRIES; i++) {
		uint64_t there = 0;

		if (atomic_compare_exchange_strong(&bad->known[(first + i) % BAD_BLOCKS], &there,
						   key))
			return true;
		if (there == key)
			return false;
	}
	return true;
}

void bad_blocks_add(struct bad_blocks *bad, uint64_t offset)
{
	if (bad_blocks_remember(bad, offset + 1)) /* no 0 */
		atomic_fetch_add(&bad->count, 1);
}

uint64_t bad_blocks_count(struct bad_blocks *bad)
{
	return atomic_load(&bad->count);
}
