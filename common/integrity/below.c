#include "integrity/below.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>

#include "base/align.h"
#include "integrity/layout.h"

#define LOOK_MS 20 /* who rests looks at his connection so often */

struct ndio_subrequest below_sub(const struct below *below, enum op op, uint64_t at, uint64_t len,
				 void *base)
{
	return (struct ndio_subrequest){
		.op = op,
		.start = below->start + at,
		.len = len,
		.io_base = base,
	};
}

struct ndio_subrequest below_flush(const struct below *below)
{
	struct ndio_subrequest sub = below_sub(below, OP_FLUSH, 0, 0, NULL);

	sub.flags = REQ_ASIDE;
	return sub;
}

uint64_t below_max_len(const struct below *below)
{
	uint64_t max = below->target->max_len;

	return max > LAYOUT_SECTOR ? round_down(max, LAYOUT_SECTOR) : max;
}

void below_ask(const struct below *below, struct ndio_subrequest *sub)
{
	uint64_t len =
		op_carries_data(sub->op) ? min_u64(sub->len, below_max_len(below)) : sub->len;

	sub->behind += sub->len - len;
	sub->len = len;
	sub->progress = (struct subrequest_progress){ 0 };
	below->target->ops->issue(below->queue, sub);
}

int below_land(const struct below *below, struct ndio_subrequest *sub)
{
	uint64_t got;

	if (sub->result < 0)
		return sub->result;
	if (!op_carries_data(sub->op) || (uint64_t)sub->result >= sub->len + sub->behind)
		return 1;
	got = (uint64_t)sub->result < sub->len ? round_down(sub->result, below->target->align) :
						 sub->len;
	if (got == 0)
		return -EIO;
	sub->start += got;
	sub->len += sub->behind - got;
	sub->behind = 0;
	sub->io_base = (uint8_t *)sub->io_base + got;
	below_ask(below, sub);
	return 0;
}

bool below_is_up(const struct below *below)
{
	return !below->target->ops->is_up || below->target->ops->is_up(below->queue);
}

bool below_rest(const struct below *below, int fd)
{
	const struct target_ops *ops = below->target->ops;
	struct pollfd wake = { .fd = fd, .events = POLLIN };
	int look = ops->is_up ? LOOK_MS : IDLE_MS;

	for (int slept = 0; slept < IDLE_MS; slept += look) {
		struct ndio_subrequest *landed;

		if (poll(&wake, 1, look) != 0)
			return true;
		landed = ops->poll(below->queue, false, -1);
		assert(!landed);
	}
	return false;
}
