/* ndio-arguments [-k KEYFILE] LOCATOR: calls with arguments that make no sense fail with a message,
 * do nothing, and leave the disk as usable as it was. */
#include <errno.h>
#include <limits.h>
#include <stddef.h>

#include "ndio-client.h"

#define LEN     4096
#define UNKNOWN (1u << 31)

static struct opening opening;
static struct ndio_volume *volume;
static struct ndio_queue *queue;
static uint8_t data[LEN];

/* The call fails with this error, and says why. */
#define WRONG(call, error) wrong(#call, (call), (error))

static void wrong(const char *call, ssize_t ret, int error)
{
	if (ret != -error)
		fail("%s gives %zd and not -%s", call, ret, strerrorname_np(error));
	if (!*ndio_error())
		fail("%s says nothing", call);
	printf("%s: %s\n", call, ndio_error());
	ndio_preadv(volume, NULL, 0, UINT64_MAX, 0); /* another message */
}

static void called_back(void *opaque, int error)
{
	(void)opaque;
	fail("a request that was refused completes: %s", strerror(-error));
}

static int found(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	(void)opaque, (void)offset, (void)len, (void)type;
	fail("extents are told to a request that was refused");
}

/* ---- data ---- */

static void test_data(ssize_t (*run)(struct ndio_volume *, const struct iovec *, int, uint64_t,
				     unsigned),
		      int (*start)(struct ndio_volume *, const struct iovec *, int, uint64_t,
				   unsigned, const struct ndio_completion *))
{
	const struct ndio_completion by_callback = { .callback = called_back };
	const struct ndio_completion neither = { 0 };
	const struct ndio_completion both = { .callback = called_back, .queue = queue };
	const struct iovec iov = { data, LEN }, nowhere[2] = { { data, 512 }, { NULL, 512 } };
	const struct iovec huge[2] = { { data, SIZE_MAX / 2 }, { data, SIZE_MAX / 2 } };

	WRONG(run(NULL, &iov, 1, 0, 0), EINVAL);
	WRONG(run(volume, NULL, 1, 0, 0), EINVAL);
	WRONG(run(volume, &iov, -1, 0, 0), EINVAL);
	WRONG(run(volume, &iov, INT_MIN, 0, 0), EINVAL);
	WRONG(run(volume, NULL, -1, 0, 0), EINVAL);
	WRONG(run(volume, nowhere, 2, 0, 0), EFAULT);
	WRONG(run(volume, huge, 2, 0, 0), EINVAL);
	WRONG(run(volume, &iov, 1, 0, UNKNOWN), EINVAL);
	WRONG(run(volume, &iov, 1, 0, NDIO_MAY_TRIM), EINVAL);
	WRONG(run(volume, &iov, 1, 0, NDIO_FAST_ZERO), EINVAL);
	WRONG(start(NULL, &iov, 1, 0, 0, &by_callback), EINVAL);
	WRONG(start(volume, NULL, 1, 0, 0, &by_callback), EINVAL);
	WRONG(start(volume, &iov, -1, 0, 0, &by_callback), EINVAL);
	WRONG(start(volume, NULL, INT_MAX, 0, NDIO_PIN, &by_callback), EINVAL);
	WRONG(start(volume, nowhere, 2, 0, NDIO_PIN, &by_callback), EFAULT);
	WRONG(start(volume, huge, 2, 0, 0, &by_callback), EINVAL);
	WRONG(start(volume, &iov, 1, 0, UNKNOWN | NDIO_PIN, &by_callback), EINVAL);
	WRONG(start(volume, &iov, 1, 0, 0, NULL), EINVAL);
	WRONG(start(volume, &iov, 1, 0, 0, &neither), EINVAL);
	WRONG(start(volume, &iov, 1, 0, 0, &both), EINVAL);
	if (run(volume, NULL, 0, 0, 0) != 0)
		fail("nothing at all: %s", ndio_error());
}

/* ---- the others ---- */

