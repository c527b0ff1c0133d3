/* ndio-pins [-k KEYFILE] WHAT LOCATOR: which thread takes the page faults of pinned memory, and
 * that nothing stays pinned.
 *
 *   faults    memory behind userfaultfd: with NDIO_PIN only the caller's thread faults; without
 *             it some worker does, which shows that the test sees it
 *   regions   requests inside a registered region pin nothing
 *   shared    a read into a shared file mapping is brought there by who fetches its completion
 *   maps      the kernel is asked about memory once a request, however many pieces it has
 *   limits    what can't be locked fails the call and leaves nothing behind
 *
 * Status 77: this can't be seen here (no userfaultfd). */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "ndio-client.h"

#define PAGE   4096
#define PAGES  64
#define MEMORY (PAGES * PAGE)

static struct opening opening;
static struct ndio_volume *volume;
static struct ndio_queue *queue;

/* ---- /proc/self/maps ---- */

static atomic_uint maps_read;

/* In place of libc's. */
__attribute__((visibility("default"))) FILE *fopen(const char *path, const char *mode)
{
	FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen");

	if (strcmp(path, "/proc/self/maps") == 0)
		atomic_fetch_add(&maps_read, 1);
	return next(path, mode);
}

/* ---- userfaultfd ---- */

static int uffd = -1;
static atomic_int tids[PAGES * 8];
static atomic_uint nr_faults;

/* Says who faulted, and lets it go on with a page of zeroes. */
static void *serve_faults(void *opaque)
{
	struct uffd_msg msg;

	(void)opaque;
	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		struct uffdio_zeropage zero = {
			.range = { .start = msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1),
				   .len = PAGE },
		};
		unsigned n;

		if (msg.event != UFFD_EVENT_PAGEFAULT)
			return NULL;
		n = atomic_load(&nr_faults);
		if (n < PAGES * 8)
			atomic_store(&tids[n], (int)msg.arg.pagefault.feat.ptid);
		atomic_store(&nr_faults, n + 1);
		/* EEXIST: two threads faulted on it. */
		if (ioctl(uffd, UFFDIO_ZEROPAGE, &zero) < 0 && errno == EEXIST)
			ioctl(uffd, UFFDIO_WAKE, &zero.range);
	}
	return NULL;
}

static void watch(void *memory)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID };
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)memory, .len = MEMORY },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	pthread_t thread;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0) {
		printf("userfaultfd: %s\n", strerror(errno));
		exit(77);
	}
	if (ioctl(uffd, UFFDIO_REGISTER, &range) < 0)
		fail("UFFDIO_REGISTER: %s", strerror(errno));
	if (pthread_create(&thread, NULL, serve_faults, NULL) != 0)
		fail("can't make a thread");
	pthread_detach(thread);
}

/* How many faults there were since the last time, and how many of them were another thread's. */
static unsigned faults(unsigned *others)
{
	unsigned n = atomic_exchange(&nr_faults, 0);

	*others = 0;
	for (unsigned i = 0; i < n; i++)
		*others += atomic_load(&tids[i]) != gettid();
	return n;
}

static void drop_pages(void *memory)
{
	if (madvise(memory, MEMORY, MADV_DONTNEED) < 0)
		fail("madvise: %s", strerror(errno));
}

/* ---- requests ---- */

