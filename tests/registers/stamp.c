/* What is written: each sector says whose it is, and the rest of it follows from that. */
#include <string.h>

#include "registers.h"

#define MAGIC UINT64_C(0x726574736967655a)

struct sector {
	uint64_t magic;
	struct stamp stamp;
	uint64_t rest[(SECTOR - 8 - sizeof(struct stamp)) / 8];
};
_Static_assert(sizeof(struct sector) == SECTOR, "a sector is whole");

static void make(struct sector *sector, const struct stamp *stamp)
{
	uint64_t random = stamp->run ^ stamp->version << 32 ^ stamp->block << 8 ^ stamp->sector;

	random |= 1;
	sector->magic = MAGIC;
	sector->stamp = *stamp;
	for (unsigned i = 0; i < sizeof(sector->rest) / sizeof(sector->rest[0]); i++)
		sector->rest[i] = random_next(&random);
}

void stamp_write(uint8_t *block_data, uint64_t run, uint64_t block, uint64_t version,
		 unsigned writer)
{
	struct stamp stamp = { run, block, version, writer, 0 };

	for (; stamp.sector < options.block / SECTOR; stamp.sector++) {
		struct sector sector;

		make(&sector, &stamp);
		memcpy(block_data + stamp.sector * SECTOR, &sector, SECTOR);
	}
}

enum content stamp_read(const uint8_t *data, uint64_t run, uint64_t block, unsigned sector,
			struct stamp *stamp)
{
	static const uint8_t zeroes[SECTOR];
	struct sector got, wanted;

	memcpy(&got, data, SECTOR);
	*stamp = got.stamp;
	if (memcmp(data, zeroes, SECTOR) == 0)
		return CONTENT_ZEROES;
	if (got.magic != MAGIC)
		return CONTENT_GARBAGE;
	make(&wanted, stamp);
	if (memcmp(&got, &wanted, SECTOR) != 0)
		return CONTENT_TORN;
	if (stamp->run != run || stamp->block != block || stamp->sector != sector)
		return CONTENT_FOREIGN;
	return CONTENT_STAMP;
}
