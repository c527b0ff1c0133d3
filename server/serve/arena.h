/* arena: the memory of a connection for what its client writes and reads, from when it is asked for
 * until it has been sent, or stored.
 *
 * A ring of pages. What is taken lies in one piece, on whole pages, and is given back in about the
 * order in which it was taken; room comes back when all that was taken before is given back as well. */
#ifndef NDIO_ARENA_H
#define NDIO_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define ARENA_PAGE 4096

struct arena {
	uint8_t *base;            /* NULL: none */
	struct arena_span *spans; /* by the page that they start at */
	unsigned pages;           /* in all */
	unsigned head, tail; /* pages: the next to be taken; the oldest that isn't given back */
	unsigned used;       /* pages of spans that the tail hasn't passed */
	unsigned end;        /* page at which the head began anew; 0: it hasn't, for the tail */
	unsigned limit;      /* the head begins anew here: the owner's to change at any time */
	unsigned touched;    /* pages behind this one take no memory */
};

/* size bytes, whole pages, which is its limit; nothing of it takes memory until it is used. 0 or
 * -ENOMEM. */
int arena_init(struct arena *arena, size_t size);
/* Nothing of it is in use. What was in it is gone from memory. Harmless on a zeroed struct. */
void arena_destroy(struct arena *arena);

/* Or NULL if there isn't so much room now, or not below the limit. len > 0. */
void *arena_take(struct arena *arena, size_t len);
void arena_give(struct arena *arena, void *taken);

/* The memory behind the limit goes back to the kernel, unless something is in use. */
void arena_trim(struct arena *arena);

#endif
