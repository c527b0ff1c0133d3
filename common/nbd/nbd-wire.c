/* nbd-wire: what each command asks of libnbd, and what its callbacks make of the answer.
 *
 *	wire_issue() -> in flight -> command_done() -> landed
 *	     ^                            |
 *	     +----- wire_go_on() <--------+      a flush in place of FUA, more extents
 *
 * A read lands well only when its chunks were the whole (export_stretch), whatever the server
 * says. */
#include "nbd/nbd-wire.h"

#include <errno.h>
#include <libnbd.h>
#include <string.h>
#include <sys/random.h>

#include "base/align.h"
#include "base/clock.h"

#define EXTENT_BLOCK 512 /* bytes: no disk has smaller ones */

uint64_t wire_secret(void)
{
	uint64_t secret;

	return getrandom(&secret, sizeof(secret), 0) == sizeof(secret) ?
		       secret :
		       (uint64_t)clock_ms() * (uintptr_t)&secret;
}

static struct nbd_wire *wire_of(const struct ndio_subrequest *sub)
{
	return sub->wire;
}

/* A number for a place in the export that no server can guess. */
static uint64_t export_mark(uint64_t secret, uint64_t place)
{
	uint64_t x = (place ^ secret) * 0x9e3779b97f4a7c15;

	x = (x ^ x >> 32) * 0xd6e8feb86659fd93;
	return x ^ x >> 32;
}

/* The sum of this over chunks is that of the whole exactly if they lead from its start to its
 * end without a gap, in whatever order they come: all that is between cancels out. */
static uint64_t export_stretch(uint64_t secret, uint64_t start, uint64_t len)
{
	return export_mark(secret, start + len) - export_mark(secret, start);
}

/* A hostile server may leave a part of a read out, or send another part twice. */
static int chunk_read(void *opaque, const void *chunk, size_t count, uint64_t offset,
		      unsigned status, int *error)
{
	struct ndio_subrequest *sub = opaque;

	(void)chunk;
	(void)error;
	if (status == LIBNBD_READ_DATA || status == LIBNBD_READ_HOLE)
		sub->progress.arrived += export_stretch(wire_of(sub)->secret, offset, count);
	return 0;
}

static int tell_up_to(struct ndio_subrequest *sub, uint64_t end, unsigned type)
{
	uint64_t told = sub->progress.told;

	if (end <= told)
		return 0;
	sub->progress.told = end;
	return subrequest_tell_extent(sub, told, end - told, type);
}

/* An extent that ends inside of a block is no disk's. By such ones, of a byte each, a server could hold
 * us for ever: the rest of what was asked may be data, and it isn't asked again. */
static int extent_read(struct ndio_subrequest *sub, uint64_t len, unsigned type)
{
	uint64_t end = sub->progress.told + min_u64(len, sub->len - sub->progress.told);
	uint64_t whole = round_down(sub->start + end, EXTENT_BLOCK);
	int ret;

	if (end == sub->len || whole == sub->start + end)
		return tell_up_to(sub, end, type);
	ret = whole > sub->start ? tell_up_to(sub, whole - sub->start, type) : 0;
	return ret < 0 || len == 0 ? ret : tell_up_to(sub, sub->len, 0);
}

static int extents_read(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
			size_t nr_entries, int *error)
{
	struct ndio_subrequest *sub = opaque;

	(void)offset;
	if (strcmp(context, NBD_CONTEXT) != 0)
		return 0;
	for (size_t i = 0; i + 1 < nr_entries && sub->progress.told < sub->len; i += 2) {
		int ret =
			extent_read(sub, entries[i], entries[i + 1] & (EXTENT_HOLE | EXTENT_ZERO));

		if (ret < 0) {
			*error = -ret;
			return -1;
		}
	}
	return 0;
}

/* Must another command follow for it? A server may tell of fewer extents than asked, and one
 * without FUA needs a flush behind the write. */
static bool needs_more(struct ndio_subrequest *sub)
{
	struct subrequest_progress *progress = &sub->progress;
	uint64_t before = sub->result;

	if (sub->op == OP_EXTENTS)
		return progress->told > before && progress->told < sub->len;
	if (!op_changes_data(sub->op) || !(sub->flags & REQ_FUA) || progress->written)
		return false;
	progress->written = !wire_of(sub)->can_fua;
	return progress->written;
}

