/* journal-section: a section of dm-integrity's journal as bytes, in the kernel's own format.
 *
 *   8 sectors of entries | the data of entry 0 | the data of entry 1 | ...
 *
 * An entry is a block that was written: its first sector, the last 8 bytes of each of its sectors,
 * its tag. Entry n is in sector n % 8, at place n / 8. Those 8 bytes are there because in the
 * journal every sector ends in a commit id, which tells a section that was written as a whole: it
 * is made of the section, the sector in it, and a sequence number that goes round by 4.
 *
 * Bytes in, bytes out. `bytes` are a whole section, layout->section_len of them. Sectors are those
 * of the format, of 512 bytes. */
#ifndef NDIO_JOURNAL_SECTION_H
#define NDIO_JOURNAL_SECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "integrity/layout.h"

#define JOURNAL_SEQS 4

/* A block on its way from the journal to its place. Both point into a section. */
struct journal_block {
	uint64_t sector; /* of the data: where it begins */
	uint8_t *data;   /* layout->block bytes */
	uint8_t *tag;    /* layout->tag_size bytes */
};

/* ---- made ---- */

/* All entries unused. What the data were is kept, unless they are to be wiped. */
void journal_section_clear(const struct layout *layout, uint8_t *bytes, bool wipe);

/* One entry: block and tag are copied. The data are whole until the section is sealed. */
void journal_section_put(const struct layout *layout, uint8_t *bytes, unsigned entry,
			 uint64_t sector, const void *data, const void *tag);

/* Writes the commit ids, over the last bytes of the data: so it goes to the disk. And the data's own
 * bytes come back. */
void journal_section_seal(const struct layout *layout, uint8_t *bytes, uint32_t section,
			  unsigned seq);
void journal_section_unseal(const struct layout *layout, uint8_t *bytes);

/* The data and tag of an entry that was put, sealed or not. tag may be NULL. */
void journal_section_get(const struct layout *layout, const uint8_t *bytes, unsigned entry,
			 void *data, void *tag);
uint8_t *journal_section_data(const struct layout *layout, uint8_t *bytes, unsigned entry);
uint8_t *journal_section_tag(const struct layout *layout, uint8_t *bytes, unsigned entry);

/* ---- read ---- */

/* The sequence number of each sector: one bit each of those that occur; 0 if there is a sector that
 * has none, *sector. */
unsigned journal_section_seqs(const struct layout *layout, const uint8_t *bytes, uint32_t section,
			      unsigned *sector);

/* Are all entries unused? */
bool journal_section_is_empty(const struct layout *layout, const uint8_t *bytes);

/* Unseals a section that was read and tells the blocks of its entries, in the order in which they
 * were written. blocks has room for layout->entries. The count; or -EINVAL with a message: an entry is
 * of no block that the volume has. name is the disk's. */
int journal_section_blocks(const struct layout *layout, uint8_t *bytes, const char *name,
			   struct journal_block *blocks, struct error *err);

/* Sorts them by sector, and leaves out all but the last of each: the one whose data are further on in
 * memory, where sections lie in the order of the ring. How many are left. */
size_t journal_blocks_order(struct journal_block *blocks, size_t count);

#endif
