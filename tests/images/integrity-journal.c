/* integrity-journal COMMAND IMAGE OFFSET [SEED CUT]: the journal of a LUKS2 volume with integrity, in an
 * image whose segment begins at OFFSET, by the journal's own code and nothing else: for tests that
 * compare with what a kernel makes of the same bytes.
 *
 *   areas   where the journal ends, in bytes of the segment
 *   show    what would be done with it
 *   replay  does that, and closes it
 *   write   writes blocks of random bytes, tags too, and flushes now and then; and ends at once,
 *           after CUT writes to the image */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "integrity/journal-recover.h"
#include "integrity/journal.h"
#include "integrity/layout.h"

#define BUFFERS 5 /* sections in memory: fewer than there are */

static int image;
static uint64_t at;
static struct layout layout;
static struct journal journal;
static uint8_t *memory;
static long cut = -1; /* writes that are left; -1: no end */

static void get(uint64_t offset, void *bytes, size_t len)
{
	if (pread(image, bytes, len, at + offset) != (ssize_t)len)
		err(1, "reading");
}

static void put(uint64_t offset, const void *bytes, size_t len)
{
	if (cut >= 0 && cut-- == 0)
		exit(0);
	if (pwrite(image, bytes, len, at + offset) != (ssize_t)len)
		err(1, "writing");
}

static void open_image(const char *path, bool to_write)
{
	uint8_t bytes[SUPERBLOCK_LEN];
	struct superblock superblock;
	struct error why;
	struct stat st;

	image = open(path, to_write ? O_RDWR : O_RDONLY);
	if (image < 0 || fstat(image, &st) < 0)
		err(1, "%s", path);
	get(0, bytes, sizeof(bytes));
	if (superblock_read(bytes, path, &superblock, &why) < 0 ||
	    layout_make(&superblock, st.st_size - at, path, &layout, &why) < 0)
		errx(1, "%s", why.text);
}

static void open_journal(const char *path)
{
	unsigned buffers = layout.sections < BUFFERS ? layout.sections : BUFFERS;

	memory = calloc(buffers, layout.section_len);
	if (!memory || journal_init(&journal, &layout, path, memory, buffers) < 0)
		errx(1, "no memory");
}

/* ---- acts ---- */

static void copy(const struct journal_work *work)
{
	for (size_t i = 0; i < work->block_count; i++) {
		uint64_t offset = work->blocks[i].sector * LAYOUT_SECTOR;

		put(layout_data_at(&layout, offset), work->blocks[i].data, layout.block);
		put(layout_tag_at(&layout, offset), work->blocks[i].tag, layout.tag_size);
	}
}

static bool act(void)
{
	struct journal_work work;
	enum journal_act act = journal_next(&journal, &work);

	switch (act) {
	case JOURNAL_READ:
		get(layout_section_at(&layout, work.section), work.bytes,
		    work.count * layout.section_len);
		break;
	case JOURNAL_WRITE:
		put(layout_section_at(&layout, work.section), work.bytes,
		    work.count * layout.section_len);
		break;
	case JOURNAL_COPY:
		copy(&work);
		break;
	case JOURNAL_FLUSH:
		break;
	case JOURNAL_NOTHING:
		return false;
	}
	journal_landed(&journal, act, 0);
	if (journal.state == JOURNAL_FAILED)
		errx(1, "%s", journal.why.text);
	return true;
}

static void act_all(void)
{
	while (act())
		continue;
}

/* ---- commands ---- */

static int read_image(void *disk, uint64_t offset, void *bytes, size_t len)
{
	(void)disk;
	get(offset, bytes, len);
	return 0;
}

static int write_image(void *disk, uint64_t offset, const void *bytes, size_t len, bool fua)
{
	(void)disk;
	(void)fua;
	put(offset, bytes, len);
	return 0;
}

static int flush_image(void *disk)
{
	(void)disk;
	return 0;
}

static const char *no_reason(void *disk, int errnum)
{
	(void)disk;
	return strerror(errnum);
}

static void replay(const char *path)
{
	const struct journal_io io = {
		read_image, write_image, flush_image, no_reason, NULL, path,
	};
	struct error why;

	if (journal_recover(&io, &layout, &why) < 0)
		errx(1, "%s", why.text);
	if (journal_is_left(&io, &layout, &why) != 0)
		errx(1, "something is left");
}

static void show(const char *path)
{
	open_journal(path);
	while (journal.state == JOURNAL_READING)
		act();
	printf("sections=%" PRIu32 " entries=%u start=%" PRIu32 " seq=%u take=%" PRIu32
	       " erase=%d next=%" PRIu32 " next_seq=%u\n",
	       layout.sections, layout.entries, journal.plan.start, journal.plan.seq,
	       journal.plan.take, journal.plan.erase, journal.plan.next, journal.plan.next_seq);
}

static uint64_t random_next(uint64_t *random)
{
	uint64_t x = *random += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static void write_block(uint64_t sector, uint64_t *random)
{
	uint8_t data[4096], tag[256];
	uint32_t entry;
	int ret;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = random_next(random);
	for (size_t i = 0; i < sizeof(tag); i++)
		tag[i] = random_next(random);
	while ((ret = journal_reserve(&journal, sector, 1, &entry)) == 0)
		act_all();
	if (ret < 0)
		errx(1, "reserving: %s", strerror(-ret));
	journal_fill(&journal, entry, data, tag);
	journal_filled(&journal, entry, 1);
}

/* Sectors that aren't far apart, so that many are written again. */
static void write_all(uint64_t random)
{
	uint64_t blocks = layout.size / layout.block;

	act_all();
	for (;;) {
		uint64_t first = random_next(&random) % blocks;
		unsigned count = random_next(&random) % (2 * layout.entries) + 1;

		for (unsigned i = 0; i < count; i++)
			write_block((first + i % 64) % blocks * layout.block_sectors, &random);
		if (random_next(&random) % 3 == 0)
			journal_flush(&journal);
		act_all();
	}
}

int main(int argc, char **argv)
{
	if (argc != 4 && !(argc == 6 && strcmp(argv[1], "write") == 0))
		errx(2, "usage: integrity-journal areas|show|replay|write IMAGE OFFSET [SEED CUT]");
	at = strtoull(argv[3], NULL, 0);
	open_image(argv[2], argc == 6 || strcmp(argv[1], "replay") == 0);
	if (strcmp(argv[1], "areas") == 0) {
		printf("%" PRIu64 "\n", layout.areas_at);
	} else if (strcmp(argv[1], "show") == 0) {
		show(argv[2]);
	} else if (strcmp(argv[1], "replay") == 0) {
		replay(argv[2]);
	} else {
		open_journal(argv[2]);
		cut = strtol(argv[5], NULL, 0);
		write_all(strtoull(argv[4], NULL, 0));
	}
	journal_destroy(&journal);
	free(memory);
	return 0;
}
