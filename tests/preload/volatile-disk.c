/* Preloaded into a server: the regular file VOLATILE_DISK becomes a disk with a volatile cache. What
 * is written stays in this process' memory until a flush, or FUA, covers it; killed, it is forgotten,
 * exactly that. There is no io_uring, which couldn't be seen here.
 *
 *   VOLATILE_DISK_KEEPS=PERCENT  of the writes go right to the file all the same, as with real disks:
 *                                what is forgotten is no longer all that came last
 *   VOLATILE_DISK_STALL=PATH     while this file exists, writes that come wait. Each adds a byte to
 *                                PATH.waiting. If it is renamed to PATH.held, those that wait go on
 *                                waiting until that is gone, and others pass them
 *   VOLATILE_DISK_LIE=NAME       one write in 50, or what is said, isn't done as it should be: drop,
 *                                half, misplace, late (once more, when others have come after it),
 *                                zero (nothing is zeroed), flush (nothing is flushed)
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE      4096
#define LIE_EVERY 50
#define LATE_BY   30 /* writes */
#define STALL_US  5000
#define AWAY      (16 * PAGE) /* where what is misplaced lands, from where it should */

/* Under the mutex, but for what never changes. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *path, *stall_path, *lie;
static unsigned keeps;
static dev_t disk_dev;
static ino_t disk_ino;
static int disk_fd = -1;
static uint64_t size;   /* bytes */
static uint8_t **pages; /* those that differ from the file */
static uint64_t nr_pages, writes;
static uint8_t *late_data; /* a write that is to come once more */
static uint64_t late_at, late_offset, late_len;

__attribute__((constructor)) static void configure(void)
{
	const char *percent = getenv("VOLATILE_DISK_KEEPS");
	struct stat st;

	path = getenv("VOLATILE_DISK");
	stall_path = getenv("VOLATILE_DISK_STALL");
	lie = getenv("VOLATILE_DISK_LIE");
	keeps = percent ? atoi(percent) : 0;
	if (!path || stat(path, &st) < 0) {
		path = NULL;
		return;
	}
	disk_dev = st.st_dev;
	disk_ino = st.st_ino;
	size = st.st_size;
}

static bool is_disk(int fd)
{
	int saved = errno;
	struct stat st;
	bool is = path && fstat(fd, &st) == 0 && st.st_dev == disk_dev && st.st_ino == disk_ino;

	errno = saved;
	return is;
}

static bool lies(const char *how)
{
	return lie && strcmp(lie, how) == 0;
}

/* ---- the file ---- */

static void need(bool done)
{
	if (!done)
		abort();
}

static int file(void)
{
	if (disk_fd < 0)
		disk_fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
	need(disk_fd >= 0);
	return disk_fd;
}

static void file_read(uint8_t *data, size_t len, uint64_t offset)
{
	ssize_t n = syscall(SYS_pread64, file(), data, len, offset);

	need(n >= 0);
	memset(data + n, 0, len - n);
}

static void file_write(const uint8_t *data, size_t len, uint64_t offset)
{
	need(syscall(SYS_pwrite64, file(), data, len, offset) == (ssize_t)len);
}

/* ---- the cache ---- */

static void grow(uint64_t end)
{
	uint64_t count = (end + PAGE - 1) / PAGE;

	if (end > size)
		size = end;
	if (count <= nr_pages)
		return;
	pages = realloc(pages, count * sizeof(pages[0]));
	need(pages);
	memset(pages + nr_pages, 0, (count - nr_pages) * sizeof(pages[0]));
	nr_pages = count;
}

static uint8_t *cached(uint64_t page)
{
	return page < nr_pages ? pages[page] : NULL;
}

static void write_back(uint64_t page)
{
	uint64_t offset = page * PAGE;

	if (!cached(page))
		return;
	file_write(pages[page], size - offset < PAGE ? size - offset : PAGE, offset);
	free(pages[page]);
	pages[page] = NULL;
}

