#include "terminal/partition-table.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#define SMALL 512
#define LARGE 4096

#define MBR_ENTRIES    4
#define MBR_PROTECTIVE 0xee /* of a GPT */

struct mbr_entry {
	uint8_t status; /* 0x80: active */
	uint8_t first_chs[3];
	uint8_t type;
	uint8_t last_chs[3];
	uint32_t start, count; /* sectors, little-endian */
} __attribute__((packed));

static bool is_gpt(const uint8_t *first, size_t len, unsigned sector)
{
	static const char signature[] = { 'E', 'F', 'I', ' ', 'P', 'A', 'R', 'T' };

	return len >= sector + sizeof(signature) &&
	       memcmp(first + sector, signature, sizeof(signature)) == 0;
}

/* How many sectors its partitions reach over; 0: it is none, but perhaps a boot sector. */
static uint64_t mbr_end(const uint8_t *first, size_t len)
{
	struct mbr_entry entries[MBR_ENTRIES];
	uint64_t all = 0, end;

	if (len < SMALL || first[510] != 0x55 || first[511] != 0xaa)
		return 0;
	memcpy(entries, first + 446, sizeof(entries));
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		if ((entries[i].status & 0x7f) || entries[i].type == MBR_PROTECTIVE)
			return 0;
		end = (uint64_t)le32toh(entries[i].start) + le32toh(entries[i].count);
		if (entries[i].type && end > all)
			all = end;
	}
	return all;
}

/* An MBR doesn't say it: what reaches over the end in large sectors counts in small ones. */
unsigned partition_table_sector(const void *first, size_t len, uint64_t size)
{
	uint64_t end;

	if (is_gpt(first, len, SMALL))
		return SMALL;
	if (is_gpt(first, len, LARGE))
		return LARGE;
	end = mbr_end(first, len);
	return end && size != UINT64_MAX && end <= size / SMALL && end > size / LARGE ? SMALL : 0;
}
