#include "integrity/layout.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/align.h"

#define MAGIC            "integrt" /* and its 0 */
#define MIN_INTERLEAVE   3
#define MAX_INTERLEAVE   31
#define USUAL_INTERLEAVE 15
#define MAX_JOURNAL      131072 /* sectors that the kernel gives one; or */
#define JOURNAL_SHARE    128    /* the device's this part */
#define MOST_JOURNAL                                                                               \
	(UINT64_C(4) << 30) /* bytes: all of it is read, so whoever stores it mustn't have a say */
#define FIXED_PADDING   4096
#define OLD_PADDING     131072 /* that the format meant 8 sectors is a bug that stayed */
#define LEAST_LOG2_DATA 3
#define ENTRY_ROUND     8
#define LAST_BYTES      8 /* of each sector, that an entry keeps */

enum flag {
	FLAG_JOURNAL_MAC = 1 << 0,
	FLAG_RECALCULATING = 1 << 1,
	FLAG_BITMAP = 1 << 2,
	FLAG_FIXED_PADDING = 1 << 3,
	FLAG_FIXED_HMAC = 1 << 4,
	FLAG_INLINE = 1 << 5,
};

static const struct {
	enum flag flag;
	const char *name;
} refused[] = {
	{ FLAG_JOURNAL_MAC, "a journal with a MAC" },
	{ FLAG_RECALCULATING, "tags that are being calculated" },
	{ FLAG_BITMAP, "a bitmap in place of a journal" },
	{ FLAG_FIXED_HMAC, "a keyed superblock" },
	{ FLAG_INLINE, "tags in the disk's own sectors" },
};

/* As it lies there. */
struct on_disk {
	uint8_t magic[8];
	uint8_t version;
	uint8_t log2_interleave;
	uint16_t tag_size;
	uint32_t journal_sections;
	uint64_t provided_sectors;
	uint32_t flags;
	uint8_t log2_block_sectors;
	uint8_t log2_blocks_per_bit;
	uint8_t padding[2];
	uint64_t recalc_sector;
	uint8_t padding_too[8];
	uint8_t salt[16];
} __attribute__((packed));

_Static_assert(sizeof(struct on_disk) == 64, "as the kernel has it");

static int refuse_flags(const struct on_disk *disk, const char *name, struct error *err)
{
	uint32_t flags = le32toh(disk->flags);

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (flags & refused[i].flag)
			return error_set(err, ENOTSUP, "%s: integrity: %s: not supported", name,
					 refused[i].name);
	if (flags & ~FLAG_FIXED_PADDING)
		return error_set(err, ENOTSUP, "%s: integrity: flags 0x%" PRIx32 ": not supported",
				 name, flags);
	if (disk->version != 1 && disk->version != 4)
		return error_set(err, ENOTSUP, "%s: integrity: version %u: not supported", name,
				 disk->version);
	if (disk->version != 4 && (flags & FLAG_FIXED_PADDING))
		return error_set(err, EINVAL,
				 "%s: integrity: the superblock's version and flags don't fit "
				 "together",
				 name);
	return 0;
}

int superblock_read(const uint8_t *bytes, const char *name, struct superblock *superblock,
		    struct error *err)
{
	struct on_disk disk;
	int ret;

	memcpy(&disk, bytes, sizeof(disk));
	if (memcmp(disk.magic, MAGIC, sizeof(disk.magic)) != 0)
		return error_set(err, EINVAL, "%s: integrity: there is no superblock", name);
	ret = refuse_flags(&disk, name, err);
	if (ret < 0)
		return ret;
	if (disk.log2_interleave < MIN_INTERLEAVE || disk.log2_interleave > MAX_INTERLEAVE ||
	    disk.log2_block_sectors > 3 || disk.tag_size == 0 || disk.journal_sections == 0)
		return error_set(err, EINVAL,
				 "%s: integrity: the superblock says something impossible", name);
	*superblock = (struct superblock){
		.tag_size = le16toh(disk.tag_size),
		.block = LAYOUT_SECTOR << disk.log2_block_sectors,
		.log2_interleave = disk.log2_interleave,
		.journal_sections = le32toh(disk.journal_sections),
		.provided_sectors = le64toh(disk.provided_sectors),
		.fixed_padding = le32toh(disk.flags) & FLAG_FIXED_PADDING,
	};
	return 0;
}

void superblock_write(const struct superblock *superblock, uint8_t *bytes)
{
	struct on_disk disk = {
		.version = superblock->fixed_padding ? 4 : 1,
		.log2_interleave = superblock->log2_interleave,
		.tag_size = htole16(superblock->tag_size),
		.journal_sections = htole32(superblock->journal_sections),
		.provided_sectors = htole64(superblock->provided_sectors),
		.flags = htole32(superblock->fixed_padding ? FLAG_FIXED_PADDING : 0),
	};

	while ((unsigned)LAYOUT_SECTOR << disk.log2_block_sectors < superblock->block)
		disk.log2_block_sectors++;
	memcpy(disk.magic, MAGIC, sizeof(disk.magic));
	memset(bytes, 0, SUPERBLOCK_AREA);
	memcpy(bytes, &disk, sizeof(disk));
}

