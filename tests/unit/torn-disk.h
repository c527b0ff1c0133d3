/* torn-disk: a disk in memory whose power is cut: of what was written and not flushed, any sectors are
 * there then. Each sector is either as it was before or as one of the writes left it. */
#ifndef NDIO_TESTS_TORN_DISK_H
#define NDIO_TESTS_TORN_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TORN_SECTOR 512

struct torn_write;

struct torn_disk {
	uint8_t *now, *safe; /* as it is read; as it would be if nothing more got there */
	size_t size;         /* bytes: whole sectors */
	struct torn_write *writes;
	size_t count, room;
};

/* What of the rest is there after a cut. */
enum torn {
	TORN_NOTHING,
	TORN_ALL,
	TORN_FIRST,  /* of the writes in their order, the first so many */
	TORN_RANDOM, /* any */
};
#define TORN_KINDS 4

void torn_disk_init(struct torn_disk *disk, size_t size);
void torn_disk_copy(struct torn_disk *to, const struct torn_disk *from);
void torn_disk_free(struct torn_disk *disk);

/* Bytes need no alignment: what is around them in their sectors is as it is now. */
void torn_disk_write(struct torn_disk *disk, size_t at, const void *bytes, size_t len);
void torn_disk_read(const struct torn_disk *disk, size_t at, void *bytes, size_t len);

/* A number of all writes so far; and those are safe now. With FUA, that of a range. */
size_t torn_disk_mark(const struct torn_disk *disk);
void torn_disk_flush(struct torn_disk *disk, size_t mark);
void torn_disk_force(struct torn_disk *disk, size_t at, size_t len, size_t mark);

void torn_disk_cut(struct torn_disk *disk, enum torn kind, uint64_t *random);

uint64_t torn_random(uint64_t *random);

#endif
