/* ndio-load [OPTION...] LOCATOR: what load.c does, by the library: each request's callback
 * makes the next one.
 *
 *   -k KEYFILE  -c CONNECTIONS=1  -d DEPTH=1 (requests in flight, for each connection)
 *   -s SIZE=4096  -n REQUESTS=1  -w PERCENT=100 (writes; the others read)
 *   -R (random multiples of SIZE, else one after the other)  -f (a flush at the end)
 *   -v (every byte read must be what load.c and this program write) */
#include <semaphore.h>
#include <stdatomic.h>

#include "ndio-client.h"

static struct {
	struct opening opening;
	unsigned depth, percent;
	uint64_t size, requests;
	bool random, flush, verify;
} options = { .opening.connections = 1, .depth = 1, .percent = 100, .size = 4096, .requests = 1 };

/* One request in flight, and then the next. */
struct slot {
	uint64_t random;
	uint8_t *to_read;
	bool reads;
};

static struct ndio_volume *volume;
static uint64_t places; /* of SIZE bytes in the volume */
static uint8_t *to_write;
static atomic_uint_least64_t sent, done;
static sem_t all_done;

static void completed(void *opaque, int error);

static void send_one(struct slot *slot)
{
	const struct ndio_completion completion = { .callback = completed, .opaque = slot };
	uint64_t number = atomic_fetch_add(&sent, 1);
	struct iovec iov = { to_write, options.size };
	uint64_t place;
	int ret;

	if (number >= options.requests)
		return;
	place = options.random ? random_below(&slot->random, places) : number % places;
	slot->reads = random_below(&slot->random, 100) >= options.percent;
	if (slot->reads) {
		iov.iov_base = slot->to_read;
		ret = ndio_aio_preadv(volume, &iov, 1, place * options.size, 0, &completion);
	} else {
		ret = ndio_aio_pwritev(volume, &iov, 1, place * options.size, 0, &completion);
	}
	if (ret < 0)
		fail("ndio-load: %s", ndio_error());
}

static void completed(void *opaque, int error)
{
	struct slot *slot = opaque;

	if (error)
		fail("ndio-load: %s", strerror(-error));
	if (options.verify && slot->reads && memcmp(slot->to_read, to_write, options.size) != 0)
		fail("ndio-load: what was read isn't what was written");
	send_one(slot);
	if (atomic_fetch_add(&done, 1) + 1 == options.requests)
		sem_post(&all_done);
}

static void run(void)
{
	unsigned count = options.opening.connections * options.depth;
	struct slot *slots = calloc(count, sizeof(*slots));

	for (unsigned i = 0; i < count; i++)
		slots[i] = (struct slot){ .random = i + 1, .to_read = malloc(options.size) };
	for (unsigned i = 0; i < count; i++)
		send_one(&slots[i]);
	while (sem_wait(&all_done) < 0)
		;
	if (options.flush && ndio_flush(volume) < 0)
		fail("%s", ndio_error());
	for (unsigned i = 0; i < count; i++)
		free(slots[i].to_read);
	free(slots);
}

static void parse(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "k:c:d:s:n:w:Rfv")) != -1) {
		uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (opt) {
		case 'k':
			options.opening.key_path = optarg;
			break;
		case 'c':
			options.opening.connections = value;
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
		case 'R':
			options.random = true;
			break;
		case 'f':
			options.flush = true;
			break;
		case 'v':
			options.verify = true;
			break;
		default:
			fail("ndio-load: see the start of ndio-load.c");
		}
	}
	if (optind + 1 != argc || options.opening.connections < 1 || options.depth < 1 ||
	    options.size < 1 || options.requests < 1)
		fail("ndio-load: see the start of ndio-load.c");
	options.opening.locator = argv[optind];
}

int main(int argc, char **argv)
{
	double before;

	parse(argc, argv);
	volume = open_volume(&options.opening);
	places = info_of(volume).size / options.size;
	if (places < 1)
		fail("ndio-load: the volume is smaller than a request");
	to_write = malloc(options.size);
	memset(to_write, 0x5a, options.size);
	sem_init(&all_done, 0, 0);
	before = now();
	run();
	printf("%llu requests in %.6f seconds\n", (unsigned long long)options.requests,
	       now() - before);
	ndio_close(volume, NDIO_CLOSE_WAIT);
	free(to_write);
	return 0;
}
