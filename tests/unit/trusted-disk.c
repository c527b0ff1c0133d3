#include "trusted-disk.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/align.h"
#include "engine/subrequest.h"
#include "integrity/areas.h"
#include "integrity/journal-section.h"
#include "integrity/target-integrity.h"

#define START      4096        /* of the segment */
#define MOST       TRUSTED_RUN /* blocks of one write */
#define INTERLEAVE 8           /* 2^8 sectors an area; */
#define SMALL      3           /* or 2^3 */
#define SECTIONS   4

/* ---- the trust file ---- */

static int file_read(void *opaque, uint64_t at, void *bytes, size_t len)
{
	struct trusted_disk *disk = opaque;
	size_t here = at < disk->file.size ? min_u64(len, disk->file.size - at) : 0;

	memset(bytes, 0, len);
	if (here)
		torn_disk_read(&disk->file, at, bytes, here);
	return 0;
}

static bool file_is_cut(struct trusted_disk *disk)
{
	if (disk->by_server)
		return false;
	disk->is_cut = disk->is_cut || disk->left == 0;
	if (disk->left >= 0)
		disk->left--;
	return disk->is_cut;
}

static int file_write(void *opaque, uint64_t at, const void *bytes, size_t len)
{
	struct trusted_disk *disk = opaque;

	if (disk->is_cut && !disk->by_server)
		return -EIO;
	torn_disk_write(&disk->file, at, bytes, len);
	return file_is_cut(disk) ? -EIO : 0;
}

static int file_sync(void *opaque)
{
	struct trusted_disk *disk = opaque;

	if (file_is_cut(disk))
		return -EIO;
	torn_disk_flush(&disk->file, torn_disk_mark(&disk->file));
	disk->file.count = 0;
	return 0;
}

static struct trust_io io_of_file(struct trusted_disk *disk)
{
	return (struct trust_io){
		.read = file_read,
		.write = file_write,
		.sync = file_sync,
		.file = disk,
		.name = "disk.trust",
	};
}

/* ---- blocks ---- */

static void make_block(unsigned block, uint32_t version, uint8_t *data)
{
	for (unsigned i = 0; i < TRUSTED_BLOCK / 8; i++) {
		uint32_t words[] = { block ^ i << 20, version };

		memcpy(data + i * 8, words, 8);
	}
}

/* By FNV, which asks for no memory: nobody here makes two blocks of one tag. */
static void make_tag(unsigned block, const uint8_t *data, uint8_t *tag)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325) ^ block;

	for (unsigned i = 0; i < TRUSTED_BLOCK + TRUSTED_TAG; i++) {
		sum = (sum ^ (i < TRUSTED_BLOCK ? data[i] : i)) * UINT64_C(0x100000001b3);
		if (i >= TRUSTED_BLOCK)
			tag[i - TRUSTED_BLOCK] = sum >> 32;
	}
}

static int64_t run_sub(struct trusted_disk *disk, struct ndio_subrequest *sub)
{
	const struct target_ops *ops = disk->target->ops;
	struct ndio_subrequest *landed = NULL;

	ops->issue(disk->queue, sub);
	while (!landed)
		landed = ops->poll(disk->queue, true, -1);
	assert_ptr_equal(landed, sub);
	return sub->result;
}

/* It may be done in parts. */
static int run_all(struct trusted_disk *disk, enum op op, unsigned block, unsigned count,
		   uint8_t *data, uint8_t *tags, bool fua)
{
	for (unsigned done = 0; done < count;) {
		struct ndio_subrequest sub = {
			.op = op,
			.flags = fua ? REQ_FUA : 0,
			.start = (uint64_t)(block + done) * TRUSTED_BLOCK,
			.len = (uint64_t)(count - done) * TRUSTED_BLOCK,
			.io_base = data + (size_t)done * TRUSTED_BLOCK,
			.tags = tags + (size_t)done * TRUSTED_TAG,
		};
		int64_t ret = run_sub(disk, &sub);

		if (ret < 0)
			return ret;
		assert_true(ret > 0 && ret % TRUSTED_BLOCK == 0);
		done += ret / TRUSTED_BLOCK;
	}
	return 0;
}

int trusted_disk_write(struct trusted_disk *disk, unsigned block, unsigned count, bool fua)
{
	uint8_t data[MOST * TRUSTED_BLOCK], tags[MOST * TRUSTED_TAG];
	int ret;

	for (unsigned i = 0; i < count; i++) {
		make_block(block + i, ++disk->written[block + i], data + i * TRUSTED_BLOCK);
		make_tag(block + i, data + i * TRUSTED_BLOCK, tags + i * TRUSTED_TAG);
	}
	ret = run_all(disk, OP_WRITE, block, count, data, tags, fua);
	for (unsigned i = 0; ret == 0 && fua && i < count; i++)
		disk->flushed[block + i] = disk->written[block + i];
	return ret;
}