/* Has all come that was asked for? */
static bool is_complete(const struct ndio_subrequest *sub)
{
	if (sub->op == OP_READ)
		return sub->progress.arrived ==
		       export_stretch(wire_of(sub)->secret, sub->start, sub->len);
	return sub->op != OP_EXTENTS || sub->progress.told == sub->len;
}

/* Over the connection, in the one direction or the other. */
static uint64_t bytes_carried(const struct ndio_subrequest *sub)
{
	return op_carries_data(sub->op) ? sub->len : 0;
}

static int command_done(void *opaque, int *error)
{
	struct ndio_subrequest *sub = opaque;
	struct nbd_wire *wire = wire_of(sub);

	wire->in_flight--;
	nbd_link_answered(wire->link, bytes_carried(sub));
	if (wire->group)
		nbd_group_answered(&wire->member, sub, *error == 0);
	if (*error == 0 && needs_more(sub)) {
		sub->next = wire->again;
		wire->again = sub;
		return 1;
	}
	sub->result = *error == 0 ? (int64_t)sub->len : wire->link->silent ? -ETIMEDOUT : -*error;
	if (*error == 0 && !is_complete(sub))
		sub->result = -EPROTO;
	landed_add(&wire->landed, sub);
	return 1; /* libnbd forgets the command */
}

static uint32_t command_flags(const struct ndio_subrequest *sub)
{
	uint32_t flags = 0;

	if (op_changes_data(sub->op) && (sub->flags & REQ_FUA) && wire_of(sub)->can_fua)
		flags |= LIBNBD_CMD_FLAG_FUA;
	if (sub->op == OP_ZERO && !(sub->flags & REQ_MAY_TRIM))
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	if (sub->op == OP_ZERO && (sub->flags & REQ_FAST_ZERO))
		flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
	return flags;
}

static int64_t send_command(struct ndio_subrequest *sub)
{
	struct nbd_handle *nbd = wire_of(sub)->link->nbd;
	const nbd_completion_callback done = { .callback = command_done, .user_data = sub };
	const nbd_chunk_callback chunk = { .callback = chunk_read, .user_data = sub };
	const nbd_extent_callback extent = { .callback = extents_read, .user_data = sub };
	uint32_t flags = command_flags(sub);

	if (sub->progress.written) /* now the flush that stands for FUA */
		return nbd_aio_flush(nbd, done, 0);
	switch (sub->op) {
	case OP_READ:
		return nbd_aio_pread_structured(nbd, sub->io_base, sub->len, sub->start, chunk,
						done, 0);
	case OP_WRITE:
		return nbd_aio_pwrite(nbd, sub->io_base, sub->len, sub->start, done, flags);
	case OP_ZERO:
		return nbd_aio_zero(nbd, sub->len, sub->start, done, flags);
	case OP_TRIM:
		return nbd_aio_trim(nbd, sub->len, sub->start, done, flags);
	case OP_FLUSH:
		return nbd_aio_flush(nbd, done, 0);
	case OP_CACHE:
		return nbd_aio_cache(nbd, sub->len, sub->start, done, 0);
	case OP_EXTENTS:
		sub->result = sub->progress.told; /* what was known before, see needs_more() */
		return nbd_aio_block_status(nbd, sub->len - sub->progress.told,
					    sub->start + sub->progress.told, extent, done, 0);
	}
	return -1;
}

/* A server that was given up has not answered those that come later either. */
static int why_lost(const struct nbd_wire *wire)
{
	return wire->link->silent ? -ETIMEDOUT : -ENOTCONN;
}

bool wire_issue(struct nbd_wire *wire, struct ndio_subrequest *sub)
{
	sub->wire = wire;
	wire->in_flight++; /* the command may be done before the call returns */
	nbd_link_asked(wire->link, bytes_carried(sub));
	if (wire->group)
		nbd_group_asked(wire->group, &wire->member, sub);
	if (send_command(sub) >= 0)
		return true;
	wire->in_flight--;
	nbd_link_answered(wire->link, bytes_carried(sub));
	if (wire->group)
		nbd_group_answered(&wire->member, sub, false);
	/* Without a connection libnbd finds the call itself invalid. */
	sub->result = nbd_link_is_up(wire->link) ? -nbd_link_errno() : why_lost(wire);
	wire->starved |= sub->result == -ENOMEM;
	landed_add(&wire->landed, sub);
	return false;
}

void wire_go_on(struct nbd_wire *wire)
{
	struct ndio_subrequest *sub;

	while ((sub = wire->again)) {
		wire->again = sub->next;
		wire_issue(wire, sub);
	}
}