static void test_ranges(void)
{
	const struct ndio_completion completion = { .callback = called_back };

	WRONG(ndio_flush(NULL), EINVAL);
	WRONG(ndio_trim(NULL, 0, LEN, 0), EINVAL);
	WRONG(ndio_trim(volume, 0, LEN, UNKNOWN), EINVAL);
	WRONG(ndio_trim(volume, 0, LEN, NDIO_MAY_TRIM), EINVAL);
	WRONG(ndio_zero(NULL, 0, LEN, 0), EINVAL);
	WRONG(ndio_zero(volume, 0, LEN, UNKNOWN), EINVAL);
	WRONG(ndio_zero(volume, 0, LEN, NDIO_PIN), EINVAL);
	WRONG(ndio_zero(volume, 0, LEN, NDIO_COPY), EINVAL);
	WRONG(ndio_zero(volume, LEN, UINT64_MAX, 0), ENOSPC);
	WRONG(ndio_cache(NULL, 0, LEN), EINVAL);
	WRONG(ndio_extents(NULL, 0, LEN, found, NULL), EINVAL);
	WRONG(ndio_extents(volume, 0, LEN, NULL, NULL), EINVAL);
	WRONG(ndio_aio_flush(NULL, &completion), EINVAL);
	WRONG(ndio_aio_flush(volume, NULL), EINVAL);
	WRONG(ndio_aio_trim(NULL, 0, LEN, 0, &completion), EINVAL);
	WRONG(ndio_aio_trim(volume, 0, LEN, 0, NULL), EINVAL);
	WRONG(ndio_aio_trim(volume, 0, LEN, UNKNOWN, &completion), EINVAL);
	WRONG(ndio_aio_zero(NULL, 0, LEN, 0, &completion), EINVAL);
	WRONG(ndio_aio_zero(volume, 0, LEN, 0, NULL), EINVAL);
	WRONG(ndio_aio_zero(volume, 0, LEN, UNKNOWN, &completion), EINVAL);
	WRONG(ndio_aio_cache(NULL, 0, LEN, &completion), EINVAL);
	WRONG(ndio_aio_cache(volume, 0, LEN, NULL), EINVAL);
	WRONG(ndio_aio_extents(NULL, 0, LEN, found, NULL, &completion), EINVAL);
	WRONG(ndio_aio_extents(volume, 0, LEN, NULL, NULL, &completion), EINVAL);
	WRONG(ndio_aio_extents(volume, 0, LEN, found, NULL, NULL), EINVAL);
}

static void test_queues(void)
{
	struct ndio_event event;

	WRONG(ndio_queue_new(NULL), EINVAL);
	WRONG(ndio_queue_fd(NULL), EINVAL);
	WRONG(ndio_queue_reap(NULL, &event, 1, 0), EINVAL);
	WRONG(ndio_queue_reap(queue, NULL, 1, 0), EINVAL);
	WRONG(ndio_queue_reap(queue, &event, 0, 0), EINVAL);
	WRONG(ndio_queue_reap(queue, &event, -1, -1), EINVAL);
	ndio_queue_free(NULL);
}

static void test_memory(void)
{
	WRONG(ndio_region_register(NULL, LEN), EINVAL);
	WRONG(ndio_region_register(data, SIZE_MAX), ENOMEM);
	WRONG(ndio_region_unregister(NULL, LEN), ENOENT);
	WRONG(ndio_region_unregister(data, LEN), ENOENT);
}

static void test_info(void)
{
	struct ndio_info info = { .struct_size = 0 };
	struct ndio_stats stats = { .struct_size = 0 };
	struct {
		struct ndio_info info;
		char more[64];
	} newer;

	WRONG(ndio_get_info(volume, NULL), EINVAL);
	WRONG(ndio_get_stats(volume, NULL), EINVAL);
	WRONG(ndio_get_info(volume, &info), EINVAL);
	WRONG(ndio_get_stats(volume, &stats), EINVAL);
	info.struct_size = stats.struct_size = SIZE_MAX / 3;
	WRONG(ndio_get_info(volume, &info), EINVAL);
	WRONG(ndio_get_stats(volume, &stats), EINVAL);
	info.struct_size = sizeof(info);
	stats.struct_size = sizeof(stats);
	WRONG(ndio_get_info(NULL, &info), EINVAL);
	WRONG(ndio_get_stats(NULL, &stats), EINVAL);

	/* An older program, and a newer one. */
	memset(&info, 0x5a, sizeof(info));
	info.struct_size = offsetof(struct ndio_info, block);
	if (ndio_get_info(volume, &info) < 0 || info.size == 0 || info.block != 0x5a5a5a5a)
		fail("more is told than was asked for");
	memset(&newer, 0x5a, sizeof(newer));
	newer.info.struct_size = sizeof(newer);
	if (ndio_get_info(volume, &newer.info) < 0 || newer.more[0] || newer.more[63])
		fail("what isn't known isn't zero");
}

