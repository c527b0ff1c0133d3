/* Nothing (null:) as the destination of a copy: all arrives at once. */
#include "copy/slot.h"

static int null_begin(struct endpoint *endpoint, uint64_t piece, struct error *err)
{
	(void)endpoint;
	(void)piece;
	(void)err;
	return 0;
}

static void null_put_zeroes(struct slot *slot)
{
	slot_done(slot);
	copy_leave_flight(slot->copy);
}

static void null_put(struct slot *slot)
{
	pthread_mutex_lock(&slot->copy->lock);
	null_put_zeroes(slot);
	pthread_mutex_unlock(&slot->copy->lock);
}

static void null_flush(struct copy *copy)
{
	(void)copy;
}

const struct endpoint_ops endpoint_null = {
	.begin = null_begin,
	.put = null_put,
	.put_zeroes = null_put_zeroes,
	.flush = null_flush,
};
