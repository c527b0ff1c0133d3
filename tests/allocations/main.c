/* allocations [-j JOBS] [-s STRIDE] [-O] [-R] [-k KEYFILE -d IMAGE [-t TRUST]] SOCKET URI: counts what a run asks
 * for, and then runs once for each allocation that the library's own code asks for, and for one of STRIDE
 * of all others that are made meanwhile, by libraries for it. -k: of an encrypted disk; -t: with a copy of
 * this trust file. -O: what other libraries ask for while it is opened isn't counted.
 * -R: a server that is lost isn't waited for, and so it lives; and a flush that failed has failed for good.
 *
 * JOBS runs go on at a time. In SOCKET, where the server listens, and URI, how it is reached, % stands
 * for the number of a job, from 0 on: something may stand between the two.
 *
 * -o OWN|-a ALL: only the run in which that allocation fails, in this process. */
#include <errno.h>
#include <fcntl.h>
#include <ndio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/fail.h"
#include "allocations.h"

#define JOBS       64
#define HANGS      200           /* seconds */
#define EXCUSED    77            /* a status: it is another's error */
#define UNFLUSHED  (1024 * 1024) /* bytes: the least */
#define KIB        1024
#define MOST_TRUST (4096 * KIB)
#define SIZE       (1024 * KIB) /* of the disk, as far as it is used */

static struct {
	unsigned jobs, stride;
	bool open_first, no_reconnect;
	const char *key_path, *image_path, *trust_path, *socket, *uri;
	enum whose whose;
	long at;
} options = { .jobs = 16, .stride = 1 };

/* Of the run in which nothing fails; in memory that all processes share. */
static struct totals {
	long counts[WHOSE];
	int descriptors; /* more than before it */
} * totals;

static char key[512];
static size_t key_len;
static uint8_t image[DISK];
static size_t image_len = SIZE;

static struct ndio_volume *volume;
static uint8_t wanted[SIZE], data[SIZE];
static char socket_path[100], uri[4096], trust_path[4096];

/* ---- what is done in a run ---- */

static int open_it(void)
{
	const struct ndio_options to = {
		.struct_size = sizeof(to),
		.flags = options.no_reconnect ? NDIO_OPEN_NO_RECONNECT : 0,
		.key = key_len ? key : NULL,
		.key_len = key_len,
		.trust = options.trust_path ? trust_path : NULL,
		.connections = 2,
		.unflushed = UNFLUSHED,
	};

	return ndio_open(uri, &to, &volume);
}

static int write_bytes(uint64_t start, uint64_t len, int value)
{
	const struct iovec iov = { data, len };
	ssize_t ret;

	memset(data, value, len);
	memset(wanted + start, value, len);
	ret = ndio_pwritev(volume, &iov, 1, start, 0);
	return ret < 0 ? ret : 0;
}

/* More than half of what may be unflushed: so it flushes by itself. */
static int write_most(void)
{
	return write_bytes(0, 768 * KIB, 1);
}

static int write_rest(void)
{
	return write_bytes(768 * KIB, 256 * KIB, 2);
}

/* The server dies in the middle of it. */
static int write_over(void)
{
	if (server_deaths() == 0 && !options.no_reconnect)
		server_die(3);
	return write_bytes(256 * KIB, 256 * KIB, 3);
}

static int write_a_little(void)
{
	return write_bytes(4 * KIB, 4 * KIB, 4);
}

static int zero(void)
{
	memset(wanted + 512 * KIB, 0, 64 * KIB);
	return ndio_zero(volume, 512 * KIB, 64 * KIB, 0);
}

static int flush(void)
{
	return ndio_flush(volume);
}

static int die(void)
{
	if (!options.no_reconnect)
		server_die(0);
	return 0;
}

static int read_all(void)
{
	const struct iovec iov = { data, SIZE };
	ssize_t ret;

	memset(data, 0xaa, SIZE);
	ret = ndio_preadv(volume, &iov, 1, 0, 0);
	for (unsigned i = 0; ret >= 0 && i < SIZE; i++)
		if (data[i] != wanted[i])
			fail("byte %u is %u and not %u", i, data[i], wanted[i]);
	return ret < 0 ? ret : 0;
}

static int close_it(void)
{
	ndio_close(volume, NDIO_CLOSE_WAIT);
	return 0;
}

static const struct step {
	const char *name;
	int (*run)(void);
} steps[] = {
	{ "open", open_it },
	{ "write most", write_most },
	{ "write the rest", write_rest },
	{ "write while the server dies", write_over },
	{ "read", read_all },
	{ "the server dies", die },
	{ "write a little", write_a_little },
	{ "zero", zero },
	{ "flush", flush },
	{ "the server dies", die },
	{ "read", read_all },
	{ "close", close_it },
};

/* ---- a run ---- */

static int descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* 0, or how many failures it had. */
static unsigned take(const struct step *step)
{
	int ret = step->run();

	if (ret >= 0)
		return 0;
	if (!memory_has_failed())
		fail("%s: it fails though all memory was had: %s", step->name, ndio_error());
	if (!ndio_error()[0])
		fail("%s: it fails with %d, and says nothing", step->name, ret);
	printf("%s: %s\n", step->name, ndio_error());
	/* One that was never sent, too: without -R it is sent later. */
	if (options.no_reconnect && step->run == flush)
		return 1;
	ret = step->run();
	if (ret < 0)
		fail("%s: it fails when it is done again: %s", step->name, ndio_error());
	return 1;
}

