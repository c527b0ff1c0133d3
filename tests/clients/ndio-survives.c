/* ndio-survives [-r RECONNECT] [-R] [-a ANSWER] [-c CONNECTIONS] [-k KEYFILE] LOCATOR: uses a disk as
 * the lines on its input tell it, while somebody does things to the server. -R: without reconnecting.
 *
 *   write N      fills its part of the disk with the byte N
 *   start N      the same, but doesn't wait: one request for each piece
 *   finish       waits for those
 *   read N       is that what is there?
 *   flush
 *   state        what ndio_get_stats() tells of the server
 *   info         and ndio_get_info()
 *   close wait|cancel
 *   end
 *
 * Each is answered by a line, "ok ..." or "ERRNO: MESSAGE". What is told of the server is a line of its
 * own, "event STATE: MESSAGE", when it is told; what a callback may not do is refused there. */
#include <errno.h>

#include "ndio-client.h"

#define PIECES 32
#define LEN    65536

static struct ndio_volume *_Atomic volume;
static struct ndio_queue *queue;
static uint8_t data[PIECES][LEN];
static const char *const states[] = { "up", "away", "given up", "ended" };

static void answer(ssize_t ret)
{
	if (ret >= 0)
		printf("ok\n");
	else
		printf("%s: %s\n", strerrorname_np(-ret), ndio_error());
}

static void told_event(void *opaque, int server, const char *message)
{
	struct iovec iov = { data[0], LEN };

	if (opaque != &volume)
		fail("the event's opaque isn't the options'");
	if (server < NDIO_SERVER_UP || server > NDIO_SERVER_ENDED)
		fail("there is no state %d", server);
	/* It may come before ndio_open() has returned. */
	if (volume && ndio_preadv(volume, &iov, 1, 0, 0) != -EDEADLK)
		fail("a blocking call in an event isn't refused: %s", ndio_error());
	if (volume && ndio_flush(volume) != -EDEADLK)
		fail("a flush in an event isn't refused: %s", ndio_error());
	printf("event %s: %s\n", states[server], message);
}

/* ---- what it is told to do ---- */

static void write_all(int value)
{
	struct iovec iov = { data, sizeof(data) };

	memset(data, value, sizeof(data));
	answer(ndio_pwritev(volume, &iov, 1, 0, 0));
}

static void start(int value)
{
	const struct ndio_completion completion = { .queue = queue };
	ssize_t ret = 0;

	memset(data, value, sizeof(data));
	for (unsigned i = 0; i < PIECES && ret == 0; i++) {
		struct iovec iov = { data[i], LEN };

		ret = ndio_aio_pwritev(volume, &iov, 1, i * LEN, 0, &completion);
	}
	answer(ret);
}

/* How many ended how: "ok 32", or also "ETIMEDOUT 3". */
static void finish(void)
{
	unsigned counts[200] = { 0 };
	struct ndio_event event;

	for (unsigned i = 0; i < PIECES; i++) {
		if (ndio_queue_reap(queue, &event, 1, -1) != 1)
			fail("%s", ndio_error());
		counts[-event.error]++;
	}
	printf("ok");
	for (int i = 0; i < 200; i++)
		if (counts[i])
			printf(" %s %u", i ? strerrorname_np(i) : "well", counts[i]);
	putchar('\n');
}

static void read_all(int value)
{
	static uint8_t back[PIECES * LEN];
	struct iovec iov = { back, sizeof(back) };
	ssize_t ret = ndio_preadv(volume, &iov, 1, 0, 0);

	for (unsigned i = 0; i < sizeof(back) && ret > 0; i++)
		if (back[i] != value)
			fail("byte %u is %u and not %d", i, back[i], value);
	answer(ret);
}

static void tell_state(void)
{
	struct ndio_stats stats = stats_of(volume);

	printf("ok %s, %s, lost %llu times, %s\n", states[stats.server],
	       stats.away_ms ? "away" : "here", (unsigned long long)stats.times_lost,
	       stats.unflushed ? "not flushed" : "flushed");
}

static void tell_info(void)
{
	struct ndio_info info = info_of(volume);

	printf("ok %llu seconds, %s\n", (unsigned long long)info.reconnect,
	       info.fences ? "fences" : "no fence");
}

static void close_it(const char *how)
{
	ndio_close(volume, strcmp(how, "wait") == 0 ? NDIO_CLOSE_WAIT : NDIO_CLOSE_CANCEL);
	printf("ok\n");
}

static void do_what(const char *line)
{
	char word[16], value[16] = "";

	if (sscanf(line, "%15s %15s", word, value) < 1)
		fail("an empty line");
	if (strcmp(word, "write") == 0)
		write_all(atoi(value));
	else if (strcmp(word, "start") == 0)
		start(atoi(value));
	else if (strcmp(word, "finish") == 0)
		finish();
	else if (strcmp(word, "read") == 0)
		read_all(atoi(value));
	else if (strcmp(word, "flush") == 0)
		answer(ndio_flush(volume));
	else if (strcmp(word, "state") == 0)
		tell_state();
	else if (strcmp(word, "info") == 0)
		tell_info();
	else if (strcmp(word, "close") == 0)
		close_it(value);
	else
		fail("what is %s?", word);
}

int main(int argc, char **argv)
{
	struct opening opening = { .waits = true, .event = told_event, .opaque = &volume };
	char line[64];
	int opt;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((opt = getopt(argc, argv, "r:Ra:c:k:")) != -1) {
		if (opt == 'r')
			opening.reconnect = atoi(optarg);
		else if (opt == 'R')
			opening.waits = false;
		else if (opt == 'a')
			opening.answer_timeout = atoi(optarg);
		else if (opt == 'c')
			opening.connections = atoi(optarg);
		else if (opt == 'k')
			opening.key_path = optarg;
		else
			fail("see the start of ndio-survives.c");
	}
	if (argc - optind != 1)
		fail("see the start of ndio-survives.c");
	opening.locator = argv[optind];
	volume = open_volume(&opening);
	if (ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	printf("open\n");
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "end\n") != 0)
		do_what(line);
	ndio_queue_free(queue);
	return 0;
}
