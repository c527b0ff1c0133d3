/* A volume with integrity and a journal, through the engine, on a disk whose power is cut at every write:
 * what was flushed is there, each block is as one of the writes left it, and all can be read.
 *
 * Operations in threes; of what was written and not flushed any sectors are there after the cut. Then
 * the volume is opened, which may be cut off, too, and once more. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/bounce.h"
#include "engine/channel.h"
#include "engine/subrequest.h"
#include "fake-target.h"
#include "integrity/journal-section.h"
#include "integrity/tagged-cipher.h"
#include "integrity/target-integrity.h"
#include "memory/secret.h"
#include "torn-disk.h"

#define BLOCK    512
#define BLOCKS   100
#define SIZE     (BLOCKS * BLOCK)
#define CIPHER   "aes-gcm-random aead"
#define TAG      28
#define VERSIONS 16 /* of a block, in a run */
#define OPS      6

/* ---- a disk ---- */

static struct torn_disk disk, made; /* it; and how it was at first */
static long left;                   /* writes until the cut; less than 0: none */
static bool is_cut;
static unsigned flushes;
static uint64_t takes; /* bytes at a time */

struct target_queue {
	struct landed landed;
};

static int64_t disk_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	(void)target;
	torn_disk_read(&disk, offset, buf, len);
	return len;
}

static int64_t perform(const struct ndio_subrequest *sub)
{
	assert_true(sub->len <= takes);
	if (is_cut)
		return -EIO;
	if (sub->op == OP_FLUSH) {
		flushes++;
		torn_disk_flush(&disk, torn_disk_mark(&disk));
		return 0;
	}
	if (sub->op == OP_READ) {
		torn_disk_read(&disk, sub->start, sub->io_base, sub->len);
		return sub->len;
	}
	assert_int_equal(sub->op, OP_WRITE);
	torn_disk_write(&disk, sub->start, sub->io_base, sub->len);
	if (left >= 0 && left-- == 0)
		is_cut = true;
	else if (sub->flags & REQ_FUA)
		torn_disk_force(&disk, sub->start, sub->len, torn_disk_mark(&disk));
	return is_cut ? -EIO : (int64_t)sub->len;
}

static struct target_queue *disk_queue_open(struct target *target, unsigned depth,
					    struct bvec bounce, struct error *err)
{
	(void)target;
	(void)depth;
	(void)bounce;
	(void)err;
	return calloc(1, sizeof(struct target_queue));
}

static void disk_queue_close(struct target_queue *queue)
{
	assert_null(queue->landed.first);
	free(queue);
}

static void disk_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	sub->result = perform(sub);
	landed_add(&queue->landed, sub);
}

static struct ndio_subrequest *disk_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	(void)wait;
	(void)wake_fd;
	return landed_take(&queue->landed);
}

static void do_nothing(struct target_queue *queue)
{
	(void)queue;
}

static void disk_close(struct target *target)
{
	(void)target;
}

static const struct target_ops disk_ops = {
	.read = disk_read,
	.queue_open = disk_queue_open,
	.queue_close = disk_queue_close,
	.issue = disk_issue,
	.submit = do_nothing,
	.poll = disk_poll,
	.cancel = do_nothing,
	.close = disk_close,
};

static char disk_name[] = "disk";

static struct target memory_target(void)
{
	return (struct target){
		.ops = &disk_ops,
		.name = disk_name,
		.size = disk.size,
		.align = BLOCK,
		.mem_align = BLOCK,
		.atomic = BLOCK,
		.max_len = takes,
		.max_other = UINT64_MAX / 2 + 1,
		.max_queues = 1,
		.can_flush = true,
		.can_fua = true,
	};
}

/* ---- the volume on it ---- */

static struct target below;
static struct volume *volume;
static struct channel *channel;
static struct bounce bounce;

static void set_key(struct luks *luks)
{
	struct error err;

	strcpy(luks->cipher, CIPHER);
	luks->key_len = 32;
	luks->key = secret_alloc(luks->key_len, &err);
	assert_non_null(luks->key);
	memset(luks->key, 7, luks->key_len);
	luks->sector = BLOCK;
}

