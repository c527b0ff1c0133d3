#include "attach/kernel-device.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "terminal/device-users.h"
#include "terminal/interrupt.h"
#include "terminal/number.h"
#include "terminal/patience.h"
#include "terminal/program.h"

#define SECTOR      512 /* sysfs counts these, whatever the device's own are */
#define READY_MS    10000
#define FREE_MS     10000
#define READERS_MS  3000 /* until the kernel has started to read all connections, or ended it */
#define CONNECT_MAX 5    /* attempts */
#define BUSY_MS     5000 /* for who only looks what is on a device, like udev */
#define BUSY_PAUSE  100  /* ms, until it is tried again */

bool kernel_device_parse(const char *name, unsigned *index)
{
	uint64_t number;

	if (strncmp(name, "/dev/", 5) == 0)
		name += 5;
	/* One name for each: not nbd007. */
	if (strncmp(name, "nbd", 3) != 0 || (name[3] == '0' && name[4]) ||
	    !parse_number(name + 3, KERNEL_DEVICES_MAX - 1, &number))
		return false;
	*index = number;
	return true;
}

/* ---- sysfs ---- */

static void sysfs_path(unsigned index, const char *file, char path[64])
{
	snprintf(path, 64, "/sys/block/nbd%u/%s", index, file);
}

static bool sysfs_has(unsigned index, const char *file)
{
	char path[64];

	sysfs_path(index, file, path);
	return access(path, F_OK) == 0;
}

/* Up to max numbers, separated by blanks. How many there were. */
static unsigned sysfs_numbers(unsigned index, const char *file, uint64_t *numbers, unsigned max)
{
	char path[64];
	unsigned count = 0;
	FILE *stream;

	sysfs_path(index, file, path);
	stream = fopen(path, "re");
	if (!stream)
		return 0;
	while (count < max && fscanf(stream, "%" SCNu64, &numbers[count]) == 1)
		count++;
	fclose(stream);
	return count;
}

bool kernel_device_attached(unsigned index)
{
	return sysfs_has(index, "pid");
}

void kernel_device_facts(unsigned index, struct kernel_device_facts *facts)
{
	/* The kernel's Documentation/block/stat.rst: requests, merges, sectors and ticks of
	 * reads, then of writes. */
	uint64_t stat[7], size, ro;

	memset(facts, 0, sizeof(*facts));
	if (sysfs_numbers(index, "size", &size, 1) == 1)
		facts->size = size * SECTOR;
	facts->read_only = sysfs_numbers(index, "ro", &ro, 1) == 1 && ro;
	if (sysfs_numbers(index, "stat", stat, 7) < 7)
		return;
	facts->counts.reads = stat[0];
	facts->counts.read_bytes = stat[2] * SECTOR;
	facts->counts.writes = stat[4];
	facts->counts.written_bytes = stat[6] * SECTOR;
}

bool kernel_device_idle(unsigned index)
{
	uint64_t counts[2]; /* of reads, and of writes */

	return sysfs_numbers(index, "inflight", counts, 2) == 2 && counts[0] + counts[1] == 0;
}

int kernel_device_load_module(struct error *err)
{
	char path[PATH_MAX];
	const char *const argv[] = { path, "nbd", NULL };
	struct program_output output;
	int ret;

	if (access("/sys/module/nbd", F_OK) == 0)
		return 0;
	ret = program_find("modprobe", "kmod", path, err);
	if (ret == 0)
		ret = program_run(argv, -1, &output, err);
	if (ret > 0)
		ret = error_set(err, ENODEV, "the kernel has no nbd module: %s",
				program_reason(&output, "modprobe: FATAL: "));
	return ret;
}

/* ---- nbd-client ---- */

static int run_client(const char *const argv[], const char *step, unsigned index, struct error *err)
{
	struct program_output output;
	int ret = program_run(argv, -1, &output, err);

	if (ret > 0)
		ret = error_set(err, EIO, "/dev/nbd%u: %s (nbd-client): %s", index, step,
				program_reason(&output, "Error: "));
	return ret;
}

