/* layout: where dm-integrity keeps what on a device: its superblock as bytes, and the places of
 * data, tags and journal that follow from it.
 *
 *   superblock | journal: sections | tags of area 0 | area 0 | tags of area 1 | area 1 | ...
 *
 * As LUKS2 uses it: the tags are dm-crypt's, so there is neither a hash nor a journal's MAC of
 * dm-integrity's own. Places are in bytes, from where the LUKS2 segment starts; "sectors" are those
 * of the format, of 512 bytes each; a block is a sector of the cipher, with one tag. No I/O. */
#ifndef NDIO_LAYOUT_H
#define NDIO_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define SUPERBLOCK_LEN     512  /* bytes that say something */
#define SUPERBLOCK_AREA    4096 /* and those that are its own */
#define LAYOUT_SECTOR      512
#define JOURNAL_META       8   /* sectors with entries, at the start of each section */
#define JOURNAL_META_SPACE 504 /* bytes of entries in one of them: behind it is a commit id */

/* What a superblock says. */
struct superblock {
	unsigned tag_size;         /* bytes a block */
	unsigned block;            /* bytes: 512 to 4096 */
	unsigned log2_interleave;  /* of an area's data, in sectors: 3 to 31 */
	uint32_t journal_sections; /* at least 1 */
	uint64_t provided_sectors; /* of data, in sectors: whole blocks */
	bool fixed_padding; /* the tags of an area take whole 4096 bytes, else whole 128 KiB */
};

/* Where it all lies. Nothing of it overflows or lies outside of the device. */
struct layout {
	unsigned tag_size;
	unsigned block;           /* bytes */
	unsigned block_sectors;   /* sectors in a block */
	unsigned entry_len;       /* bytes of a journal's entry: one of a block */
	unsigned entries;         /* in a section */
	unsigned section_sectors; /* a section's length, in sectors */
	uint32_t sections;
	uint64_t section_len; /* the same in bytes */
	uint64_t areas_at;    /* where the first area's tags are */
	uint64_t area_data;   /* bytes of data in an area; the last may have fewer */
	uint64_t area_tags;   /* bytes that its tags take, with what is unused behind them */
	uint64_t area_blocks; /* blocks, and tags, in an area */
	uint64_t size;        /* bytes of data in all */
};

/* Reads SUPERBLOCK_LEN bytes, which may be anything. name is the disk's, for messages. 0; -EINVAL
 * with a message: it is none, or one that says something impossible; -ENOTSUP: it says something
 * that LUKS2 doesn't use, which the message names. */
int superblock_read(const uint8_t *bytes, const char *name, struct superblock *superblock,
		    struct error *err);

/* Makes those bytes, all SUPERBLOCK_AREA of them. */
void superblock_write(const struct superblock *superblock, uint8_t *bytes);

/* One for room bytes, as the kernel makes it: the usual areas, a journal of the usual length, as
 * much data as fits. 0, or -ENOSPC with a message: too small. */
int superblock_make(struct superblock *superblock, unsigned block, unsigned tag_size, uint64_t room,
		    const char *name, struct error *err);

/* Lays out what the superblock says, in room bytes. 0, or -EINVAL with a message: it doesn't fit
 * there, or together. */
int layout_make(const struct superblock *superblock, uint64_t room, const char *name,
		struct layout *layout, struct error *err);

/* Where the block of data lies that has this offset among the data; and the first byte of its tag.
 * Blocks of an area lie side by side, and so do their tags. offset is below size. */
uint64_t layout_data_at(const struct layout *layout, uint64_t offset);
uint64_t layout_tag_at(const struct layout *layout, uint64_t offset);

/* Where a section of the journal begins; and, in it and in sectors, where the data of an entry lie. */
uint64_t layout_section_at(const struct layout *layout, uint32_t section);
unsigned layout_entry_data(const struct layout *layout, unsigned entry);

#endif
