#include "integrity/waiting-io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "engine/subrequest.h"

#define PIECE     (256 * 1024) /* bytes, at the most, of one operation */
#define ALIGNMENT 65536        /* of memory: at least any target's */

/* One that lands as a whole, or fails. */
static int wait_for(struct waiting_io *io, struct ndio_subrequest *sub)
{
	const struct target_ops *ops = io->target->ops;
	struct ndio_subrequest *landed;
	uint64_t got;

	for (;;) {
		sub->progress = (struct subrequest_progress){ 0 };
		ops->issue(io->queue, sub);
		do
			landed = ops->poll(io->queue, true, -1);
		while (!landed);
		if (sub->result < 0)
			return sub->result;
		if (!op_carries_data(sub->op) || (uint64_t)sub->result >= sub->len)
			return 0;
		got = round_down(sub->result, io->target->align);
		if (got == 0)
			return -EIO;
		sub->start += got;
		sub->len -= got;
		sub->io_base = (uint8_t *)sub->io_base + got;
	}
}

static int transfer_piece(struct waiting_io *io, enum op op, unsigned flags, uint64_t at,
			  size_t len)
{
	struct ndio_subrequest sub = {
		.op = op,
		.flags = flags,
		.start = io->start + at,
		.len = len,
		.io_base = io->bounce,
	};

	return wait_for(io, &sub);
}

static size_t piece_at(const struct waiting_io *io, size_t left)
{
	return min_u64(left, min_u64(PIECE, io->target->max_len));
}

static int waiting_read(void *disk, uint64_t at, void *bytes, size_t len)
{
	struct waiting_io *io = disk;
	int ret = 0;

	for (size_t done = 0, piece; done < len && ret == 0; done += piece) {
		piece = piece_at(io, len - done);
		ret = transfer_piece(io, OP_READ, 0, at + done, piece);
		if (ret == 0)
			memcpy((uint8_t *)bytes + done, io->bounce, piece);
	}
	return ret;
}

static int waiting_flush(void *disk)
{
	struct ndio_subrequest sub = { .op = OP_FLUSH };

	return wait_for(disk, &sub);
}

static int waiting_write(void *disk, uint64_t at, const void *bytes, size_t len, bool fua)
{
	struct waiting_io *io = disk;
	bool by_flush = fua && !io->target->can_fua;
	unsigned flags = fua && !by_flush ? REQ_FUA : 0;
	int ret = 0;

	for (size_t done = 0, piece; done < len && ret == 0; done += piece) {
		piece = piece_at(io, len - done);
		memcpy(io->bounce, (const uint8_t *)bytes + done, piece);
		ret = transfer_piece(io, OP_WRITE, flags, at + done, piece);
	}
	return ret == 0 && by_flush ? waiting_flush(io) : ret;
}

static const char *waiting_reason(void *disk, int errnum)
{
	const struct waiting_io *io = disk;

	return target_reason(io->target, errnum);
}

struct journal_io waiting_io_calls(struct waiting_io *io)
{
	return (struct journal_io){
		.read = waiting_read,
		.write = waiting_write,
		.flush = waiting_flush,
		.reason = waiting_reason,
		.disk = io,
		.name = io->target->name,
	};
}

int waiting_io_open(struct waiting_io *io, struct target *target, uint64_t start, struct error *err)
{
	*io = (struct waiting_io){ .target = target, .start = start };
	io->bounce = aligned_alloc(ALIGNMENT, PIECE);
	if (!io->bounce)
		return error_set(err, ENOMEM, "%s: no memory", target->name);
	io->queue = target->ops->queue_open(target, 1,
					    (struct bvec){ .base = io->bounce, .len = PIECE }, err);
	if (io->queue)
		return 0;
	free(io->bounce);
	return -EIO;
}

void waiting_io_close(struct waiting_io *io)
{
	io->target->ops->queue_close(io->queue);
	free(io->bounce);
}
