/* ndio-callbacks [-k KEYFILE] [-c CONNECTIONS] WHAT LOCATOR: what a callback does there must neither
 * hang, nor hold up others, nor touch memory for which its thread would wait.
 *
 *   free     it frees a queue of which its thread has just added the last event
 *   told     what ended before it is told before it runs
 *   waits    all that would wait is refused, in every kind of callback, and harms nothing
 *   pins     NDIO_PIN and NDIO_COPY are refused, but in a registered region
 *   home     what must be copied to a shared mapping is left for a thread that may fault
 *   close    requests that callbacks make while the disk is closed complete once, or are refused:
 *            each makes the next, so that one that waits for all would never end otherwise
 *   notice   the same as waits, where a notice is told */
#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "ndio-client.h"

#define LEN 8192

static struct opening opening;
static struct ndio_volume *volume;
static sem_t done;
static uint8_t *memory; /* LEN bytes, of whole pages */

static void refused(const char *what, ssize_t ret)
{
	if (ret != -EDEADLK)
		fail("%s gives %zd and not -EDEADLK: %s", what, ret, ndio_error());
	if (!strstr(ndio_error(), "callback"))
		fail("%s: the error is told as \"%s\"", what, ndio_error());
}

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem) < 0)
		;
}

/* ---- code that runs in every kind of callback ---- */

static void (*inside)(void);

static void completed(void *opaque, int error)
{
	(void)opaque;
	if (error)
		fail("a request failed: %s", strerror(-error));
	inside();
	sem_post(&done);
}

static void ended(void *opaque, int error)
{
	(void)opaque;
	if (error)
		fail("extents: %s", strerror(-error));
	sem_post(&done);
}

static int found(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	unsigned *times = opaque;

	(void)offset, (void)len, (void)type;
	if ((*times)++ == 0)
		inside();
	return 0;
}

static void run_inside(void (*what)(void))
{
	const struct ndio_completion completion = { .callback = completed };
	const struct ndio_completion extents = { .callback = ended };
	struct iovec iov = { memory, LEN };
	unsigned times[2] = { 0, 0 };

	inside = what;
	if (ndio_aio_preadv(volume, &iov, 1, 0, 0, &completion) < 0)
		fail("%s", ndio_error());
	wait_for(&done);
	/* This one ends on a thread of its own. */
	if (ndio_aio_preadv(volume, &iov, 1, 0, NDIO_PIN, &completion) < 0)
		fail("%s", ndio_error());
	wait_for(&done);
	if (!(info_of(volume).can & NDIO_CAN_EXTENTS))
		return;
	if (ndio_extents(volume, 0, LEN, found, &times[0]) < 0 ||
	    ndio_aio_extents(volume, 0, LEN, found, &times[1], &extents) < 0)
		fail("%s", ndio_error());
	wait_for(&done);
	if (times[0] == 0 || times[1] == 0)
		fail("no extents are told");
}

/* ---- queues ---- */

static struct ndio_queue *queue;

/* Both requests end at once, in one round of one worker: the first by the queue, the second by the
 * callback. Made in a callback they are that worker's own. */
static void make_both(void (*callback)(void *opaque, int error))
{
	const struct ndio_completion by_queue = { .queue = queue };
	const struct ndio_completion by_callback = { .callback = callback };

	if (ndio_aio_preadv(volume, NULL, 0, 0, 0, &by_queue) < 0 ||
	    ndio_aio_preadv(volume, NULL, 0, 0, 0, &by_callback) < 0)
		fail("%s", ndio_error());
}

static void free_it(void *opaque, int error)
{
	struct ndio_event event;

	(void)opaque;
	if (error || ndio_queue_reap(queue, &event, 1, 0) != 1)
		fail("the event isn't there");
	ndio_queue_free(queue);
	queue = NULL;
	sem_post(&done);
}

static void make_and_free(void *opaque, int error)
{
	(void)opaque, (void)error;
	make_both(free_it);
}

static void test_free(void)
{
	const struct ndio_completion completion = { .callback = make_and_free };

	for (int i = 0; i < 100; i++) {
		if (ndio_queue_new(&queue) < 0 ||
		    ndio_aio_preadv(volume, NULL, 0, 0, 0, &completion) < 0)
			fail("%s", ndio_error());
		wait_for(&done);
	}
}

static void look_at_it(void *opaque, int error)
{
	struct pollfd ready = { .fd = ndio_queue_fd(queue), .events = POLLIN };

	(void)opaque, (void)error;
	if (poll(&ready, 1, 5000) != 1)
		fail("an event is told only after the callback");
	sem_post(&done);
}

static void make_and_look(void *opaque, int error)
{
	(void)opaque, (void)error;
	make_both(look_at_it);
}

static void test_told(void)
{
	const struct ndio_completion completion = { .callback = make_and_look };
	struct ndio_event event;

	if (ndio_queue_new(&queue) < 0 || ndio_aio_preadv(volume, NULL, 0, 0, 0, &completion) < 0)
		fail("%s", ndio_error());
	wait_for(&done);
	if (ndio_queue_reap(queue, &event, 1, 0) != 1)
		fail("the event isn't there");
	ndio_queue_free(queue);
}

