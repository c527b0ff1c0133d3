/* ndio-endings [-k KEYFILE] [-c CONNECTIONS] HOW LOCATOR [PID]: requests whose volume is closed,
 * or whose server is killed, while they are in flight: each completes once, with the right
 * error, and then nothing touches its memory.
 *
 *   wait     ndio_close() waits for them: no error
 *   cancel   ndio_close() cancels them: no error or ECANCELED, and some of the latter where it
 *            is an NBD server
 *   kill     the process PID is killed: no error or that of a lost connection; what is asked
 *            for afterwards fails at once */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "ndio-client.h"

#define REQUESTS 400
#define RUNS     4
#define MEMORY   (64 * 1024) /* of a request */

struct request {
	atomic_uint completions;
	int error;
	struct iovec iov[RUNS];
	uint64_t offset;
	unsigned flags;
	bool read, by_queue, refused;
};

static struct request requests[REQUESTS];
static struct ndio_queue *queue;
static uint8_t *memory;
static atomic_uint ended;

static void end(struct request *request, int error)
{
	request->error = error;
	atomic_fetch_add(&request->completions, 1);
	atomic_fetch_add(&ended, 1);
}

static void called_back(void *opaque, int error)
{
	end(opaque, error);
}

static void reap(int timeout_ms)
{
	struct ndio_event events[16];
	int n;

	while ((n = ndio_queue_reap(queue, events, 16, timeout_ms)) > 0)
		for (int i = 0; i < n; i++)
			end(events[i].opaque, events[i].error);
	if (n < 0)
		fail("reap: %s", ndio_error());
}

/* Also requests that meet in the same blocks, so that some wait for others when the end comes. */
static void shape(struct request *request, unsigned i, uint64_t size, uint64_t *random)
{
	uint8_t *at = memory + (size_t)i * MEMORY;

	request->offset = random_below(random, 4) ? random_below(random, size - MEMORY) :
						    random_below(random, 9000);
	request->read = random_below(random, 2);
	request->by_queue = random_below(random, 2);
	request->flags = random_below(random, 3) ? 0 : NDIO_PIN;
	if (!request->read && random_below(random, 4) == 0)
		request->flags |= NDIO_COPY;
	for (unsigned j = 0; j < RUNS; j++) {
		size_t len = random_below(random, 2) ? random_below(random, MEMORY / RUNS) : 1000;

		request->iov[j] = (struct iovec){ at, len };
		at += len;
	}
}

static int start(struct ndio_volume *volume, struct request *request)
{
	struct ndio_completion completion = { .opaque = request };
	int ret;

	if (request->by_queue)
		completion.queue = queue;
	else
		completion.callback = called_back;
	ret = request->read ? ndio_aio_preadv(volume, request->iov, RUNS, request->offset,
					      request->flags, &completion) :
			      ndio_aio_pwritev(volume, request->iov, RUNS, request->offset,
					       request->flags, &completion);
	memset(request->iov, 0x5a, sizeof(request->iov));
	return ret;
}

static void start_all(struct ndio_volume *volume)
{
	uint64_t size = info_of(volume).size, random = 4711;

	for (unsigned i = 0; i < REQUESTS; i++) {
		struct request *request = &requests[i];
		int ret;

		shape(request, i, size, &random);
		ret = start(volume, request);
		if (ret == -ENOMEM || ret == -EAGAIN) /* no more can be locked */
			request->refused = true;
		else if (ret < 0)
			fail("%s", ndio_error());
	}
}

static bool may_be(const char *how, int error)
{
	if (error == 0)
		return true;
	if (strcmp(how, "cancel") == 0)
		return error == -ECANCELED;
	if (strcmp(how, "kill") == 0)
		return error == -ENOTCONN || error == -ECONNRESET || error == -EPIPE ||
		       error == -EIO;
	return false;
}

static void judge(const char *how, bool nbd)
{
	unsigned with_error = 0;

	for (unsigned i = 0; i < REQUESTS; i++) {
		const struct request *request = &requests[i];

		if (request->completions != !request->refused)
			fail("request %u was told of %u times", i, request->completions);
		if (!may_be(how, request->error))
			fail("request %u: %s", i, strerror(-request->error));
		with_error += request->error != 0;
	}
	printf("%u of %u requests ended with an error\n", with_error, REQUESTS);
	if (nbd && (with_error > 0) != (strcmp(how, "wait") != 0))
		fail("%u requests ended with an error", with_error);
}

/* The connection is lost: nothing may hang, and the error says so. */
static void use_afterwards(struct ndio_volume *volume)
{
	char buf[4096];
	struct iovec iov = { buf, sizeof(buf) };

	for (int i = 0; i < 20; i++) {
		ssize_t ret = ndio_preadv(volume, &iov, 1, i * 4096, 0);

		if (ret != -ENOTCONN && ret != -EPIPE && ret != -ECONNRESET)
			fail("a read without a server gives %zd: %s", ret, ndio_error());
		if (!strstr(ndio_error(), "nbd"))
			fail("the error doesn't name the volume: %s", ndio_error());
		ret = ndio_flush(volume);
		if (ret != -ENOTCONN && ret != -EPIPE && ret != -ECONNRESET && ret != -EOPNOTSUPP)
			fail("a flush without a server gives %zd: %s", ret, ndio_error());
	}
}

static void kill_server(struct ndio_volume *volume, pid_t pid)
{
	double deadline = now() + 30;

	while (atomic_load(&ended) < REQUESTS / 8 && now() < deadline)
		reap(1);
	if (kill(pid, SIGKILL) < 0)
		fail("kill %d: %s", (int)pid, strerror(errno));
	while (stats_of(volume).in_flight && now() < deadline)
		reap(10);
	if (stats_of(volume).in_flight)
		fail("requests hang without a server");
	use_afterwards(volume);
}

int main(int argc, char **argv)
{
	struct opening opening = { 0 };
	struct ndio_volume *volume;
	const char *how;
	double before;
	bool nbd;
	int opt;

	while ((opt = getopt(argc, argv, "k:c:")) != -1) {
		if (opt == 'k')
			opening.key_path = optarg;
		else if (opt == 'c')
			opening.connections = atoi(optarg);
		else
			fail("see the start of ndio-endings.c");
	}
	if (argc - optind < 2)
		fail("see the start of ndio-endings.c");
	how = argv[optind];
	opening.locator = argv[optind + 1];
	volume = open_volume(&opening);
	nbd = info_of(volume).nbd;
	if (ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	memory = mmap(NULL, REQUESTS * MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	start_all(volume);
	if (strcmp(how, "kill") == 0)
		kill_server(volume, atoi(argv[optind + 2]));
	before = now();
	ndio_close(volume, strcmp(how, "cancel") == 0 ? NDIO_CLOSE_CANCEL : NDIO_CLOSE_WAIT);
	munmap(memory, REQUESTS * MEMORY);
	if (strcmp(how, "wait") != 0 && now() - before > 5)
		fail("closing took %.1f seconds", now() - before);
	reap(0);
	judge(how, nbd);
	ndio_queue_free(queue);
	return 0;
}