static void *map(int flags, int fd)
{
	void *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (memory == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return memory;
}

/* Runs of odd lengths, one in every second page. */
static int runs(struct iovec *iov, uint8_t *memory)
{
	int n = 0;

	for (int i = 0; i < PAGES; i += 2)
		iov[n++] = (struct iovec){ memory + i * PAGE + 17 * i, PAGE / 2 + i };
	return n;
}

static ssize_t total(const struct iovec *iov, int n)
{
	ssize_t bytes = 0;

	for (int i = 0; i < n; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

static void called_back(void *opaque, int error)
{
	atomic_int *result = opaque;

	atomic_store(result, error ? error : 1);
}

static int start(bool read, const struct iovec *iov, int n, unsigned flags,
		 const struct ndio_completion *completion)
{
	return read ? ndio_aio_preadv(volume, iov, n, 4096, flags, completion) :
		      ndio_aio_pwritev(volume, iov, n, 4096, flags, completion);
}

/* One request by each way of waiting for it. */
static void run_three(bool read, const struct iovec *iov, int n, unsigned flags)
{
	struct ndio_completion completion = { .queue = queue };
	struct ndio_event event;
	atomic_int result = 0;
	ssize_t ret = read ? ndio_preadv(volume, iov, n, 100, flags) :
			     ndio_pwritev(volume, iov, n, 100, flags);

	if (ret != total(iov, n))
		fail("%s", ndio_error());
	if (start(read, iov, n, flags, &completion) < 0 ||
	    ndio_queue_reap(queue, &event, 1, -1) != 1 || event.error)
		fail("a request by queue failed: %s", ndio_error());
	completion = (struct ndio_completion){ .callback = called_back, .opaque = &result };
	if (start(read, iov, n, flags, &completion) < 0)
		fail("%s", ndio_error());
	while (atomic_load(&result) == 0)
		usleep(100);
	if (atomic_load(&result) < 0)
		fail("a request failed: %s", strerror(-atomic_load(&result)));
}

static unsigned long locked_kib(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[256];

	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "VmLck: %lu", &kib) == 1)
			break;
	fclose(status);
	return kib;
}

/* ---- what is shown ---- */

static void test_faults(void)
{
	uint8_t *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	unsigned long before = locked_kib();
	struct iovec iov[PAGES];
	unsigned others, n;
	int count;

	watch(memory);
	for (int read = 0; read < 2; read++) {
		count = runs(iov, memory);
		/* Without pinning, memory that isn't there is a worker's business. */
		drop_pages(memory);
		run_three(read, iov, count, 0);
		n = faults(&others);
		if (others == 0)
			fail("no worker of %u faults: this test sees nothing", n);
		drop_pages(memory);
		run_three(read, iov, count, NDIO_PIN);
		n = faults(&others);
		if (n < (unsigned)count || others)
			fail("%s with NDIO_PIN: %u faults of %u were in another thread",
			     read ? "reads" : "writes", others, n);
		/* Gone again, before each. */
		wait_until_freed(volume);
		if (locked_kib() != before)
			fail("%lu KiB are still locked", locked_kib() - before);
		printf("%s with NDIO_PIN: %u faults, all in the caller's thread\n",
		       read ? "reads" : "writes", n);
	}
	if (stats_of(volume).pins == 0 || stats_of(volume).pins != stats_of(volume).unpins)
		fail("%llu pins, %llu unpins", (unsigned long long)stats_of(volume).pins,
		     (unsigned long long)stats_of(volume).unpins);
}

static void test_regions(void)
{
	uint8_t *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	unsigned long before = locked_kib(), registered;
	struct iovec iov[PAGES], outside;
	uint64_t pins;
	int count = runs(iov, memory);

	if (ndio_region_register(memory, MEMORY) < 0 ||
	    ndio_region_register(memory + PAGE, 3 * PAGE) < 0)
		fail("%s", ndio_error());
	registered = locked_kib();
	if (registered != before + MEMORY / 1024)
		fail("%lu KiB are locked, not %u", registered - before, MEMORY / 1024);
	pins = stats_of(volume).pins;
	for (int i = 0; i < 50; i++) {
		run_three(i % 2, iov, count, NDIO_PIN);
		if (locked_kib() != registered)
			fail("a request in a region changed what is locked");
	}
	wait_until_freed(volume);
	if (stats_of(volume).pins != pins)
		fail("requests inside a region pin");
	outside = (struct iovec){ map(MAP_PRIVATE | MAP_ANONYMOUS, -1), 9000 };
	run_three(true, &outside, 1, NDIO_PIN);
	wait_until_freed(volume);
	if (stats_of(volume).pins != pins + 3)
		fail("requests outside the region don't pin");
	if (ndio_region_unregister(memory, PAGE) != -ENOENT)
		fail("a range that isn't registered can be unregistered");
	if (ndio_region_unregister(memory, MEMORY) < 0 ||
	    locked_kib() != before + 3 * PAGE / 1024 ||
	    ndio_region_unregister(memory + PAGE, 3 * PAGE) < 0)
		fail("unregistering: %s", ndio_error());
	if (ndio_region_unregister(memory, MEMORY) != -ENOENT)
		fail("a range can be unregistered twice");
	if (locked_kib() != before)
		fail("%lu KiB are still locked", locked_kib() - before);
}

static void test_maps(void)
{
	struct iovec iov[PAGES];
	int count = runs(iov, map(MAP_PRIVATE | MAP_ANONYMOUS, -1));

	atomic_store(&maps_read, 0);
	if (ndio_preadv(volume, iov, count, 0, NDIO_PIN) < 0)
		fail("%s", ndio_error());
	if (atomic_load(&maps_read) != 1)
		fail("%u times for %d pieces", atomic_load(&maps_read), count);
	wait_until_freed(volume);
}

static void fill_volume(uint8_t value)
{
	uint8_t buf[MEMORY];
	struct iovec iov = { buf, MEMORY };

	memset(buf, value, MEMORY);
	if (ndio_pwritev(volume, &iov, 1, 0, 0) != MEMORY)
		fail("%s", ndio_error());
}

static bool holds(const uint8_t *memory, uint8_t value)
{
	for (size_t i = 0; i < MEMORY; i++)
		if (memory[i] != value)
			return false;
	return true;
}

static void test_shared(void)
{
	int fd = memfd_create("ndio-pins", MFD_CLOEXEC);
	struct ndio_completion completion = { .callback = called_back };
	unsigned others, n;
	struct ndio_event event;
	struct pollfd ready = { .fd = ndio_queue_fd(queue), .events = POLLIN };
	struct iovec iov;
	uint8_t *memory;

	if (fd < 0 || ftruncate(fd, MEMORY) < 0)
		fail("memfd: %s", strerror(errno));
	memory = map(MAP_SHARED, fd);
	iov = (struct iovec){ memory, MEMORY };
	fill_volume(0x41);
	memset(memory, 0x42, MEMORY);

	if (ndio_aio_preadv(volume, &iov, 1, 0, NDIO_PIN, &completion) != -EOPNOTSUPP)
		fail("a read into a shared mapping with NDIO_PIN and a callback isn't refused");
	completion = (struct ndio_completion){ .queue = queue, .opaque = &iov };
	if (ndio_aio_preadv(volume, &iov, 1, 0, NDIO_PIN, &completion) < 0)
		fail("%s", ndio_error());
	poll(&ready, 1, 10000);
	wait_until_freed(volume);
	if (!holds(memory, 0x42))
		fail("the data are there before the completion is fetched");
	if (ndio_queue_reap(queue, &event, 1, 0) != 1 || event.error || event.opaque != &iov)
		fail("the read failed");
	if (!holds(memory, 0x41))
		fail("the data aren't there after the completion was fetched");

	/* No other thread faults on it either. */
	watch(memory);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MEMORY) < 0)
		fail("fallocate: %s", strerror(errno));
	faults(&others);
	if (ndio_aio_preadv(volume, &iov, 1, 0, NDIO_PIN, &completion) < 0 ||
	    ndio_queue_reap(queue, &event, 1, -1) != 1 || event.error)
		fail("the read failed: %s", ndio_error());
	n = faults(&others);
	if (n != PAGES || others)
		fail("%u faults of %u were in another thread", others, n);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MEMORY) < 0)
		fail("fallocate: %s", strerror(errno));
	if (ndio_preadv(volume, &iov, 1, 0, NDIO_PIN) != MEMORY || !holds(memory, 0x41))
		fail("the read failed: %s", ndio_error());
	n = faults(&others);
	if (n != PAGES || others)
		fail("a blocking read: %u faults of %u were in another thread", others, n);

	/* Events that nobody fetches are lost, and memory that is gone isn't touched. */
	if (ndio_aio_preadv(volume, &iov, 1, 0, NDIO_PIN, &completion) < 0)
		fail("%s", ndio_error());
	wait_until_freed(volume);
	usleep(50000);
	munmap(memory, MEMORY);
	ndio_queue_free(queue);
	queue = NULL;
	close(fd);
}