/* ---- what would wait ---- */

static int found_nothing(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	(void)opaque, (void)offset, (void)len, (void)type;
	return 0;
}

static void try_to_wait(void)
{
	struct iovec iov = { memory, LEN };
	struct ndio_volume *other = volume;
	struct ndio_event event;

	refused("ndio_preadv", ndio_preadv(volume, &iov, 1, 0, 0));
	refused("ndio_preadv of nothing", ndio_preadv(volume, NULL, 0, 0, 0));
	refused("ndio_pwritev", ndio_pwritev(volume, &iov, 1, 0, 0));
	refused("ndio_flush", ndio_flush(volume));
	refused("ndio_trim", ndio_trim(volume, 0, LEN, 0));
	refused("ndio_zero", ndio_zero(volume, 0, LEN, 0));
	refused("ndio_cache", ndio_cache(volume, 0, LEN));
	refused("ndio_extents", ndio_extents(volume, 0, LEN, found_nothing, NULL));
	refused("ndio_open", ndio_open(opening.locator, NULL, &other));
	if (other)
		fail("what can't be opened is %p", (void *)other);
	refused("ndio_queue_reap", ndio_queue_reap(queue, &event, 1, -1));
	refused("ndio_queue_reap for a while", ndio_queue_reap(queue, &event, 1, 1));
	if (ndio_queue_reap(queue, &event, 1, 0) != 0)
		fail("ndio_queue_reap without a wait: %s", ndio_error());
	refused("ndio_region_register", ndio_region_register(memory, LEN));
	refused("ndio_region_unregister", ndio_region_unregister(memory, LEN));
	ndio_close(volume, NDIO_CLOSE_WAIT);
	if (volume)
		refused("ndio_close", -EDEADLK);
}

/* Nothing of that did anything. */
static void check_unharmed(void)
{
	struct iovec iov = { memory, LEN };

	if (ndio_preadv(volume, &iov, 1, 0, 0) != LEN)
		fail("afterwards: %s", ndio_error());
	if (ndio_region_unregister(memory, LEN) != -ENOENT)
		fail("memory was registered");
}