static void flush_all(void)
{
	for (uint64_t i = 0; i < nr_pages && !lies("flush"); i++)
		write_back(i);
}

/* What of a range is in its first page. */
static size_t in_page(uint64_t offset, size_t len)
{
	size_t part = PAGE - offset % PAGE;

	return part < len ? part : len;
}

static void cache_read(uint8_t *data, size_t len, uint64_t offset)
{
	for (size_t part; len > 0; data += part, offset += part, len -= part) {
		const uint8_t *page = cached(offset / PAGE);

		part = in_page(offset, len);
		if (page)
			memcpy(data, page + offset % PAGE, part);
		else
			file_read(data, part, offset);
	}
}

/* data: NULL is zeroes. */
static void cache_write(const uint8_t *data, size_t len, uint64_t offset, bool through)
{
	grow(offset + len);
	for (size_t part; len > 0; offset += part, len -= part) {
		uint64_t number = offset / PAGE;

		part = in_page(offset, len);
		if (!pages[number]) {
			pages[number] = malloc(PAGE);
			need(pages[number]);
			file_read(pages[number], PAGE, number * PAGE);
		}
		if (data)
			memcpy(pages[number] + offset % PAGE, data, part);
		else
			memset(pages[number] + offset % PAGE, 0, part);
		if (through)
			write_back(number);
		data = data ? data + part : NULL;
	}
}

/* ---- faults ---- */

static bool exists(const char *name, const char *suffix)
{
	char full[4096];

	snprintf(full, sizeof(full), "%s%s", name, suffix);
	return access(full, F_OK) == 0;
}

static void tell_of_waiting(void)
{
	char full[4096];
	int fd;

	snprintf(full, sizeof(full), "%s.waiting", stall_path);
	fd = syscall(SYS_openat, AT_FDCWD, full, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	need(fd >= 0 && syscall(SYS_write, fd, "w", 1) == 1);
	close(fd);
}

/* Not under the mutex. The first look may see the file just before it is renamed. */
static void stall(void)
{
	int saved = errno;

	if (stall_path && exists(stall_path, "")) {
		tell_of_waiting();
		while (exists(stall_path, "") || exists(stall_path, ".held"))
			usleep(STALL_US);
	}
	errno = saved;
}

static void come_again(void)
{
	cache_write(late_data, late_len, late_offset, false);
	free(late_data);
	late_data = NULL;
}

static void remember(const uint8_t *data, size_t len, uint64_t offset)
{
	late_data = malloc(len);
	need(late_data);
	memcpy(late_data, data, len);
	late_len = len;
	late_offset = offset;
	late_at = writes + LATE_BY;
}

static void write_at(const uint8_t *data, size_t len, uint64_t offset, bool through)
{
	bool now = ++writes % LIE_EVERY == 0;

	if (late_data && writes >= late_at)
		come_again();
	if (now && lies("late") && !late_data)
		remember(data, len, offset);
	if (now && lies("drop"))
		return;
	if (now && lies("half"))
		len /= 2;
	if (now && lies("misplace") && offset + AWAY + len <= size)
		offset += AWAY;
	through |= keeps > 0 && writes * 0x9e3779b97f4a7c15 % 100 < keeps;
	cache_write(data, len, offset, through);
}

/* ---- what the server calls ---- */

static ssize_t disk_read(const struct iovec *iov, int count, off_t offset)
{
	ssize_t total = 0;

	pthread_mutex_lock(&mutex);
	for (int i = 0; i < count && (uint64_t)offset < size; i++) {
		size_t len = iov[i].iov_len;

		len = len < size - offset ? len : size - offset;
		cache_read(iov[i].iov_base, len, offset);
		offset += len;
		total += len;
	}
	pthread_mutex_unlock(&mutex);
	return total;
}

static ssize_t disk_write(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	bool through = (flags & (RWF_DSYNC | RWF_SYNC)) || (fcntl(fd, F_GETFL) & O_DSYNC);
	ssize_t total = 0;

	stall();
	pthread_mutex_lock(&mutex);
	for (int i = 0; i < count; i++) {
		write_at(iov[i].iov_base, iov[i].iov_len, offset + total, through);
		total += iov[i].iov_len;
	}
	pthread_mutex_unlock(&mutex);
	return total;
}

static int disk_flush(void)
{
	pthread_mutex_lock(&mutex);
	flush_all();
	pthread_mutex_unlock(&mutex);
	return 0;
}

ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return is_disk(fd) ? disk_read(iov, count, offset) :
			     syscall(SYS_preadv2, fd, iov, (long)count, offset, 0L, (long)flags);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return is_disk(fd) ? disk_write(fd, iov, count, offset, flags) :
			     syscall(SYS_pwritev2, fd, iov, (long)count, offset, 0L, (long)flags);
}

