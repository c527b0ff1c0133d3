/* journal-areas: what a trust file is told of areas that are written through the journal.
 *
 * Who is cut off finds all of a section in its place, or nothing; so an area's hash counts for each section
 * that is written, and alone once that is durable. Tags in memory change then, too, and not when they are
 * copied: those are the disk's, as far as who reads it through the journal can see. They stay in memory
 * until they are in their places.
 *
 * An entry of the journal's memory holds its tags and its area from when it is put until it is
 * written. No thread of its own: each call says who may. */
#ifndef NDIO_JOURNAL_AREAS_H
#define NDIO_JOURNAL_AREAS_H

#include <stdint.h>

#include "base/error.h"
#include "integrity/areas.h"
#include "integrity/journal.h"
#include "integrity/tags.h"

/* Entries in the journal's memory, at the most: each may keep a chunk of tags there. */
#define JOURNAL_AREAS_ENTRIES 1024

struct journal_areas;

/* entries: of the journal's memory. NULL: no memory. */
struct journal_areas *journal_areas_new(struct areas *areas, struct tags *tags, uint32_t entries);
void journal_areas_free(struct journal_areas *journal); /* NULL is fine */

/* Of a block at this byte, whose area and tags are held by the caller; before it may be written. */
void journal_areas_hold(struct journal_areas *journal, uint32_t entry, uint64_t offset);

/* Sections are about to be written; whose entries begin with this one. And they are durable, before anybody
 * is told. 0, or a negative errno with a message. One thread at a time. */
int journal_areas_intend(struct journal_areas *journal, uint32_t entry, uint32_t sections,
			 const uint8_t *bytes, struct error *err);
int journal_areas_wrote(struct journal_areas *journal, struct error *err);

#endif