int trusted_disk_flush(struct trusted_disk *disk)
{
	struct ndio_subrequest sub = { .op = OP_FLUSH };
	int ret = run_sub(disk, &sub);

	if (ret == 0)
		memcpy(disk->flushed, disk->written, sizeof(disk->flushed));
	return ret;
}

int64_t trusted_disk_read(struct trusted_disk *disk, unsigned block)
{
	uint8_t data[TRUSTED_BLOCK], wanted[TRUSTED_BLOCK], tag[TRUSTED_TAG], right[TRUSTED_TAG];
	uint32_t version;
	int ret = run_all(disk, OP_READ, block, 1, data, tag, false);

	if (ret < 0)
		return ret;
	make_tag(block, data, right);
	if (memcmp(tag, right, TRUSTED_TAG) != 0)
		return -EILSEQ;
	memcpy(&version, data + 4, sizeof(version));
	make_block(block, version, wanted);
	assert_memory_equal(data, wanted, TRUSTED_BLOCK);
	return version;
}

void trusted_disk_read_run(struct trusted_disk *disk, unsigned block, unsigned count,
			   const int64_t *versions)
{
	uint8_t data[MOST * TRUSTED_BLOCK], tags[MOST * TRUSTED_TAG];
	uint8_t wanted[TRUSTED_BLOCK], tag[TRUSTED_TAG];

	assert_in_range(count, 1, MOST);
	assert_int_equal(run_all(disk, OP_READ, block, count, data, tags, false), 0);
	for (unsigned i = 0; i < count; i++) {
		make_block(block + i, versions[i], wanted);
		make_tag(block + i, wanted, tag);
		assert_memory_equal(data + i * TRUSTED_BLOCK, wanted, TRUSTED_BLOCK);
		assert_memory_equal(tags + i * TRUSTED_TAG, tag, TRUSTED_TAG);
	}
}

/* ---- made, opened, closed ---- */

static void count_notice(void *opaque, const char *text)
{
	struct trusted_disk *disk = opaque;

	(void)text;
	disk->told++;
}

int trusted_disk_open(struct trusted_disk *disk)
{
	struct trust_io io = io_of_file(disk);
	struct target_integrity_options options = {
		.start = START,
		.room = disk->disk.size - START,
		.block = TRUSTED_BLOCK,
		.tag_size = TRUSTED_TAG,
		.cache = disk->cache,
		.recover = !disk->readonly,
		.over_journal = disk->readonly,
		.journal = disk->journal && !disk->readonly,
		.notice = { count_notice, disk },
		.trust = disk->untrusted ? NULL : &disk->trust,
		.trust_read_only = disk->readonly,
	};
	int ret;

	disk->target = NULL;
	ret = trust_open(&disk->trust, &io, &disk->err);
	if (ret < 0)
		return ret;
	torn_target_init(&disk->below, &disk->disk, &disk->left, &disk->is_cut);
	disk->below.target.readonly = disk->readonly;
	if (disk->takes)
		disk->below.target.max_len = disk->takes;
	if (disk->spares)
		disk->below.target.max_queues = UINT_MAX;
	ret = target_integrity_open(&disk->below.target, &options, &disk->target, &disk->err);
	if (ret < 0) {
		disk->below.target.ops->close(&disk->below.target);
		disk->target = NULL;
		trust_destroy(&disk->trust);
		return ret;
	}
	disk->queue =
		disk->target->ops->queue_open(disk->target, 4, (struct bvec){ 0 }, &disk->err);
	if (disk->queue)
		return 0;
	disk->target->ops->close(disk->target);
	trust_destroy(&disk->trust);
	return -ENOMEM;
}

void trusted_disk_close(struct trusted_disk *disk)
{
	disk->target->ops->queue_close(disk->queue);
	disk->target->ops->close(disk->target);
	if (disk->trust.changed)
		trust_checkpoint(&disk->trust, &disk->err);
	trust_destroy(&disk->trust);
	disk->target = NULL;
}

void trusted_disk_kill(struct trusted_disk *disk)
{
	disk->is_cut = true;
	disk->by_server = false;
	trusted_disk_close(disk);
}

