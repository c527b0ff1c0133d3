#include "integrity/journal-section.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ID_LEN      8 /* bytes: the last ones of each sector */
#define ID_AT       (LAYOUT_SECTOR - ID_LEN)
#define SECTOR_LEN  8                /* of an entry's sector */
#define UNUSED      UINT32_MAX       /* the high word of an entry's sector; or */
#define IN_PROGRESS (UINT32_MAX - 1) /* the kernel was at it: then the section wasn't committed */

_Static_assert(JOURNAL_META_SPACE == ID_AT, "entries take what the id leaves");

static uint64_t read_le64(const uint8_t *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return le64toh(value);
}

static void write_le64(uint8_t *bytes, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes, &value, sizeof(value));
}

static uint64_t commit_id(uint32_t section, unsigned sector, unsigned seq)
{
	return UINT64_C(0x1111111111111111) * (seq + 1) ^ ((uint64_t)section << 32 | sector);
}

static size_t entry_at(const struct layout *layout, unsigned entry)
{
	assert(entry < layout->entries);
	return entry % JOURNAL_META * LAYOUT_SECTOR + entry / JOURNAL_META * layout->entry_len;
}

static size_t data_at(const struct layout *layout, unsigned entry)
{
	return (size_t)layout_entry_data(layout, entry) * LAYOUT_SECTOR;
}

static size_t tag_at(const struct layout *layout, unsigned entry)
{
	return entry_at(layout, entry) + SECTOR_LEN + layout->block_sectors * ID_LEN;
}

static bool holds_nothing(uint64_t sector)
{
	return sector >> 32 == UNUSED || sector >> 32 == IN_PROGRESS;
}

uint8_t *journal_section_data(const struct layout *layout, uint8_t *bytes, unsigned entry)
{
	return bytes + data_at(layout, entry);
}

uint8_t *journal_section_tag(const struct layout *layout, uint8_t *bytes, unsigned entry)
{
	return bytes + tag_at(layout, entry);
}

/* ---- made ---- */

void journal_section_clear(const struct layout *layout, uint8_t *bytes, bool wipe)
{
	memset(bytes, 0, wipe ? layout->section_len : JOURNAL_META * LAYOUT_SECTOR);
	for (unsigned i = 0; i < layout->entries; i++)
		write_le64(bytes + entry_at(layout, i), (uint64_t)UNUSED << 32);
}

void journal_section_put(const struct layout *layout, uint8_t *bytes, unsigned entry,
			 uint64_t sector, const void *data, const void *tag)
{
	uint8_t *at = bytes + entry_at(layout, entry), *to = bytes + data_at(layout, entry);

	assert(!holds_nothing(sector) && sector % layout->block_sectors == 0);
	memcpy(to, data, layout->block);
	for (unsigned i = 0; i < layout->block_sectors; i++)
		memcpy(at + SECTOR_LEN + i * ID_LEN, to + i * LAYOUT_SECTOR + ID_AT, ID_LEN);
	memcpy(bytes + tag_at(layout, entry), tag, layout->tag_size);
	write_le64(at, sector);
}

void journal_section_seal(const struct layout *layout, uint8_t *bytes, uint32_t section,
			  unsigned seq)
{
	for (unsigned i = 0; i < layout->section_sectors; i++)
		write_le64(bytes + (size_t)i * LAYOUT_SECTOR + ID_AT, commit_id(section, i, seq));
}

/* The last bytes of an entry's data. */
static void restore(const struct layout *layout, const uint8_t *bytes, unsigned entry,
		    uint8_t *data)
{
	const uint8_t *last = bytes + entry_at(layout, entry) + SECTOR_LEN;

	for (unsigned i = 0; i < layout->block_sectors; i++)
		memcpy(data + i * LAYOUT_SECTOR + ID_AT, last + i * ID_LEN, ID_LEN);
}

void journal_section_unseal(const struct layout *layout, uint8_t *bytes)
{
	for (unsigned i = 0; i < layout->entries; i++)
		if (!holds_nothing(read_le64(bytes + entry_at(layout, i))))
			restore(layout, bytes, i, bytes + data_at(layout, i));
}

void journal_section_get(const struct layout *layout, const uint8_t *bytes, unsigned entry,
			 void *data, void *tag)
{
	memcpy(data, bytes + data_at(layout, entry), layout->block);
	restore(layout, bytes, entry, data);
	if (tag)
		memcpy(tag, bytes + tag_at(layout, entry), layout->tag_size);
}

/* ---- read ---- */

unsigned journal_section_seqs(const struct layout *layout, const uint8_t *bytes, uint32_t section,
			      unsigned *sector)
{
	unsigned found = 0;

	for (unsigned i = 0; i < layout->section_sectors; i++) {
		uint64_t id = read_le64(bytes + (size_t)i * LAYOUT_SECTOR + ID_AT);
		unsigned seq = 0;

		while (seq < JOURNAL_SEQS && id != commit_id(section, i, seq))
			seq++;
		if (seq == JOURNAL_SEQS) {
			*sector = i;
			return 0;
		}
		found |= 1u << seq;
	}
	return found;
}

bool journal_section_is_empty(const struct layout *layout, const uint8_t *bytes)
{
	for (unsigned i = 0; i < layout->entries; i++)
		if (read_le64(bytes + entry_at(layout, i)) >> 32 != UNUSED)
			return false;
	return true;
}

int journal_section_blocks(const struct layout *layout, uint8_t *bytes, const char *name,
			   struct journal_block *blocks, struct error *err)
{
	int count = 0;

	for (unsigned i = 0; i < layout->entries; i++) {
		uint64_t sector = read_le64(bytes + entry_at(layout, i));

		if (holds_nothing(sector))
			continue;
		if (sector >= layout->size / LAYOUT_SECTOR || sector % layout->block_sectors)
			return error_set(err, EINVAL,
					 "%s: integrity: the journal has data for sector %" PRIu64
					 ", where no block begins",
					 name, sector);
		blocks[count++] = (struct journal_block){
			.sector = sector,
			.data = bytes + data_at(layout, i),
			.tag = bytes + tag_at(layout, i),
		};
	}
	journal_section_unseal(layout, bytes);
	return count;
}

static int compare_blocks(const void *a, const void *b)
{
	const struct journal_block *one = a, *other = b;

	if (one->sector != other->sector)
		return one->sector < other->sector ? -1 : 1;
	return (one->data > other->data) - (one->data < other->data);
}

size_t journal_blocks_order(struct journal_block *blocks, size_t count)
{
	size_t kept = 0;

	qsort(blocks, count, sizeof(*blocks), compare_blocks);
	for (size_t i = 0; i < count; i++)
		if (i + 1 == count || blocks[i].sector != blocks[i + 1].sector)
			blocks[kept++] = blocks[i];
	return kept;
}