static int open_volume(bool journal)
{
	struct channel_options channel_options = { .pieces = 3, .piece_len = 8192 };
	struct target_integrity_options options = {
		.room = disk.size,
		.block = BLOCK,
		.tag_size = TAG,
		.recover = true,
		.journal = journal,
	};
	struct error err;
	int ret;

	below = memory_target();
	volume = volume_new();
	assert_non_null(volume);
	ret = target_integrity_open(&below, &options, &volume->target, &err);
	if (ret < 0) {
		volume_close(volume);
		return ret;
	}
	set_key(&volume->luks);
	volume->encrypted = true;
	volume->cipher_ops = &cipher_tagged;
	volume->tag_len = TAG;
	volume->sector = volume->block = BLOCK;
	volume->size = SIZE;
	volume->reads_tear = volume_reads_tear(volume);
	assert_int_equal(bounce_init(&bounce, channel_bounce_len(&channel_options), false, NULL),
			 0);
	assert_int_equal(channel_open(volume, &channel_options, bounce.area, &channel, &err), 0);
	return 0;
}

static void close_volume(void)
{
	channel_close(channel);
	bounce_destroy(&bounce);
	volume_close(volume);
}

static int run_request(enum op op, unsigned flags, uint64_t start, uint64_t len, void *bytes)
{
	struct iovec iov = { bytes, len };
	struct ndio_request *request;
	int ret;

	assert_int_equal(request_make(volume, op, flags, start, len, &iov, bytes ? 1 : 0, &request),
			 0);
	ret = fake_run(channel, request);
	request_put(request, REF_CALLER);
	return ret;
}

/* ---- what may be there ---- */

static struct {
	uint8_t bytes[VERSIONS][BLOCK];
	unsigned durable, latest;
} known[BLOCKS];
static uint8_t fill; /* the next byte to be written */

/* From now on each block of these bytes may also be so. */
static void expect(uint64_t start, uint64_t len, uint8_t byte)
{
	for (uint64_t n = start / BLOCK; n <= (start + len - 1) / BLOCK; n++) {
		uint64_t from = n * BLOCK > start ? n * BLOCK : start;
		uint64_t to = (n + 1) * BLOCK < start + len ? (n + 1) * BLOCK : start + len;
		unsigned latest = ++known[n].latest;

		assert_in_range(latest, 1, VERSIONS - 1);
		memcpy(known[n].bytes[latest], known[n].bytes[latest - 1], BLOCK);
		memset(known[n].bytes[latest] + (from - n * BLOCK), byte, to - from);
	}
}

static void all_durable(uint64_t first, uint64_t count)
{
	for (uint64_t n = first; n < first + count && !is_cut; n++)
		known[n].durable = known[n].latest;
}

/* What is read is it, too: nothing goes back from there. */
static void check_all(bool exactly)
{
	static uint8_t bytes[SIZE];

	int ret = run_request(OP_READ, 0, 0, SIZE, bytes);

	if (exactly && is_cut) /* by what the journal did beside it */
		return;
	assert_int_equal(ret, 0);
	for (unsigned n = 0; n < BLOCKS; n++) {
		unsigned version = known[n].latest;

		while (version > known[n].durable &&
		       memcmp(bytes + n * BLOCK, known[n].bytes[version], BLOCK))
			version--;
		if (memcmp(bytes + n * BLOCK, known[n].bytes[version], BLOCK))
			fail_msg("block %u is as none of %u writes left it", n,
				 known[n].latest - known[n].durable + 1);
		if (exactly && version != known[n].latest &&
		    memcmp(bytes + n * BLOCK, known[n].bytes[known[n].latest], BLOCK))
			fail_msg("block %u isn't as it was written last", n);
		if (exactly)
			continue;
		memcpy(known[n].bytes[0], bytes + n * BLOCK, BLOCK);
		known[n].durable = known[n].latest = 0;
	}
}

/* ---- what is done ---- */

static void write_bytes(uint64_t start, uint64_t len, unsigned flags)
{
	uint8_t *bytes = malloc(len);

	assert_non_null(bytes);
	memset(bytes, ++fill, len);
	expect(start, len, fill);
	if (run_request(OP_WRITE, flags, start, len, bytes) == 0 && (flags & REQ_FUA))
		all_durable(start / BLOCK, len / BLOCK);
	free(bytes);
}

static void flush(void)
{
	if (run_request(OP_FLUSH, 0, 0, 0, NULL) == 0)
		all_durable(0, BLOCKS);
}

static void do_op(unsigned op)
{
	switch (op) {
	case 0:
		write_bytes(4 * BLOCK, 9 * BLOCK, 0);
		break;
	case 1: /* parts of blocks 7 and 8 */
		write_bytes(7 * BLOCK + 100, 700, 0);
		break;
	case 2:
		flush();
		break;
	case 3:
		write_bytes(6 * BLOCK, 3 * BLOCK, REQ_FUA);
		break;
	case 4:
		expect(3 * BLOCK + 50, 12 * BLOCK, 0);
		run_request(OP_ZERO, 0, 3 * BLOCK + 50, 12 * BLOCK, NULL);
		break;
	case 5: /* more than a section has room for */
		write_bytes(0, SIZE, 0);
		break;
	}
	if (!is_cut)
		check_all(true);
}

