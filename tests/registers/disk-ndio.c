/* A path or an NBD URI, by libndio: one volume, a completion queue a lane. */
#include <errno.h>
#include <ndio.h>
#include <stdlib.h>
#include <string.h>

#include "registers.h"

#define WAIT_MS 100
#define EVENTS  16

static struct ndio_volume *volume;

static void notice(void *opaque, const char *message)
{
	(void)opaque;
	fprintf(stderr, "%8.3f %s\n", now(), message);
}

static void read_key(struct ndio_options *to, char *key, size_t size)
{
	FILE *file = fopen(options.key_path, "r");

	if (!file)
		fail("registers: %s: %s", options.key_path, strerror(errno));
	to->key = key;
	to->key_len = fread(key, 1, size, file);
	fclose(file);
}

static void disk_open(struct disk *disk)
{
	struct ndio_options to = {
		.struct_size = sizeof(to),
		.flags = (options.discard ? NDIO_OPEN_DISCARD : 0) |
			 (options.verify ? NDIO_OPEN_READONLY : 0),
		.connections = options.connections,
		.answer_timeout = options.answer,
		.reconnect = options.reconnect,
		.notice = notice,
	};
	struct ndio_info info = { .struct_size = sizeof(info) };
	char key[512];

	if (options.key_path)
		read_key(&to, key, sizeof(key));
	if (ndio_open(options.locator, &to, &volume) < 0 || ndio_get_info(volume, &info) < 0)
		fail("registers: %s", ndio_error());
	disk->size = info.size;
	disk->can_zero = true;
	disk->can_trim = info.can & NDIO_CAN_TRIM;
	disk->can_fua = true;
	disk->can_multi_conn = true; /* what is done on its connections is the library's affair */
}

static void disk_close(void)
{
	ndio_close(volume, NDIO_CLOSE_WAIT);
}

static void lane_open(struct lane *lane)
{
	struct ndio_queue *queue;

	if (ndio_queue_new(&queue) < 0)
		fail("registers: %s", ndio_error());
	lane->disk = queue;
}

static void lane_close(struct lane *lane)
{
	ndio_queue_free(lane->disk);
}

static int issue(struct lane *lane, struct slot *slot)
{
	const struct ndio_completion end = { .queue = lane->disk, .opaque = slot };
	uint64_t at = options.start + slot->first * options.block;
	uint64_t len = slot->count * options.block;
	const struct iovec iov = { slot->data, len };
	unsigned flags = slot->fua ? NDIO_FUA : 0;
	int ret = -EINVAL;

	switch (slot->kind) {
	case READ:
		ret = ndio_aio_preadv(volume, &iov, 1, at, 0, &end);
		break;
	case WRITE:
		ret = ndio_aio_pwritev(volume, &iov, 1, at, flags, &end);
		break;
	case ZERO:
		ret = ndio_aio_zero(volume, at, len, flags, &end);
		break;
	case TRIM:
		ret = ndio_aio_trim(volume, at, len, flags, &end);
		break;
	case FLUSH:
		ret = ndio_aio_flush(volume, &end);
		break;
	case KINDS:
		break;
	}
	return ret < 0 ? -ret : 0;
}

static void disk_wait(struct lane *lane)
{
	struct ndio_event events[EVENTS];
	int count = ndio_queue_reap(lane->disk, events, EVENTS, WAIT_MS);

	for (int i = 0; i < count; i++)
		lane_ended(events[i].opaque, -events[i].error);
}

const struct disk_ops ndio_disk = {
	.open = disk_open,
	.close = disk_close,
	.lane_open = lane_open,
	.lane_close = lane_close,
	.issue = issue,
	.wait = disk_wait,
};