static void run(enum whose whose, long at)
{
	int before = descriptors();
	unsigned failures = 0;

	server_start(socket_path, image, image_len);
	memory_fail(whose, at);
	memory_begin(OWN);
	if (!options.open_first)
		memory_begin(ALL);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		failures += take(&steps[i]);
		if (i == 0 && options.open_first)
			memory_begin(ALL);
	}
	memory_end();
	server_stop();
	if (failures > 1)
		fail("%u calls failed", failures);
	if (at == 0) {
		totals->counts[OWN] = memory_count(OWN);
		totals->counts[ALL] = memory_count(ALL);
		totals->descriptors = descriptors() - before;
	} else if (descriptors() - before > totals->descriptors) {
		fail("%d descriptors are left", descriptors() - before - totals->descriptors);
	}
}

/* libnbd 1.14 asserts that it has an error to tell, and may have had no memory for that. */
void __assert_fail(const char *text, const char *file, unsigned line, const char *function);
__attribute__((visibility("default"), noreturn)) void
__assert_fail(const char *text, const char *file, unsigned line, const char *function)
{
	fprintf(stderr, "%s:%u: %s: %s\n", file, line, function, text);
	if (memory_has_failed() && strcmp(text, "nbd_get_error ()") == 0)
		_exit(EXCUSED);
	abort();
}

/* ---- many runs ---- */

static pid_t running[JOBS];
static struct {
	enum whose whose;
	long at;
} runs[JOBS];
static unsigned wrong, excused;

static size_t read_file(const char *path, void *to, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, to, size);

	if (n < 0)
		fail("%s: %s", path, strerror(errno));
	close(fd);
	return n;
}

/* As it was when the disk was made. */
static void copy_trust(unsigned job)
{
	static char bytes[MOST_TRUST];
	size_t len = read_file(options.trust_path, bytes, sizeof(bytes));
	int fd;

	snprintf(trust_path, sizeof(trust_path), "%s.%u", options.trust_path, job);
	fd = open(trust_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
		fail("%s: %s", trust_path, strerror(errno));
	close(fd);
}

/* From a text in which % stands for it. */
static void put_number(char *to, size_t size, const char *text, unsigned number)
{
	const char *mark = strchr(text, '%');

	if (!mark)
		fail("%s: there is no %% in it", text);
	snprintf(to, size, "%.*s%u%s", (int)(mark - text), text, number, mark + 1);
}

static void set_up_job(unsigned job)
{
	put_number(socket_path, sizeof(socket_path), options.socket, job);
	put_number(uri, sizeof(uri), options.uri, job);
	if (options.trust_path)
		copy_trust(job);
}

static void start(unsigned job, enum whose whose, long at)
{
	runs[job].whose = whose;
	runs[job].at = at;
	fflush(NULL);
	running[job] = fork();
	if (running[job] < 0)
		fail("fork: %s", strerror(errno));
	if (running[job] > 0)
		return;
	set_up_job(job);
	alarm(HANGS);
	run(whose, at);
	exit(0);
}

/* The job that has ended. */
static unsigned wait_for_one(void)
{
	unsigned job = 0;
	int status;
	pid_t pid = wait(&status);

	while (running[job] != pid)
		job++;
	running[job] = 0;
	if (status == 0)
		return job;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXCUSED) {
		excused++;
		return job;
	}
	wrong++;
	fprintf(stderr, "%s %ld: %s %d\n", runs[job].whose == OWN ? "-o" : "-a", runs[job].at,
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return job;
}

static unsigned nr_running;

static void run_each(enum whose whose, long first, unsigned stride)
{
	for (long at = first; at <= totals->counts[whose]; at += stride) {
		unsigned job = nr_running < options.jobs ? nr_running++ : wait_for_one();

		start(job, whose, at);
	}
	for (; nr_running > 0; nr_running--)
		wait_for_one();
}

static void count(void)
{
	start(0, ALL, 0);
	wait_for_one();
	if (wrong)
		fail("it doesn't work though all memory is had");
}

/* ---- options ---- */

static void read_options(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "j:s:ORk:d:t:o:a:")) != -1) {
		if (opt == 'j')
			options.jobs = atoi(optarg);
		else if (opt == 's')
			options.stride = atoi(optarg);
		else if (opt == 'O')
			options.open_first = true;
		else if (opt == 'R')
			options.no_reconnect = true;
		else if (opt == 'k')
			options.key_path = optarg;
		else if (opt == 'd')
			options.image_path = optarg;
		else if (opt == 't')
			options.trust_path = optarg;
		else if (opt == 'o' || opt == 'a')
			options.whose = opt == 'o' ? OWN : ALL, options.at = atol(optarg);
		else
			fail("see the start of tests/allocations/main.c");
	}
	if (argc - optind != 2 || options.jobs < 1 || options.jobs > JOBS || options.stride < 1)
		fail("see the start of tests/allocations/main.c");
	options.socket = argv[optind];
	options.uri = argv[optind + 1];
	if (options.key_path)
		key_len = read_file(options.key_path, key, sizeof(key));
	if (options.image_path)
		image_len = read_file(options.image_path, image, sizeof(image));
}

int main(int argc, char **argv)
{
	read_options(argc, argv);
	totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (totals == MAP_FAILED)
		fail("no memory");
	if (options.at) {
		totals->descriptors = 256;
		set_up_job(0);
		run(options.whose, options.at);
		return 0;
	}
	count();
	run_each(OWN, 1, 1);
	run_each(ALL, 1, options.stride);
	printf("own=%ld all=%ld excused=%u wrong=%u\n", totals->counts[OWN], totals->counts[ALL],
	       excused, wrong);
	return wrong > 0;
}