static void make_disk(unsigned sections)
{
	struct superblock superblock = {
		.tag_size = TAG,
		.block = BLOCK,
		.log2_interleave = 4,
		.journal_sections = sections,
		.provided_sectors = BLOCKS,
		.fixed_padding = true,
	};
	uint8_t bytes[SUPERBLOCK_AREA] = { 0 };
	struct layout layout;
	uint8_t *section;
	struct error err;

	assert_int_equal(layout_make(&superblock, 1 << 20, "disk", &layout, &err), 0);
	torn_disk_init(&disk, layout_data_at(&layout, (BLOCKS - 1) * BLOCK) + BLOCK);
	superblock_write(&superblock, bytes);
	torn_disk_write(&disk, 0, bytes, sizeof(bytes));
	section = calloc(1, layout.section_len);
	assert_non_null(section);
	for (unsigned i = 0; i < sections; i++) {
		journal_section_clear(&layout, section, true);
		journal_section_seal(&layout, section, i, 0);
		torn_disk_write(&disk, layout_section_at(&layout, i), section, layout.section_len);
	}
	free(section);
	left = -1;
	is_cut = false;
	fill = 0;
	memset(known, 0, sizeof(known));
	takes = 16384;
	assert_int_equal(open_volume(true), 0);
	write_bytes(0, SIZE, 0);
	close_volume();
	torn_disk_flush(&disk, torn_disk_mark(&disk));
	disk.count = 0;
	torn_disk_copy(&made, &disk);
	torn_disk_free(&disk);
}

/* Opened, perhaps cut off then, and read; without using the journal, too. */
static void open_again(uint64_t seed)
{
	uint64_t random = seed;

	is_cut = false;
	torn_disk_cut(&disk, seed % TORN_KINDS, &random);
	left = torn_random(&random) % 12;
	if (seed % 3 == 0 && open_volume(true) == 0) {
		write_bytes(2 * BLOCK, 3 * BLOCK, 0);
		close_volume();
	}
	is_cut = false;
	torn_disk_cut(&disk, torn_random(&random) % TORN_KINDS, &random);
	left = -1;
	assert_int_equal(open_volume(seed % 2), 0);
	check_all(false);
	close_volume();
}

/* Whether it was cut: if not, there is no later place to cut it. */
static bool run(unsigned ops, long cut_at, uint64_t seed)
{
	bool was_cut;

	torn_disk_copy(&disk, &made);
	memset(known, 0, sizeof(known));
	for (unsigned n = 0; n < BLOCKS; n++)
		memset(known[n].bytes[0], 1, BLOCK);
	fill = 1;
	is_cut = false;
	left = cut_at;
	assert_int_equal(open_volume(true), 0);
	for (unsigned i = 0; i < 3 && !is_cut; i++, ops /= OPS)
		do_op(ops % OPS);
	close_volume();
	if (!is_cut)
		all_durable(0, BLOCKS);
	was_cut = is_cut;
	open_again(seed);
	torn_disk_free(&disk);
	return was_cut;
}

static void every_three(unsigned sections, unsigned step, uint64_t max_len)
{
	uint64_t seed = 1;

	make_disk(sections);
	takes = max_len;
	for (unsigned ops = 0; ops < OPS * OPS * OPS; ops++)
		for (long at = ops % step; run(ops, at, seed++); at += step)
			continue;
	torn_disk_free(&made);
}

static void one_section(void **state)
{
	(void)state;
	every_three(1, 4, 16384);
}

static void four_sections(void **state)
{
	(void)state;
	every_three(4, 1, 16384);
}

/* Pages of tags go in parts, and it is cut off between them, too. */
static void small_parts(void **state)
{
	(void)state;
	every_three(4, 16, 1536);
}

/* A flush of what the journal has already asks nothing of the disk; nor does one before any write. */
static void flush_costs(void **state)
{
	(void)state;
	make_disk(4);
	torn_disk_copy(&disk, &made);
	assert_int_equal(open_volume(true), 0);
	flushes = 0;
	flush();
	assert_int_equal(flushes, 0);
	write_bytes(0, BLOCK, REQ_FUA);
	flush();
	flush();
	assert_int_equal(flushes, 1); /* a section is more than this disk takes at once */
	close_volume();
	torn_disk_free(&disk);
	torn_disk_free(&made);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_section),
		cmocka_unit_test(four_sections),
		cmocka_unit_test(small_parts),
		cmocka_unit_test(flush_costs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
