#include "integrity/area-load.h"

#include <errno.h>
#include <stdlib.h>

#include "base/align.h"

#define MEMORY_ALIGN 4096
#define PIECE        (1024 * 1024)

/* ---- an area ---- */

static size_t area_piece(const struct area_loader *loader)
{
	return min_u64(loader->layout->area_tags, PIECE);
}

int area_load_begin(const struct area_loader *loader, struct area_load *load, struct area *area)
{
	*load = (struct area_load){
		.area = area,
		.bytes = aligned_alloc(MEMORY_ALIGN, area_piece(loader)),
		.leaves =
			calloc(round_up(loader->areas->leaves, TAG_CHUNK / TRUST_LEAF), TRUST_HASH),
	};
	return load->bytes && load->leaves ? 0 : -ENOMEM;
}

void area_load_end(struct area_load *load)
{
	free(load->bytes);
	free(load->leaves);
	*load = (struct area_load){ 0 };
}

uint64_t area_load_next(const struct area_loader *loader, const struct area_load *load,
			uint64_t *len)
{
	const struct layout *layout = loader->layout;

	*len = min_u64(layout->area_tags - load->done, area_piece(loader));
	return layout_tag_at(layout, load->area->number * layout->area_data) + load->done;
}

/* An area's tags were read in one piece: they are those of its chunks, once they are trusted. Chunks are
 * held from before that on, so that nobody has changed and written one meanwhile. */
static int fill_area(const struct area_loader *loader, struct area_load *load, bool *first)
{
	struct tags *tags = loader->tags;
	size_t of_chunk = TAG_CHUNK / TRUST_LEAF; /* behind its leaves nothing is hashed */
	size_t leaves = areas_leaves(loader->areas, load->area->number);
	size_t count = (leaves + of_chunk - 1) / of_chunk;
	uint64_t data = load->area->number * loader->layout->area_data;
	struct tag_chunk *chunks[PIECE / TAG_CHUNK];
	int ret;

	for (size_t i = 0; i < count; i++)
		chunks[i] = i == 0        ? tags_hold(tags, data) :
			    chunks[i - 1] ? tags_hold_next(tags, chunks[i - 1]) :
					    NULL;
	ret = areas_loaded(loader->areas, load->area, load->leaves, first);
	for (size_t i = 0; i < count && chunks[i]; i++) {
		if (*first && ret == 0)
			tags_fill_copied(tags, chunks[i], load->bytes + i * TAG_CHUNK,
					 load->leaves + i * of_chunk * TRUST_HASH);
		tags_let_go(tags, chunks[i]);
	}
	return ret;
}

int area_load_landed(const struct area_loader *loader, struct area_load *load, bool *first)
{
	uint64_t number = load->area->number, len, at = area_load_next(loader, load, &len);
	size_t leaves = areas_leaves(loader->areas, number), piece = area_piece(loader);
	size_t done = load->done / TRUST_LEAF, count = min_u64(leaves - done, piece / TRUST_LEAF);
	int ret;

	*first = false;
	if (loader->overlay)
		journal_overlay_tags(loader->overlay, at, len, load->bytes);
	ret = areas_hash(loader->areas, number, done, count, load->bytes,
			 load->leaves + done * TRUST_HASH);
	load->done += piece;
	if (ret < 0 || done + count < leaves)
		return ret < 0 ? ret : 1;
	if (piece == loader->layout->area_tags)
		return fill_area(loader, load, first);
	return areas_loaded(loader->areas, load->area, load->leaves, first);
}

/* ---- a chunk ---- */

/* Are its tags what its area's are known to be? 1, 0, or a negative errno. */
static int check_chunk(const struct area_loader *loader, const struct area *area,
		       const struct tag_chunk *chunk, const uint8_t *bytes, uint8_t *leaves)
{
	size_t first = areas_first_leaf(loader->areas, chunk);
	size_t count =
		min_u64(chunk->len / TRUST_LEAF, areas_leaves(loader->areas, area->number) - first);
	int ret = areas_hash(loader->areas, area->number, first, count, bytes, leaves);

	if (ret == 0)
		ret = areas_check(loader->areas, area, first, leaves, count);
	return ret == 0 ? tags_is_valid(loader->tags, chunk) : ret;
}

int area_load_chunk(const struct area_loader *loader, struct area *area, struct tag_chunk *chunk,
		    uint8_t *bytes, bool *first)
{
	uint8_t *leaves;
	int ret;

	*first = false;
	if (loader->overlay)
		journal_overlay_tags(loader->overlay, chunk->at, chunk->len, bytes);
	if (!area) {
		tags_fill(loader->tags, chunk, bytes);
		return 0;
	}
	leaves = calloc(TAG_CHUNK / TRUST_LEAF, TRUST_HASH);
	ret = leaves ? check_chunk(loader, area, chunk, bytes, leaves) : -ENOMEM;
	if (ret > 0) {
		tags_fill_hashed(loader->tags, chunk, bytes, leaves);
		return 0;
	}
	free(bytes);
	free(leaves);
	if (ret < 0)
		return ret;
	*first = areas_is_stale(loader->areas, area);
	return -ESTALE;
}
