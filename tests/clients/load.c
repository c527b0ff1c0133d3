/* load [OPTION...] URI: keeps requests in flight, one after the other over the volume, and
 * says how many were done and in what time. Their content is of no interest.
 *
 *   -c CONNECTIONS=1  -d DEPTH=1 (requests in flight on each)  -s SIZE=4096
 *   -n REQUESTS (default: without end)  -w PERCENT=100 (writes; the others read)
 *   -r (random places, at any byte)  -R (random multiples of SIZE)  -f (a flush at the end)
 *   -o (says "connected" once it is)
 *   -v (with -w 0 and one request in flight: every byte read must be what this program writes) */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

#define MAX_CONNECTIONS 64

static struct {
	unsigned connections, depth, percent;
	uint64_t size, requests;
	bool random, aligned, flush, open, verify;
} options = { .connections = 1, .depth = 1, .percent = 100, .size = BLOCK, .requests = UINT64_MAX };

static struct nbd_handle *handles[MAX_CONNECTIONS];
static unsigned in_flight[MAX_CONNECTIONS];
static uint64_t volume_size, position, sent, done, random_state = 88172645463325252;
static uint8_t *to_write, *to_read;

static int completed(void *opaque, int *error)
{
	unsigned *count = opaque;

	if (*error)
		fail("load: %s", strerror(*error));
	if (options.verify && memcmp(to_read, to_write, options.size) != 0)
		fail("load: what was read isn't what was written");
	--*count;
	done++;
	return 1;
}

static void send_one(unsigned c)
{
	nbd_completion_callback callback = { .callback = completed, .user_data = &in_flight[c] };
	uint64_t at = position;
	int64_t cookie;

	if (options.aligned)
		at = random_below(&random_state, volume_size / options.size) * options.size;
	else if (options.random)
		at = random_below(&random_state, volume_size - options.size + 1);
	else
		position = position + 2 * options.size <= volume_size ? position + options.size : 0;
	if (random_below(&random_state, 100) < options.percent)
		cookie = nbd_aio_pwrite(handles[c], to_write, options.size, at, callback, 0);
	else
		cookie = nbd_aio_pread(handles[c], to_read, options.size, at, callback, 0);
	if (cookie < 0)
		fail("load: %s", nbd_get_error());
	in_flight[c]++;
	sent++;
}

static void notify(struct nbd_handle *nbd, short events)
{
	unsigned direction = nbd_aio_get_direction(nbd);
	int ret = 0;

	if ((events & POLLIN) && (direction & LIBNBD_AIO_DIRECTION_READ))
		ret = nbd_aio_notify_read(nbd);
	else if ((events & POLLOUT) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		ret = nbd_aio_notify_write(nbd);
	else if (events & (POLLERR | POLLHUP | POLLNVAL))
		fail("load: the server went away");
	if (ret < 0)
		fail("load: %s", nbd_get_error());
}

static void run(void)
{
	struct pollfd fds[MAX_CONNECTIONS];

	while (done < options.requests) {
		for (unsigned c = 0; c < options.connections; c++) {
			unsigned direction;

			while (in_flight[c] < options.depth && sent < options.requests)
				send_one(c);
			direction = nbd_aio_get_direction(handles[c]);
			fds[c].fd = nbd_aio_get_fd(handles[c]);
			fds[c].events = (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
					(direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
			fds[c].revents = 0;
		}
		if (poll(fds, options.connections, -1) < 0 && errno != EINTR)
			fail("load: poll: %s", strerror(errno));
		for (unsigned c = 0; c < options.connections; c++)
			notify(handles[c], fds[c].revents);
	}
}

static void parse(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "c:d:s:n:w:rRfov")) != -1) {
		uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (opt) {
		case 'c':
			options.connections = value;
			break;
		case 'd':
			options.depth = value;
			break;
		case 's':
			options.size = value;
			break;
		case 'n':
			options.requests = value;
			break;
		case 'w':
			options.percent = value;
			break;
		case 'r':
			options.random = true;
			break;
		case 'R':
			options.aligned = true;
			break;
		case 'f':
			options.flush = true;
			break;
		case 'o':
			options.open = true;
			break;
		case 'v':
			options.verify = true;
			break;
		default:
			fail("load: see the start of load.c");
		}
	}
	if (optind + 1 != argc || options.connections < 1 ||
	    options.connections > MAX_CONNECTIONS || options.depth < 1 || options.size < 1 ||
	    (options.verify &&
	     (options.connections > 1 || options.depth > 1 || options.percent > 0)))
		fail("load: see the start of load.c");
}

int main(int argc, char **argv)
{
	double before;

	parse(argc, argv);
	for (unsigned c = 0; c < options.connections; c++)
		handles[c] = connect_to(argv[optind]);
	volume_size = nbd_get_size(handles[0]);
	if (volume_size < options.size)
		fail("load: the volume is smaller than a request");
	to_write = malloc(options.size);
	to_read = malloc(options.size);
	memset(to_write, 0x5a, options.size);
	if (options.open) {
		puts("connected");
		fflush(stdout);
	}
	before = now();
	run();
	if (options.flush && nbd_flush(handles[0], 0) < 0)
		fail("load: %s", nbd_get_error());
	printf("%llu requests in %.6f seconds\n", (unsigned long long)done, now() - before);
	for (unsigned c = 0; c < options.connections; c++)
		disconnect(handles[c]);
	free(to_write);
	free(to_read);
	return 0;
}
