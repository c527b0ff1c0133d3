#include "integrity/area-doubts.h"

#include <errno.h>
#include <stdlib.h>

#include "base/align.h"

#define MEMORY_ALIGN 4096
#define PIECE        (256 * 1024) /* bytes of tags that are read at once */

/* bytes: of one piece; leaves, pages: hashes of a whole area. */
struct doubts {
	struct areas *areas;
	const struct journal_io *io;
	uint8_t *bytes, *leaves, *pages;
};

static int read_leaves(const struct doubts *doubts, uint64_t number)
{
	const struct layout *layout = doubts->areas->layout;
	uint64_t at = layout_tag_at(layout, number * layout->area_data);
	size_t count = areas_leaves(doubts->areas, number), some;
	int ret = 0;

	for (size_t done = 0; ret == 0 && done < count; done += some) {
		uint64_t before = (uint64_t)done * TRUST_LEAF;

		some = min_u64(count - done, PIECE / TRUST_LEAF);
		ret = doubts->io->read(doubts->io->disk, at + before, doubts->bytes,
				       min_u64(layout->area_tags - before, PIECE));
		if (ret == 0)
			ret = areas_hash(doubts->areas, number, done, some, doubts->bytes,
					 doubts->leaves + done * TRUST_HASH);
	}
	return ret;
}

/* 1: it is one of what it may be, with this hash; 0: it isn't; or a negative errno: that isn't known. */
static int look_at_doubt(const struct doubts *doubts, uint64_t number, uint8_t *hash)
{
	size_t count = areas_leaves(doubts->areas, number);
	int ret = read_leaves(doubts, number);

	if (ret == 0)
		ret = trust_check_leaves(doubts->areas->trust, number, doubts->leaves, count);
	if (ret < 0 || ret == TRUST_OTHER)
		return ret < 0 ? ret : 0;
	ret = trust_hash_each_page(doubts->leaves, count, doubts->pages);
	if (ret == 0)
		ret = trust_hash_pages(doubts->pages, trust_pages(count), hash);
	return ret == 0 ? 1 : ret;
}

/* An area that lies on bad sectors keeps none of the others from it; a disk that is gone does. */
static int settle_doubts(const struct doubts *doubts, struct error *err)
{
	struct trust *trust = doubts->areas->trust;
	uint8_t hash[TRUST_HASH];
	int ret = 0, looked = 0;

	for (uint64_t i = 0; ret == 0 && i < trust_areas(&trust->volume); i++) {
		if (trust->pending_count <= DOUBTS_FEW)
			break;
		if (!trust_is_in_doubt(trust, i))
			continue;
		looked = look_at_doubt(doubts, i, hash);
		if (looked == 1)
			ret = trust_saw(trust, i, hash, err);
		else if (looked < 0 && looked != -EIO)
			break;
	}
	return ret;
}

int area_doubts_settle(struct areas *areas, const struct journal_io *io, bool can_flush,
		       struct error *err)
{
	struct doubts doubts = { .areas = areas, .io = io };
	int ret;

	if (areas->read_only || areas->trust->pending_count <= DOUBTS_MANY)
		return 0;
	/* What is read then can't be lost any more. */
	ret = can_flush ? io->flush(io->disk) : 0;
	if (ret < 0)
		return error_set(err, -ret, "%s: integrity: flushing it: %s", io->name,
				 io->reason(io->disk, -ret));
	doubts.bytes = aligned_alloc(MEMORY_ALIGN, PIECE);
	doubts.leaves = calloc(areas->leaves, TRUST_HASH);
	doubts.pages = calloc(areas->pages, TRUST_HASH);
	if (doubts.bytes && doubts.leaves && doubts.pages)
		ret = settle_doubts(&doubts, err);
	else
		ret = error_set(err, ENOMEM, "%s: no memory", io->name);
	free(doubts.pages);
	free(doubts.leaves);
	free(doubts.bytes);
	return ret;
}
