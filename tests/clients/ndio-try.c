/* ndio-try [-k KEYFILE] [-H HEADER] [-s SLOT] [-d on|off] [-t] [-c CONNECTIONS] [-n TIMES=1]
 * [-a ANSWER-TIMEOUT] LOCATOR: opens a volume (with -d: trims are let through, or aren't, whatever its
 * header says), reads it, writes, flushes, trims with -t, asks for extents and closes it, so many
 * times, whatever comes of it. Prints each error that it met, as "WHAT: ERRNO: MESSAGE", and says
 * what else should not be:
 *
 *   - a message that doesn't name the locator
 *   - a read that succeeds and left some memory as it was, which was noise
 *   - an attempt that takes more than 40 seconds */
#include <errno.h>

#include "ndio-client.h"

#define LEN 65536

static struct opening opening;
static bool trims;

static void check(const char *what, ssize_t ret)
{
	if (ret >= 0) {
		printf("%s: 0\n", what);
		return;
	}
	printf("%s: %s: %s\n", what, strerrorname_np(-ret), ndio_error());
	if (!strstr(ndio_error(), opening.locator))
		fail("%s: the message doesn't name the locator: %s", what, ndio_error());
}

static int told(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	uint64_t *end = opaque;

	(void)type;
	if (offset != *end || len == 0)
		fail("extents: %llu follows %llu", (unsigned long long)offset,
		     (unsigned long long)*end);
	*end = offset + len;
	return 0;
}

static void try_reading(struct ndio_volume *volume)
{
	static uint8_t first[LEN], second[LEN];
	struct iovec iov = { first, LEN };
	ssize_t ret;

	memset(first, 0x5a, LEN);
	ret = ndio_preadv(volume, &iov, 1, 0, 0);
	check("read", ret);
	memset(second, 0xc3, LEN);
	iov.iov_base = second;
	if (ret < 0 || ndio_preadv(volume, &iov, 1, 0, 0) < 0)
		return;
	for (unsigned i = 0; i < LEN; i++)
		if (first[i] == 0x5a && second[i] == 0xc3)
			fail("a read succeeded and left out byte %u", i);
}

static void try_all(void)
{
	static uint8_t buf[LEN];
	struct iovec iov = { buf, LEN };
	struct ndio_volume *volume;
	struct ndio_info info;
	uint64_t end = 0;
	int ret = try_open(&opening, &volume);

	check("open", ret);
	if (ret < 0)
		return;
	info = info_of(volume);
	try_reading(volume);
	check("write", ndio_pwritev(volume, &iov, 1, 8192, 0));
	if (info.can & NDIO_CAN_FUA) {
		iov.iov_len = 700;
		check("FUA", ndio_pwritev(volume, &iov, 1, 513, NDIO_FUA));
	}
	check("flush", ndio_flush(volume));
	if (trims)
		check("trim", ndio_trim(volume, 0, LEN, 0));
	if (info.can & NDIO_CAN_EXTENTS) {
		ret = ndio_extents(volume, 0, LEN, told, &end);
		check("extents", ret);
		if (ret >= 0 && end != LEN)
			fail("the extents end at %llu", (unsigned long long)end);
	}
	ndio_close(volume, NDIO_CLOSE_WAIT);
}

int main(int argc, char **argv)
{
	int times = 1, opt;

	while ((opt = getopt(argc, argv, "k:H:s:d:tc:n:a:")) != -1) {
		switch (opt) {
		case 'k':
			opening.key_path = optarg;
			break;
		case 'H':
			opening.header = optarg;
			break;
		case 's':
			opening.slot = optarg;
			break;
		case 'd':
			opening.flags |= strcmp(optarg, "on") == 0 ? NDIO_OPEN_DISCARD :
								     NDIO_OPEN_NO_DISCARD;
			break;
		case 't':
			trims = true;
			break;
		case 'c':
			opening.connections = atoi(optarg);
			break;
		case 'a':
			opening.answer_timeout = atoi(optarg);
			break;
		case 'n':
			times = atoi(optarg);
			break;
		default:
			fail("see the start of ndio-try.c");
		}
	}
	if (optind + 1 != argc)
		fail("see the start of ndio-try.c");
	opening.locator = argv[optind];
	while (times-- > 0) {
		double before = now();

		try_all();
		if (now() - before > 40)
			fail("it took %.0f seconds", now() - before);
	}
	return 0;
}
