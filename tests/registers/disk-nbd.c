/* Any NBD URI, by libnbd: a connection a lane. */
#include <errno.h>
#include <libnbd.h>
#include <stdlib.h>
#include <unistd.h>

#include "registers.h"

#define WAIT_MS 100

static struct nbd_handle *connect_to(const char *uri)
{
	struct nbd_handle *nbd = nbd_create();

	if (!nbd || nbd_connect_uri(nbd, uri) < 0)
		fail("registers: %s", nbd_get_error());
	return nbd;
}

static void disk_open(struct disk *disk)
{
	struct nbd_handle *nbd = connect_to(options.locator);

	disk->size = nbd_get_size(nbd);
	disk->can_zero = nbd_can_zero(nbd) == 1;
	disk->can_trim = nbd_can_trim(nbd) == 1;
	disk->can_fua = nbd_can_fua(nbd) == 1;
	disk->can_multi_conn = nbd_can_multi_conn(nbd) == 1;
	if (nbd_can_flush(nbd) != 1)
		fail("registers: %s: it can't flush", options.locator);
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
}

static void disk_close(void)
{
}

static void lane_open(struct lane *lane)
{
	lane->disk = connect_to(options.locator);
}

static void lane_close(struct lane *lane)
{
	nbd_shutdown(lane->disk, 0);
	nbd_close(lane->disk);
}

static int completed(void *opaque, int *error)
{
	lane_ended(opaque, *error);
	return 1;
}

static int issue(struct lane *lane, struct slot *slot)
{
	const nbd_completion_callback end = { .callback = completed, .user_data = slot };
	uint64_t at = options.start + slot->first * options.block;
	uint64_t len = slot->count * options.block;
	uint32_t flags = slot->fua ? LIBNBD_CMD_FLAG_FUA : 0;
	int64_t cookie = -1;

	switch (slot->kind) {
	case READ:
		cookie = nbd_aio_pread(lane->disk, slot->data, len, at, end, 0);
		break;
	case WRITE:
		cookie = nbd_aio_pwrite(lane->disk, slot->data, len, at, end, flags);
		break;
	case ZERO:
		cookie = nbd_aio_zero(lane->disk, len, at, end, flags);
		break;
	case TRIM:
		cookie = nbd_aio_trim(lane->disk, len, at, end, flags);
		break;
	case FLUSH:
		cookie = nbd_aio_flush(lane->disk, end, 0);
		break;
	case KINDS:
		break;
	}
	if (cookie >= 0)
		return 0;
	return nbd_get_errno() ? nbd_get_errno() : EIO;
}

static void disk_wait(struct lane *lane)
{
	/* A connection that is lost has ended all that was in flight. */
	if (nbd_aio_is_dead(lane->disk) || nbd_poll(lane->disk, WAIT_MS) < 0)
		usleep(WAIT_MS * 100);
}

const struct disk_ops nbd_disk = {
	.open = disk_open,
	.close = disk_close,
	.lane_open = lane_open,
	.lane_close = lane_close,
	.issue = issue,
	.wait = disk_wait,
};