static void fill_disk(struct trusted_disk *disk)
{
	const struct layout *layout = &disk->layout;
	uint8_t data[TRUSTED_BLOCK], tag[TRUSTED_TAG];
	uint8_t *section = malloc(layout->section_len);

	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++) {
		uint64_t offset = (uint64_t)i * TRUSTED_BLOCK;

		make_block(i, 1, data);
		make_tag(i, data, tag);
		memcpy(disk->disk.now + START + layout_data_at(layout, offset), data, sizeof(data));
		memcpy(disk->disk.now + START + layout_tag_at(layout, offset), tag, sizeof(tag));
		disk->written[i] = disk->flushed[i] = 1;
	}
	for (uint32_t i = 0; i < layout->sections; i++) {
		journal_section_clear(layout, section, true);
		journal_section_seal(layout, section, i, 0);
		memcpy(disk->disk.now + START + layout_section_at(layout, i), section,
		       layout->section_len);
	}
	free(section);
	memcpy(disk->disk.safe, disk->disk.now, disk->disk.size);
}

static void make_file(struct trusted_disk *disk)
{
	struct trust_volume volume = {
		.uuid = "uuid",
		.size = disk->layout.size,
		.area_len = disk->layout.area_data,
		.block = TRUSTED_BLOCK,
		.tag_size = TRUSTED_TAG,
	};
	struct trust_io io = io_of_file(disk);

	torn_disk_init(&disk->file, TRUSTED_TRUST);
	assert_int_equal(trust_make(&io, &volume, "{}", &disk->err), 0);
}

static void make_trust(struct trusted_disk *disk)
{
	make_file(disk);
	assert_int_equal(trusted_disk_open(disk), 0);
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++)
		assert_int_equal(trusted_disk_read(disk, i), 1);
	trusted_disk_close(disk);
}

static void make_disk_of(struct trusted_disk *disk, bool journal, unsigned log2_interleave)
{
	struct superblock superblock = {
		.tag_size = TRUSTED_TAG,
		.block = TRUSTED_BLOCK,
		.log2_interleave = log2_interleave,
		.journal_sections = SECTIONS,
		.provided_sectors = TRUSTED_BLOCKS,
		.fixed_padding = true,
	};
	uint64_t size = 2 << 20;

	*disk = (struct trusted_disk){ .journal = journal, .left = -1, .cache = TAG_CHUNK };
	assert_int_equal(layout_make(&superblock, size - START, "disk", &disk->layout, &disk->err),
			 0);
	torn_disk_init(&disk->disk, size);
	superblock_write(&superblock, disk->disk.now + START);
	fill_disk(disk);
	make_trust(disk);
}

void trusted_disk_init(struct trusted_disk *disk, bool journal)
{
	make_disk_of(disk, journal, INTERLEAVE);
}

void trusted_disk_init_small(struct trusted_disk *disk)
{
	make_disk_of(disk, false, SMALL);
}

void trusted_disk_forget(struct trusted_disk *disk)
{
	torn_disk_free(&disk->file);
	make_file(disk);
}

void trusted_disk_free(struct trusted_disk *disk)
{
	assert_null(disk->target);
	torn_disk_free(&disk->disk);
	torn_disk_free(&disk->file);
}

/* ---- what is done, and what may be found ---- */

void trusted_disk_walk(struct trusted_disk *disk, unsigned steps, uint64_t *random)
{
	for (; steps > 0 && !disk->is_cut; steps--) {
		unsigned count = 1 + torn_random(random) % MOST;
		unsigned block = torn_random(random) % (TRUSTED_BLOCKS - count);
		int64_t ret;

		switch (torn_random(random) % 8) {
		case 0:
			ret = trusted_disk_flush(disk);
			break;
		case 1:
			ret = trusted_disk_write(disk, block, count, true);
			break;
		case 2:
			ret = trusted_disk_read(disk, block);
			if (!disk->is_cut)
				assert_int_equal(ret, disk->written[block]);
			break;
		default:
			/* Some blocks again and again. */
			if (torn_random(random) % 2)
				block = 250 + block % 20;
			ret = trusted_disk_write(disk, block, count, false);
			break;
		}
		assert_true(ret >= 0 || disk->is_cut);
	}
}

void trusted_disk_check(struct trusted_disk *disk)
{
	for (unsigned i = 0; i < TRUSTED_BLOCKS; i++) {
		bool in_doubt = disk->written[i] != disk->flushed[i];
		int64_t version = trusted_disk_read(disk, i);

		if (version == -EILSEQ && in_doubt && !disk->journal) {
			assert_int_equal(trusted_disk_write(disk, i, 1, false), 0);
			version = disk->written[i];
		}
		if (version < disk->flushed[i] || version > disk->written[i])
			fail_msg("block %u is in version %ld: it was written up to %u, and flushed "
				 "up to %u",
				 i, (long)version, disk->written[i], disk->flushed[i]);
		disk->written[i] = version;
	}
	assert_int_equal(trusted_disk_flush(disk), 0);
}