/* ---- opening ---- */

static struct ndio_options all(void)
{
	return (struct ndio_options){ .struct_size = sizeof(struct ndio_options) };
}

static void wrong_option(const char *what, struct ndio_options options)
{
	struct ndio_volume *other = volume;

	wrong(what, ndio_open(opening.locator, &options, &other), EINVAL);
	if (other)
		fail("%s: what wasn't opened isn't NULL", what);
}

#define WRONG_OPTION(member, value)                                                                \
	do {                                                                                       \
		struct ndio_options options_ = all();                                              \
		options_.member = (value);                                                         \
		wrong_option(#member " = " #value, options_);                                      \
	} while (0)

static void test_open(void)
{
	const struct ndio_options options = all();
	struct ndio_volume *other = volume;

	WRONG(ndio_open(NULL, NULL, &other), EINVAL);
	WRONG(ndio_open(NULL, &options, &other), EINVAL);
	WRONG(ndio_open(opening.locator, NULL, NULL), EINVAL);
	WRONG(ndio_open("", NULL, &other), EINVAL);
	WRONG_OPTION(struct_size, 0);
	WRONG_OPTION(struct_size, 1);
	WRONG_OPTION(struct_size, sizeof(size_t) + 1);
	WRONG_OPTION(struct_size, sizeof(struct ndio_options) - 1);
	WRONG_OPTION(struct_size, sizeof(struct ndio_options) + 8);
	WRONG_OPTION(struct_size, SIZE_MAX);
	WRONG_OPTION(flags, UNKNOWN);
	WRONG_OPTION(flags, UNKNOWN | NDIO_OPEN_READONLY);
	WRONG_OPTION(direct, NDIO_DIRECT_OFF + 1);
	WRONG_OPTION(direct, -1);
	WRONG_OPTION(reserved, 1);
	WRONG_OPTION(reserved, -1);
	WRONG_OPTION(connections, 65);
	WRONG_OPTION(connections, UINT_MAX);
	WRONG_OPTION(answer_timeout, 86401);
	WRONG_OPTION(reconnect, 86401);
	WRONG_OPTION(unflushed, 1);
	WRONG_OPTION(unflushed, (1 << 20) - 1);
	WRONG_OPTION(key_len, 5);
	WRONG_OPTION(header, opening.locator);
	ndio_close(NULL, NDIO_CLOSE_WAIT);
}

/* ---- the disk afterwards ---- */

static void check_disk(void)
{
	uint8_t back[LEN];
	struct iovec iov = { back, LEN };
	struct ndio_event event;

	if (ndio_queue_reap(queue, &event, 1, 0) != 0)
		fail("a request that was refused completes");
	wait_until_freed(volume);
	if (ndio_preadv(volume, &iov, 1, 0, NDIO_PIN) != LEN || memcmp(back, data, LEN) != 0)
		fail("the disk is changed");
}

int main(int argc, char **argv)
{
	struct iovec iov = { data, LEN };
	int opt;

	while ((opt = getopt(argc, argv, "k:")) != -1) {
		if (opt != 'k')
			fail("see the start of ndio-arguments.c");
		opening.key_path = optarg;
	}
	if (argc - optind != 1)
		fail("see the start of ndio-arguments.c");
	opening.locator = argv[optind];
	volume = open_volume(&opening);
	if (ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	memset(data, 0x61, LEN);
	if (ndio_pwritev(volume, &iov, 1, 0, 0) != LEN)
		fail("%s", ndio_error());
	test_data(ndio_preadv, ndio_aio_preadv);
	test_data(ndio_pwritev, ndio_aio_pwritev);
	WRONG(ndio_preadv(volume, &iov, 1, 0, NDIO_FUA), EINVAL);
	WRONG(ndio_preadv(volume, &iov, 1, 0, NDIO_COPY), EINVAL);
	test_ranges();
	test_queues();
	test_memory();
	test_info();
	test_open();
	check_disk();
	ndio_close(volume, NDIO_CLOSE_WAIT);
	ndio_queue_free(queue);
	return 0;
}