static int run_connect(unsigned index, const struct kernel_device_connect *connect,
		       struct error *err)
{
	char path[PATH_MAX], device[32], connections[16], block_size[16], timeout[16];
	const char *const argv[] = {
		path,        "-unix",       connect->socket, device,     "-connections",
		connections, "-block-size", block_size,      "-timeout", timeout,
		NULL
	};
	int ret = program_find("nbd-client", "nbd-client", path, err);

	snprintf(device, sizeof(device), "/dev/nbd%u", index);
	snprintf(connections, sizeof(connections), "%u", connect->connections);
	snprintf(block_size, sizeof(block_size), "%u", connect->block_size);
	snprintf(timeout, sizeof(timeout), "%u", connect->timeout);
	return ret < 0 ? ret : run_client(argv, "connecting the kernel", index, err);
}

static bool kernel_device_is_unused(void *opaque)
{
	return kernel_device_user(*(unsigned *)opaque) == 0;
}

/* The kernel takes no device that somebody has open, though nothing be connected to it, and
 * nbd-client can't tell that from any other reason. */
static int connect_patiently(unsigned index, const struct kernel_device_connect *connect,
			     struct error *err)
{
	int64_t deadline = clock_ms() + BUSY_MS;
	pid_t user;
	int ret;

	while ((ret = run_connect(index, connect, err)) == -EIO) {
		user = kernel_device_user(index);
		if (interrupt_caught() ||
		    (user == 0 && clock_ms() > deadline - BUSY_MS + BUSY_PAUSE))
			return ret;
		if (clock_ms() > deadline)
			return error_set(err, EBUSY, "/dev/nbd%u is in use: process %d has it open",
					 index, user);
		patience(BUSY_PAUSE, kernel_device_is_unused, &index);
	}
	return ret;
}

static bool is_ready(void *opaque)
{
	const unsigned *index = opaque;
	uint64_t size;

	return kernel_device_attached(*index) && sysfs_numbers(*index, "size", &size, 1) == 1 &&
	       size > 0;
}

/* The name of a kernel thread that works on something ends in "+" and what it works on. Anybody can
 * take such a name, but not be a child of kthreadd, process 2. */
static bool reads_for(const char *pid, const char *work)
{
	char path[300], stat[512] = "", *end, *plus;
	int parent = 0;
	FILE *stream;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	stream = fopen(path, "re");
	if (!stream)
		return false;
	end = fgets(stat, sizeof(stat), stream) ? strrchr(stat, ')') : NULL;
	fclose(stream);
	if (!end || sscanf(end, ") %*c %d", &parent) != 1 || parent != 2)
		return false;
	*end = '\0';
	plus = strrchr(stat, '+');
	return plus && strcmp(plus + 1, work) == 0;
}

unsigned kernel_device_readers(unsigned index)
{
	struct dirent *entry;
	unsigned count = 0;
	char work[32];
	DIR *proc = opendir("/proc");

	if (!proc)
		return 0;
	snprintf(work, sizeof(work), "nbd%u-recv", index);
	while ((entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) && reads_for(entry->d_name, work))
			count++;
	closedir(proc);
	return count;
}

struct readers {
	unsigned index, wanted;
};

static bool all_read(void *opaque)
{
	const struct readers *readers = opaque;

	return kernel_device_readers(readers->index) >= readers->wanted;
}

static void kernel_device_let_go(unsigned index)
{
	kernel_device_disconnect(index, NULL);
	kernel_device_wait_free(index, FREE_MS);
}

static bool none_reads(void *opaque)
{
	return kernel_device_readers(*(unsigned *)opaque) == 0;
}

void kernel_device_let_go_dead(unsigned index)
{
	if (kernel_device_attached(index) && patience(READERS_MS, none_reads, &index))
		kernel_device_let_go(index);
}

/* 1: the kernel reads all of the connections; 0: it doesn't; or a negative errno. An interrupt is heard
 * also when it comes as all is done. */
