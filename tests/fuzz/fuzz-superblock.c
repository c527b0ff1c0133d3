/* Superblocks of dm-integrity, on a disk of any size: the first 8 bytes are that, the rest the superblock.
 * What is accepted lies on the disk, in order, and is written as it was read. */
#include "fuzz.h"
#include "integrity/layout.h"

static void check_places(const struct layout *layout, uint64_t room)
{
	uint64_t last = layout->size - layout->block;
	uint64_t data = layout_data_at(layout, last), tag = layout_tag_at(layout, last);

	fuzz_check(layout->size > 0 && layout->size % layout->block == 0);
	fuzz_check(layout_section_at(layout, layout->sections - 1) + layout->section_len <=
		   layout_tag_at(layout, 0));
	fuzz_check(tag + layout->tag_size <= data);
	fuzz_check(data <= room && room - data >= layout->block);
	fuzz_check(layout_entry_data(layout, layout->entries - 1) + layout->block_sectors ==
		   layout->section_sectors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct superblock superblock, again;
	uint8_t written[SUPERBLOCK_AREA], rewritten[SUPERBLOCK_AREA];
	struct error err = { "" };
	struct layout layout;
	uint64_t room;
	uint8_t *bytes;

	if (size < sizeof(room) + SUPERBLOCK_LEN)
		return 0;
	memcpy(&room, data, sizeof(room));
	bytes = fuzz_copy(data + sizeof(room), SUPERBLOCK_LEN);
	if (superblock_read(bytes, "disk", &superblock, &err) == 0) {
		superblock_write(&superblock, written);
		fuzz_check(superblock_read(written, "disk", &again, &err) == 0);
		superblock_write(&again, rewritten);
		fuzz_check(memcmp(written, rewritten, sizeof(written)) == 0);
		if (layout_make(&superblock, room, "disk", &layout, &err) == 0)
			check_places(&layout, room);
		else
			fuzz_check(err.text[0]);
	} else {
		fuzz_check(err.text[0]);
	}
	free(bytes);
	return 0;
}