static void drop_ipc_lock(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		fail("capget: %s", strerror(errno));
	data[0].effective &= ~(1u << CAP_IPC_LOCK);
	if (syscall(SYS_capset, &header, data) < 0)
		fail("capset: %s", strerror(errno));
}

/* The call fails with this error, at once, and nothing is left behind. */
static void refused(const char *what, const struct iovec *iov, int n, int error)
{
	const struct ndio_completion completion = { .queue = queue };
	unsigned long before = locked_kib();
	struct ndio_stats stats, was;
	struct ndio_event event;

	wait_until_freed(volume);
	was = stats_of(volume);
	for (int i = 0; i < 4; i++) {
		ssize_t ret = i == 0 ? ndio_preadv(volume, iov, n, 0, NDIO_PIN) :
			      i == 1 ? ndio_pwritev(volume, iov, n, 0, NDIO_PIN) :
			      i == 2 ? ndio_aio_preadv(volume, iov, n, 0, NDIO_PIN, &completion) :
				       ndio_aio_pwritev(volume, iov, n, 0, NDIO_PIN, &completion);

		if (ret != error)
			fail("%s: %zd and not %s", what, ret, strerror(-error));
		if (!strstr(ndio_error(), strerror(-error)))
			fail("%s: the error is told as %s", what, ndio_error());
	}
	stats = stats_of(volume);
	if (ndio_queue_reap(queue, &event, 1, 20) != 0)
		fail("%s: a request that was refused completes", what);
	if (stats.pins != was.pins || stats.reads != was.reads || stats.writes != was.writes ||
	    stats.in_flight)
		fail("%s: a request that was refused did something", what);
	if (locked_kib() != before)
		fail("%s: %ld KiB more are locked", what, (long)(locked_kib() - before));
}