static int check_connected(struct readers *readers, struct error *err)
{
	bool ready = patience(READY_MS, is_ready, &readers->index);
	bool read = ready && (readers->wanted == 1 || patience(READERS_MS, all_read, readers));

	if (interrupt_caught())
		return error_set(err, EINTR, "interrupted");
	if (!ready)
		return error_set(err, ETIMEDOUT,
				 "/dev/nbd%u: connected, but the kernel doesn't show it",
				 readers->index);
	return read;
}

/* The kernel reads each connection in a work item that never ends. Where starting threads for
 * them takes it longer than 10 ms, its rescuer takes several, and begins with the second when the
 * first ends, which is never (Linux 6.1): what comes over that connection is lost, and the
 * device hangs until its timeout. The threads are there when one tries again. */
int kernel_device_connect(unsigned index, const struct kernel_device_connect *connect,
			  struct error *err)
{
	struct readers readers = { .index = index, .wanted = connect->connections };

	for (unsigned i = 0; i < CONNECT_MAX; i++) {
		int ret;

		if (interrupt_caught())
			return error_set(err, EINTR, "interrupted");
		ret = connect_patiently(index, connect, err);
		if (ret < 0)
			return ret;
		ret = check_connected(&readers, err);
		if (ret > 0)
			return 0;
		kernel_device_let_go(index);
		if (ret < 0)
			return ret;
	}
	return error_set(err, EIO, "/dev/nbd%u: the kernel doesn't read all of its %u connections",
			 index, connect->connections);
}

int kernel_device_claim(unsigned index, struct error *err)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/nbd%u", index);
	return device_claim(path, err);
}

/* ---- who has it open ---- */

static bool is_name_of(const char *name, const char *device)
{
	size_t len = strlen(device);

	return strncmp(name, device, len) == 0 && (!name[len] || name[len] == 'p');
}

/* The device itself or a partition of it. Anybody can have something open that has its name: a file
 * where he has mounted something of his own, or the device as a path alone (O_PATH), which the link
 * in /proc lacks the modes of. A file system that doesn't answer isn't asked. */
static bool kernel_device_is_open(int fds, const char *fd, const char *device)
{
	char name[PATH_MAX];
	ssize_t len = readlinkat(fds, fd, name, sizeof(name) - 1);
	struct statx file;
	struct stat link;

	name[len > 0 ? len : 0] = '\0';
	return is_name_of(name, device) && fstatat(fds, fd, &link, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (link.st_mode & (S_IRUSR | S_IWUSR)) != 0 &&
	       statx(fds, fd, AT_STATX_DONT_SYNC, STATX_TYPE, &file) == 0 && S_ISBLK(file.stx_mode);
}

static bool has_open(const char *pid, const char *device)
{
	struct dirent *entry;
	bool found = false;
	char path[300];
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	fds = opendir(path);
	if (!fds)
		return false;
	while (!found && (entry = readdir(fds)))
		found = kernel_device_is_open(dirfd(fds), entry->d_name, device);
	closedir(fds);
	return found;
}

pid_t kernel_device_user(unsigned index)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	char device[32];
	pid_t user = 0;

	if (!proc)
		return 0;
	snprintf(device, sizeof(device), "/dev/nbd%u", index);
	while (user == 0 && (entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) && atoi(entry->d_name) != getpid() &&
		    has_open(entry->d_name, device))
			user = atoi(entry->d_name);
	closedir(proc);
	return user;
}

int kernel_device_disconnect(unsigned index, struct error *err)
{
	char path[PATH_MAX], device[32];
	const char *const argv[] = { path, "-d", device, NULL };
	int ret = program_find("nbd-client", "nbd-client", path, err);

	snprintf(device, sizeof(device), "/dev/nbd%u", index);
	return ret < 0 ? ret : run_client(argv, "disconnecting", index, err);
}

static bool is_free(void *opaque)
{
	return !kernel_device_attached(*(unsigned *)opaque);
}

int kernel_device_wait_free(unsigned index, unsigned ms)
{
	return patience(ms, is_free, &index) ? 0 : -EBUSY;
}
