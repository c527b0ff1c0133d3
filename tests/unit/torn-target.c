#include "torn-target.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/align.h"
#include "engine/subrequest.h"

struct target_queue {
	struct torn_target *target;
	struct landed landed;
};

static struct torn_target *to_torn(struct target *target)
{
	return (struct torn_target *)target;
}

static int64_t torn_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	struct torn_target *torn = to_torn(target);

	torn_disk_read(torn->disk, offset, buf, min_u64(len, torn->disk->size - offset));
	return min_u64(len, torn->disk->size - offset);
}

static struct target_queue *torn_queue_open(struct target *target, unsigned depth,
					    struct bvec bounce, struct error *err)
{
	struct target_queue *queue = calloc(1, sizeof(*queue));

	(void)depth;
	(void)bounce;
	if (queue)
		queue->target = to_torn(target);
	else
		error_set(err, ENOMEM, "no memory");
	return queue;
}

static void torn_queue_close(struct target_queue *queue)
{
	assert(!queue->landed.first);
	free(queue);
}

static bool comes_to_cut(struct torn_target *torn)
{
	*torn->is_cut = *torn->is_cut || *torn->left == 0;
	if (*torn->left >= 0)
		(*torn->left)--;
	return *torn->is_cut;
}

/* What was on its way when it is cut may be there. */
static int64_t run(struct torn_target *torn, struct ndio_subrequest *sub)
{
	bool was_cut = *torn->is_cut;

	assert(sub->len <= torn->target.max_len);
	if (was_cut)
		return -EIO;
	if (sub->op == OP_READ) {
		torn->reads++;
		torn_disk_read(torn->disk, sub->start, sub->io_base, sub->len);
		return sub->len;
	}
	if (sub->op == OP_FLUSH && torn->failing > 0) {
		torn->failing--;
		return -EIO;
	}
	if (sub->op == OP_WRITE)
		torn_disk_write(torn->disk, sub->start, sub->io_base, sub->len);
	if (comes_to_cut(torn))
		return -EIO;
	if (sub->op == OP_FLUSH || (sub->flags & REQ_FUA)) {
		torn_disk_flush(torn->disk, torn_disk_mark(torn->disk));
		torn->disk->count = 0;
	}
	return sub->len;
}

static void torn_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	void (*wrote)(void *opaque) = NULL;

	pthread_mutex_lock(&queue->target->lock);
	sub->result = run(queue->target, sub);
	if (sub->op == OP_WRITE) {
		wrote = queue->target->wrote;
		queue->target->wrote = NULL;
	}
	pthread_mutex_unlock(&queue->target->lock);
	if (wrote)
		wrote(queue->target->opaque);
	landed_add(&queue->landed, sub);
}

static void torn_submit(struct target_queue *queue)
{
	(void)queue;
}

static struct ndio_subrequest *torn_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	struct torn_target *torn = queue->target;
	void (*looked)(void *opaque) = NULL;

	(void)wake_fd;
	pthread_mutex_lock(&torn->lock);
	if (!wait) {
		looked = torn->looked;
		torn->looked = NULL;
	}
	pthread_mutex_unlock(&torn->lock);
	if (looked)
		looked(torn->opaque);
	return landed_take(&queue->landed);
}

static bool torn_is_up(const struct target_queue *queue)
{
	return !queue->target->is_down;
}

static void torn_close(struct target *target)
{
	pthread_mutex_destroy(&to_torn(target)->lock);
}

static const struct target_ops torn_ops = {
	.read = torn_read,
	.queue_open = torn_queue_open,
	.queue_close = torn_queue_close,
	.issue = torn_issue,
	.submit = torn_submit,
	.poll = torn_poll,
	.is_up = torn_is_up,
	.cancel = torn_submit,
	.close = torn_close,
};

void torn_target_init(struct torn_target *torn, struct torn_disk *disk, long *left, bool *is_cut)
{
	*torn = (struct torn_target){
		.target = {
			.ops = &torn_ops,
			.name = (char *)"disk",
			.size = disk->size,
			.align = TORN_SECTOR,
			.mem_align = 1,
			.atomic = 1,
			.max_len = 1 << 20,
			.max_other = UINT64_MAX / 2 + 1,
			.max_queues = 4,
			.can_flush = true,
			.can_fua = true,
		},
		.disk = disk,
		.left = left,
		.is_cut = is_cut,
	};
	pthread_mutex_init(&torn->lock, NULL);
}
