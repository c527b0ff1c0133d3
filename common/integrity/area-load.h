/* area-load: tags that were read from a disk, all of an area's or a chunk's, on their way into memory: put together
 * with what lies over them (journal-overlay.h), and with a trust file (areas.h) held against what it says of them.
 *
 * No I/O: it says what to read, and is told when that has landed. Several may load the same at a time, the first
 * to come fills it. */
#ifndef NDIO_AREA_LOAD_H
#define NDIO_AREA_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "integrity/areas.h"
#include "integrity/journal-overlay.h"
#include "integrity/tags.h"

/* Of a target. */
struct area_loader {
	const struct layout *layout;
	struct tags *tags;
	struct areas *areas;                   /* or NULL: there is no trust file */
	const struct journal_overlay *overlay; /* or NULL */
};

/* One of an area, which is held and LOADING, in pieces that are read one after the other. */
struct area_load {
	struct area *area;
	uint8_t *bytes; /* a piece */
	uint8_t *leaves;
	uint64_t done; /* bytes of its tags */
};

/* 0 or -ENOMEM; area_load_end() is due all the same. */
int area_load_begin(const struct area_loader *loader, struct area_load *load, struct area *area);
void area_load_end(struct area_load *load); /* harmless on a zeroed struct */

/* The next piece: where in the segment, and how long; it is read into load->bytes. */
uint64_t area_load_next(const struct area_loader *loader, const struct area_load *load,
			uint64_t *len);

/* It has landed. 1: there is another; 0: the area is good; -ESTALE; -ENOMEM. *first: nobody has said so of the
 * area before. */
int area_load_landed(const struct area_loader *loader, struct area_load *load, bool *first);

/* A chunk, which is held, was read into bytes from malloc(), which are the callee's now. area: its own, good and
 * held, or NULL without a trust file. As above: 0, -ESTALE, -ENOMEM. */
int area_load_chunk(const struct area_loader *loader, struct area *area, struct tag_chunk *chunk,
		    uint8_t *bytes, bool *first);

#endif