static void test_limits(void)
{
	uint8_t *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct rlimit limit;
	struct iovec iov[PAGES];
	int count;

	/* One that can't be locked, after some that can: not unmapped, or another thread's memory
	 * might come there. */
	if (mprotect(memory + 40 * PAGE, 2 * PAGE, PROT_NONE) < 0)
		fail("mprotect: %s", strerror(errno));
	count = runs(iov, memory);
	refused("memory that nobody may touch", iov, count, -ENOMEM);
	if (ndio_region_register(memory, MEMORY) != -ENOMEM)
		fail("memory that nobody may touch can be registered");

	memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	count = runs(iov, memory);
	drop_ipc_lock();
	limit.rlim_cur = limit.rlim_max = locked_kib() * 1024 + 20 * PAGE;
	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		fail("setrlimit: %s", strerror(errno));
	refused("over the limit", iov, count, -ENOMEM);
	run_three(true, iov, 1, NDIO_PIN);
	run_three(false, iov, count, 0);
	wait_until_freed(volume);
}

int main(int argc, char **argv)
{
	const char *what;
	int opt;

	while ((opt = getopt(argc, argv, "k:")) != -1) {
		if (opt != 'k')
			fail("see the start of ndio-pins.c");
		opening.key_path = optarg;
	}
	if (argc - optind != 2)
		fail("see the start of ndio-pins.c");
	what = argv[optind];
	opening.locator = argv[optind + 1];
	volume = open_volume(&opening);
	if (ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	if (strcmp(what, "faults") == 0)
		test_faults();
	else if (strcmp(what, "regions") == 0)
		test_regions();
	else if (strcmp(what, "shared") == 0)
		test_shared();
	else if (strcmp(what, "maps") == 0)
		test_maps();
	else if (strcmp(what, "limits") == 0)
		test_limits();
	else
		fail("see the start of ndio-pins.c");
	ndio_close(volume, NDIO_CLOSE_WAIT);
	ndio_queue_free(queue);
	if (locked_kib() != 0)
		fail("%lu KiB are locked at the end", locked_kib());
	return 0;
}