ssize_t pread(int fd, void *data, size_t len, off_t offset)
{
	const struct iovec iov = { data, len };

	return is_disk(fd) ? disk_read(&iov, 1, offset) :
			     syscall(SYS_pread64, fd, data, len, offset);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
	const struct iovec iov = { (void *)data, len };

	return is_disk(fd) ? disk_write(fd, &iov, 1, offset, 0) :
			     syscall(SYS_pwrite64, fd, data, len, offset);
}

ssize_t preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
	return is_disk(fd) ? disk_read(iov, count, offset) :
			     syscall(SYS_preadv, fd, iov, (long)count, offset, 0L);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	return is_disk(fd) ? disk_write(fd, iov, count, offset, 0) :
			     syscall(SYS_pwritev, fd, iov, (long)count, offset, 0L);
}

ssize_t __pread_chk(int fd, void *data, size_t len, off_t offset, size_t room)
{
	need(len <= room);
	return pread(fd, data, len, offset);
}

int fdatasync(int fd)
{
	return is_disk(fd) ? disk_flush() : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return is_disk(fd) ? disk_flush() : (int)syscall(SYS_fsync, fd);
}

/* Of pages alone: the disk's own cache isn't its affair. */
int sync_file_range(int fd, off64_t offset, off64_t len, unsigned flags)
{
	return is_disk(fd) ? 0 : (int)syscall(SYS_sync_file_range, fd, offset, len, flags);
}

/* Everything is data. */
off_t lseek(int fd, off_t offset, int whence)
{
	if ((whence != SEEK_DATA && whence != SEEK_HOLE) || !is_disk(fd))
		return syscall(SYS_lseek, fd, offset, whence);
	if (offset < 0 || (uint64_t)offset >= size) {
		errno = ENXIO;
		return -1;
	}
	return whence == SEEK_DATA ? offset : (off_t)size;
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	if (!is_disk(fd) || !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
		return syscall(SYS_fallocate, fd, mode, offset, len);
	stall();
	pthread_mutex_lock(&mutex);
	if (!lies("zero"))
		cache_write(NULL, len, offset, false);
	pthread_mutex_unlock(&mutex);
	return 0;
}

ssize_t pread64(int fd, void *data, size_t len, off64_t offset) __attribute__((alias("pread")));
ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset)
	__attribute__((alias("pwrite")));
ssize_t preadv64(int fd, const struct iovec *iov, int count, off64_t offset)
	__attribute__((alias("preadv")));
ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t offset)
	__attribute__((alias("pwritev")));
ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
	__attribute__((alias("preadv2")));
ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
	__attribute__((alias("pwritev2")));
ssize_t __pread64_chk(int fd, void *data, size_t len, off64_t offset, size_t room)
	__attribute__((alias("__pread_chk")));
off64_t lseek64(int fd, off64_t offset, int whence) __attribute__((alias("lseek")));
int fallocate64(int fd, int mode, off64_t offset, off64_t len) __attribute__((alias("fallocate")));

/* ---- io_uring, as where the kernel forbids it ---- */

struct io_uring;
struct io_uring_params;
int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p);

int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	(void)entries;
	(void)ring;
	(void)flags;
	return -EPERM;
}

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
	(void)p;
	return io_uring_queue_init(entries, ring, 0);
}