static void test_waits(void)
{
	if (ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	run_inside(try_to_wait);
	check_unharmed();
	ndio_queue_free(queue);
}

static unsigned notices;

static void told_notice(void *opaque, const char *message)
{
	(void)opaque, (void)message;
	notices++;
	try_to_wait();
}

/* That its memory can't be locked is a notice. */
static void forbid_locking(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	struct rlimit none = { 0, 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		fail("capget: %s", strerror(errno));
	data[0].effective &= ~(1u << CAP_IPC_LOCK);
	if (syscall(SYS_capset, &header, data) < 0 || setrlimit(RLIMIT_MEMLOCK, &none) < 0)
		fail("forbidding to lock memory: %s", strerror(errno));
}

static void test_notice(void)
{
	struct ndio_options options = {
		.struct_size = sizeof(options),
		.notice = told_notice,
	};
	struct ndio_volume *other;

	if (ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	forbid_locking();
	if (ndio_open(opening.locator, &options, &other) < 0)
		fail("%s", ndio_error());
	if (notices == 0)
		fail("there is no notice: this test sees nothing");
	check_unharmed();
	ndio_close(other, NDIO_CLOSE_WAIT);
	ndio_queue_free(queue);
}

/* ---- memory ---- */

static uint8_t *region; /* LEN bytes, registered */

static void try_to_pin(void)
{
	const struct ndio_completion completion = { .queue = queue };
	struct iovec iov = { memory, LEN }, both[2] = { { region, 100 }, { memory, 100 } };
	struct iovec empty[2] = { { region, LEN }, { memory, 0 } };

	refused("NDIO_PIN of a read", ndio_aio_preadv(volume, &iov, 1, 0, NDIO_PIN, &completion));
	refused("NDIO_PIN of a write", ndio_aio_pwritev(volume, &iov, 1, 0, NDIO_PIN, &completion));
	refused("NDIO_COPY", ndio_aio_pwritev(volume, &iov, 1, 0, NDIO_COPY, &completion));
	refused("NDIO_COPY of some", ndio_aio_pwritev(volume, both, 2, 0, NDIO_COPY, &completion));
	if (ndio_aio_pwritev(volume, empty, 2, 0, NDIO_PIN, &completion) < 0 ||
	    ndio_aio_pwritev(volume, empty, 2, 0, NDIO_COPY, &completion) < 0 ||
	    ndio_aio_preadv(volume, empty, 1, 0, NDIO_PIN, &completion) < 0)
		fail("in a registered region: %s", ndio_error());
}

static void test_pins(void)
{
	struct ndio_event event;
	unsigned calls = info_of(volume).can & NDIO_CAN_EXTENTS ? 4 : 2;

	region = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region == MAP_FAILED || ndio_region_register(region, LEN) < 0 ||
	    ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	run_inside(try_to_pin);
	for (unsigned i = 0; i < 3 * calls; i++)
		if (ndio_queue_reap(queue, &event, 1, 10000) != 1 || event.error)
			fail("a request of a callback's: %s", strerror(-event.error));
	if (ndio_queue_reap(queue, &event, 1, 0) != 0)
		fail("one that was refused completes");
	if (ndio_region_unregister(region, LEN) < 0)
		fail("%s", ndio_error());
	ndio_queue_free(queue);
}

static void try_to_reap(void)
{
	struct ndio_event event;

	if (ndio_queue_reap(queue, &event, 1, 0) != 0)
		fail("a callback gets an event for which memory is copied");
}

static void test_home(void)
{
	int fd = memfd_create("ndio-callbacks", MFD_CLOEXEC);
	const struct ndio_completion completion = { .queue = queue };
	struct ndio_completion by_queue = completion;
	struct pollfd ready = { .events = POLLIN };
	struct ndio_event event;
	struct iovec iov;
	uint8_t *shared;

	memset(memory, 0x41, LEN);
	iov = (struct iovec){ memory, LEN };
	if (ndio_pwritev(volume, &iov, 1, 0, 0) != LEN || ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	if (fd < 0 || ftruncate(fd, LEN) < 0)
		fail("memfd: %s", strerror(errno));
	shared = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	iov.iov_base = shared;
	by_queue.queue = queue;
	if (ndio_aio_preadv(volume, &iov, 1, 0, NDIO_PIN, &by_queue) < 0)
		fail("%s", ndio_error());
	ready.fd = ndio_queue_fd(queue);
	if (poll(&ready, 1, 10000) != 1)
		fail("it doesn't complete");
	run_inside(try_to_reap);
	if (shared[0] || shared[LEN - 1])
		fail("the data were copied in a callback");
	if (poll(&ready, 1, 0) != 1)
		fail("the event isn't told any more");
	if (ndio_queue_reap(queue, &event, 1, 0) != 1 || event.error || shared[0] != 0x41)
		fail("the event is lost");
	ndio_queue_free(queue);
}

/* ---- closing ---- */

#define CHAINS 64

static atomic_uint accepted, completions, refusals;
static uint8_t chains[CHAINS][LEN]; /* each one's memory */

static void make_next(void *opaque, int error);

static void start_next(void *chain, unsigned flags)
{
	const struct ndio_completion completion = { .callback = make_next, .opaque = chain };
	const struct iovec iov = { chain, LEN };
	int ret = ndio_aio_preadv(volume, &iov, 1, 0, flags, &completion);

	if (ret == 0)
		atomic_fetch_add(&accepted, 1);
	else if (ret == -ESHUTDOWN && *ndio_error())
		atomic_fetch_add(&refusals, 1);
	else
		fail("a request while it is closed gives %d: %s", ret, ndio_error());
}

static void make_next(void *opaque, int error)
{
	if (error && error != -ECANCELED)
		fail("a request failed: %s", strerror(-error));
	atomic_fetch_add(&completions, 1);
	start_next(opaque, 0);
}

static void test_close(void)
{
	/* nbdkit 1.32 may abort when a connection ends while it answers. */
	bool cancel = !info_of(volume).nbd;

	for (int i = 0; i < 20; i++) {
		atomic_store(&accepted, 0);
		atomic_store(&completions, 0);
		atomic_store(&refusals, 0);
		for (int j = 0; j < CHAINS; j++) /* some end on the thread that unpins */
			start_next(chains[j], j % 8 ? 0 : NDIO_PIN);
		ndio_close(volume, cancel && i % 2 ? NDIO_CLOSE_CANCEL : NDIO_CLOSE_WAIT);
		if (accepted != completions || refusals != CHAINS)
			fail("%u requests, %u completions, %u refusals", accepted, completions,
			     refusals);
		volume = open_volume(&opening);
	}
}

int main(int argc, char **argv)
{
	const char *what;
	int opt;

	while ((opt = getopt(argc, argv, "k:c:")) != -1) {
		if (opt == 'k')
			opening.key_path = optarg;
		else if (opt == 'c')
			opening.connections = atoi(optarg);
		else
			fail("see the start of ndio-callbacks.c");
	}
	if (argc - optind != 2)
		fail("see the start of ndio-callbacks.c");
	what = argv[optind];
	opening.locator = argv[optind + 1];
	volume = open_volume(&opening);
	sem_init(&done, 0, 0);
	memory = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	if (strcmp(what, "free") == 0)
		test_free();
	else if (strcmp(what, "told") == 0)
		test_told();
	else if (strcmp(what, "waits") == 0)
		test_waits();
	else if (strcmp(what, "pins") == 0)
		test_pins();
	else if (strcmp(what, "home") == 0)
		test_home();
	else if (strcmp(what, "close") == 0)
		test_close();
	else if (strcmp(what, "notice") == 0)
		test_notice();
	else
		fail("see the start of ndio-callbacks.c");
	ndio_close(volume, NDIO_CLOSE_WAIT);
	return 0;
}
