#include "integrity/journal-recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "integrity/journal.h"

#define IO_ALIGN 4096
#define TAGS_MAX (64 * 1024) /* bytes that are read, changed and written as one */
#define DATA_MAX (1024 * 1024)

/* tags, data: what is on its way, many at once. */
struct recover {
	const struct journal_io *io;
	const struct layout *layout;
	struct journal journal;
	uint8_t *sections, *tags, *data;
};

static int place_run(struct recover *recover, const struct journal_block *blocks, size_t count)
{
	const struct layout *layout = recover->layout;

	for (size_t i = 0; i < count; i++)
		memcpy(recover->data + i * layout->block, blocks[i].data, layout->block);
	return recover->io->write(recover->io->disk,
				  layout_data_at(layout, blocks[0].sector * LAYOUT_SECTOR),
				  recover->data, count * layout->block, false);
}

/* Data: as many at once as follow each other in an area. */
static int place_data(struct recover *recover, const struct journal_block *blocks, size_t count)
{
	const struct layout *layout = recover->layout;
	uint64_t area = layout->area_data / LAYOUT_SECTOR;
	size_t done = 0, run;
	int ret = 0;

	for (; ret == 0 && done < count; done += run) {
		const struct journal_block *first = &blocks[done];

		for (run = 1; done + run < count && run < DATA_MAX / layout->block; run++)
			if (first[run].sector != first->sector + run * layout->block_sectors ||
			    first[run].sector / area != first->sector / area)
				break;
		ret = place_run(recover, first, run);
	}
	return ret;
}

/* Tags: as many at once as lie not far from each other. */
static int place_tags(struct recover *recover, const struct journal_block *blocks, size_t count)
{
	const struct layout *layout = recover->layout;
	const struct journal_io *io = recover->io;
	size_t done = 0;
	int ret = 0;

	while (ret == 0 && done < count) {
		size_t first = done;
		uint64_t from = 0, end = 0;

		for (; done < count; done++) {
			uint64_t at = layout_tag_at(layout, blocks[done].sector * LAYOUT_SECTOR);

			if (done == first)
				from = round_down(at, IO_ALIGN);
			if (at + layout->tag_size > from + TAGS_MAX)
				break;
			end = round_up(at + layout->tag_size, IO_ALIGN);
		}
		ret = io->read(io->disk, from, recover->tags, end - from);
		for (size_t i = first; ret == 0 && i < done; i++)
			memcpy(recover->tags - from +
				       layout_tag_at(layout, blocks[i].sector * LAYOUT_SECTOR),
			       blocks[i].tag, layout->tag_size);
		if (ret == 0)
			ret = io->write(io->disk, from, recover->tags, end - from, false);
	}
	return ret;
}

static int do_work(struct recover *recover, enum journal_act act, const struct journal_work *work)
{
	const struct journal_io *io = recover->io;
	uint64_t at = layout_section_at(recover->layout, work->section);
	size_t len = work->count * recover->layout->section_len;
	int ret;

	switch (act) {
	case JOURNAL_READ:
		return io->read(io->disk, at, work->bytes, len);
	case JOURNAL_WRITE:
		return io->write(io->disk, at, work->bytes, len, true);
	case JOURNAL_COPY:
		ret = place_data(recover, work->blocks, work->block_count);
		return ret < 0 ? ret : place_tags(recover, work->blocks, work->block_count);
	case JOURNAL_FLUSH:
		return io->flush(io->disk);
	case JOURNAL_NOTHING:
		break;
	}
	return 0;
}

/* Until it has nothing to do. */
static int do_all_work(struct recover *recover, struct error *err)
{
	struct journal *journal = &recover->journal;
	struct journal_work work;
	enum journal_act act;

	while ((act = journal_next(journal, &work)) != JOURNAL_NOTHING)
		journal_landed(journal, act, do_work(recover, act, &work));
	if (journal->state != JOURNAL_FAILED)
		return 0;
	if (journal->why.text[0])
		return error_set(err, -journal->error, "%s", journal->why.text);
	return error_set(err, -journal->error, "%s: integrity: carrying out the journal: %s",
			 recover->io->name,
			 recover->io->reason(recover->io->disk, -journal->error));
}

static int lack_memory(const struct journal_io *io, struct error *err)
{
	return error_set(err, ENOMEM, "%s: no memory", io->name);
}

int journal_recover(const struct journal_io *io, const struct layout *layout, struct error *err)
{
	unsigned buffers = journal_buffers(layout);
	struct recover recover = {
		.io = io,
		.layout = layout,
		.sections = aligned_alloc(IO_ALIGN, buffers * layout->section_len),
		.tags = aligned_alloc(IO_ALIGN, TAGS_MAX),
		.data = aligned_alloc(IO_ALIGN, DATA_MAX),
	};
	int ret;

	if (!recover.sections || !recover.tags || !recover.data ||
	    journal_init(&recover.journal, layout, io->name, recover.sections, buffers) < 0) {
		ret = lack_memory(io, err);
	} else {
		ret = do_all_work(&recover, err);
		if (ret == 0) {
			journal_close(&recover.journal);
			ret = do_all_work(&recover, err);
		}
	}
	journal_destroy(&recover.journal);
	free(recover.data);
	free(recover.tags);
	free(recover.sections);
	return ret;
}

int journal_is_left(const struct journal_io *io, const struct layout *layout, struct error *err)
{
	uint8_t *bytes = aligned_alloc(IO_ALIGN, layout->section_len);
	int ret = 0;

	if (!bytes)
		return lack_memory(io, err);
	for (uint32_t i = 0; i < layout->sections && ret == 0; i++) {
		ret = io->read(io->disk, layout_section_at(layout, i), bytes,
			       JOURNAL_META * LAYOUT_SECTOR);
		if (ret == 0)
			ret = !journal_section_is_empty(layout, bytes);
		else
			error_set(err, -ret, "%s: integrity: reading the journal: %s", io->name,
				  io->reason(io->disk, -ret));
	}
	free(bytes);
	return ret;
}
