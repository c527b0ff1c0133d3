#include "torn-disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct torn_write {
	size_t sector;
	bool safe;
	uint8_t bytes[TORN_SECTOR];
};

uint64_t torn_random(uint64_t *random)
{
	uint64_t x = *random += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

void torn_disk_init(struct torn_disk *disk, size_t size)
{
	*disk = (struct torn_disk){ .size = size };
	disk->now = calloc(1, size);
	disk->safe = calloc(1, size);
	assert(disk->now && disk->safe);
}

void torn_disk_copy(struct torn_disk *to, const struct torn_disk *from)
{
	torn_disk_init(to, from->size);
	memcpy(to->now, from->now, from->size);
	memcpy(to->safe, from->safe, from->size);
	to->writes = malloc(from->room * sizeof(*to->writes) + 1);
	assert(to->writes);
	to->room = from->room;
	to->count = from->count;
	if (from->count)
		memcpy(to->writes, from->writes, from->count * sizeof(*to->writes));
}

void torn_disk_free(struct torn_disk *disk)
{
	free(disk->now);
	free(disk->safe);
	free(disk->writes);
	*disk = (struct torn_disk){ 0 };
}

static void add(struct torn_disk *disk, size_t sector)
{
	if (disk->count == disk->room) {
		disk->room = disk->room ? 2 * disk->room : 64;
		disk->writes = realloc(disk->writes, disk->room * sizeof(*disk->writes));
		assert(disk->writes);
	}
	disk->writes[disk->count].sector = sector;
	disk->writes[disk->count].safe = false;
	memcpy(disk->writes[disk->count++].bytes, disk->now + sector * TORN_SECTOR, TORN_SECTOR);
}

void torn_disk_write(struct torn_disk *disk, size_t at, const void *bytes, size_t len)
{
	assert(at + len <= disk->size && len > 0);
	memcpy(disk->now + at, bytes, len);
	for (size_t i = at / TORN_SECTOR; i <= (at + len - 1) / TORN_SECTOR; i++)
		add(disk, i);
}

void torn_disk_read(const struct torn_disk *disk, size_t at, void *bytes, size_t len)
{
	assert(at + len <= disk->size);
	memcpy(bytes, disk->now + at, len);
}

size_t torn_disk_mark(const struct torn_disk *disk)
{
	return disk->count;
}

/* Writes that are safe stay in the list, in their order: the marks are places in it. */
static void make_safe(struct torn_disk *disk, struct torn_write *write)
{
	if (write->safe)
		return;
	write->safe = true;
	memcpy(disk->safe + write->sector * TORN_SECTOR, write->bytes, TORN_SECTOR);
}

void torn_disk_flush(struct torn_disk *disk, size_t mark)
{
	for (size_t i = 0; i < mark; i++)
		make_safe(disk, &disk->writes[i]);
}

void torn_disk_force(struct torn_disk *disk, size_t at, size_t len, size_t mark)
{
	for (size_t i = 0; i < mark; i++)
		if (disk->writes[i].sector >= at / TORN_SECTOR &&
		    disk->writes[i].sector <= (at + len - 1) / TORN_SECTOR)
			make_safe(disk, &disk->writes[i]);
}

void torn_disk_cut(struct torn_disk *disk, enum torn kind, uint64_t *random)
{
	size_t first = disk->count ? torn_random(random) % (disk->count + 1) : 0;

	for (size_t i = 0; i < disk->count; i++)
		if (kind == TORN_ALL || (kind == TORN_FIRST && i < first) ||
		    (kind == TORN_RANDOM && torn_random(random) % 2))
			make_safe(disk, &disk->writes[i]);
	memcpy(disk->now, disk->safe, disk->size);
	disk->count = 0;
}