/* ---- where it lies ---- */

/* All but the number of data; false where an entry doesn't fit into a sector. */
static bool lay_out(const struct superblock *superblock, struct layout *layout)
{
	uint64_t interleave = UINT64_C(1) << superblock->log2_interleave;
	unsigned sectors = superblock->block / LAYOUT_SECTOR;

	*layout = (struct layout){
		.tag_size = superblock->tag_size,
		.block = superblock->block,
		.block_sectors = sectors,
		.entry_len = round_up(8 + LAST_BYTES * sectors + superblock->tag_size, ENTRY_ROUND),
		.sections = superblock->journal_sections,
		.area_data = interleave * LAYOUT_SECTOR,
		.area_blocks = interleave / sectors,
	};
	layout->entries = JOURNAL_META_SPACE / layout->entry_len * JOURNAL_META;
	layout->section_sectors = JOURNAL_META + layout->entries * sectors;
	layout->section_len = (uint64_t)layout->section_sectors * LAYOUT_SECTOR;
	/* 2^32 sections of less than 2^19 bytes, 2^31 tags of less than 2^16: far from 2^64. */
	layout->areas_at = SUPERBLOCK_AREA + layout->sections * layout->section_len;
	layout->area_tags = round_up(layout->area_blocks * layout->tag_size,
				     superblock->fixed_padding ? FIXED_PADDING : OLD_PADDING);
	return layout->entries > 0;
}

/* Do so many sectors of data fit? Of the last area there is only what it has. */
static bool holds(const struct layout *layout, uint64_t sectors, uint64_t room)
{
	uint64_t last = (sectors - 1) * LAYOUT_SECTOR;
	uint64_t areas = last / layout->area_data + 1;
	uint64_t before;

	return room > layout->areas_at &&
	       !__builtin_mul_overflow(areas, layout->area_tags, &before) &&
	       !__builtin_add_overflow(before, last, &before) &&
	       room - layout->areas_at >= LAYOUT_SECTOR &&
	       before <= room - layout->areas_at - LAYOUT_SECTOR;
}

int layout_make(const struct superblock *superblock, uint64_t room, const char *name,
		struct layout *layout, struct error *err)
{
	uint64_t sectors = superblock->provided_sectors;

	if (!lay_out(superblock, layout))
		return error_set(err, EINVAL, "%s: integrity: tags of %u bytes don't fit", name,
				 superblock->tag_size);
	if (layout->sections * layout->section_len > MOST_JOURNAL)
		return error_set(err, ENOTSUP,
				 "%s: integrity: a journal of more than 4 GiB: not supported",
				 name);
	if (sectors == 0 || sectors > INT64_MAX / LAYOUT_SECTOR ||
	    sectors % layout->block_sectors || !holds(layout, sectors, room))
		return error_set(err, EINVAL,
				 "%s: integrity: %" PRIu64
				 " sectors of data don't fit into %" PRIu64 " bytes",
				 name, sectors, room);
	layout->size = sectors * LAYOUT_SECTOR;
	return 0;
}

int superblock_make(struct superblock *superblock, unsigned block, unsigned tag_size, uint64_t room,
		    const char *name, struct error *err)
{
	uint64_t journal = min_u64(room / LAYOUT_SECTOR / JOURNAL_SHARE, MAX_JOURNAL);
	struct layout layout;

	*superblock = (struct superblock){
		.tag_size = tag_size,
		.block = block,
		.log2_interleave = USUAL_INTERLEAVE,
		.journal_sections = 1,
		.fixed_padding = true,
	};
	if (!lay_out(superblock, &layout))
		return error_set(err, EINVAL, "%s: integrity: tags of %u bytes don't fit", name,
				 tag_size);
	superblock->journal_sections = max_u64(journal / layout.section_sectors, 1);
	lay_out(superblock, &layout);
	for (int bit = 54; bit >= LEAST_LOG2_DATA; bit--) {
		uint64_t more = superblock->provided_sectors | UINT64_C(1) << bit;

		if (holds(&layout, more, room))
			superblock->provided_sectors = more;
	}
	if (superblock->provided_sectors == 0)
		return error_set(err, ENOSPC, "%s: too small for integrity: %" PRIu64 " bytes",
				 name, room);
	return 0;
}

uint64_t layout_data_at(const struct layout *layout, uint64_t offset)
{
	uint64_t area = offset / layout->area_data;

	assert(offset < layout->size);
	return layout->areas_at + (area + 1) * layout->area_tags + offset;
}

uint64_t layout_tag_at(const struct layout *layout, uint64_t offset)
{
	uint64_t area = offset / layout->area_data;
	uint64_t block = offset % layout->area_data / layout->block;

	assert(offset < layout->size);
	return layout->areas_at + area * (layout->area_data + layout->area_tags) +
	       block * layout->tag_size;
}

uint64_t layout_section_at(const struct layout *layout, uint32_t section)
{
	assert(section < layout->sections);
	return SUPERBLOCK_AREA + section * layout->section_len;
}

unsigned layout_entry_data(const struct layout *layout, unsigned entry)
{
	assert(entry < layout->entries);
	return JOURNAL_META + entry * layout->block_sectors;
}
