#include "file/image-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* qemu's numbers. */
#define HAS_BASE       100
#define ALONE_BASE     200
#define READ           (1 << 0)
#define WRITE          (1 << 1)
#define RESIZE         (1 << 3)
#define NR_PERMISSIONS 4

/* A program that was killed keeps its locks until the kernel has ended its I/O. */
#define TRIES    40
#define PAUSE_MS 50

#define ALONE (WRITE | RESIZE) /* what a writer shares with nobody */

/* A locked file. */
struct image_lock {
	struct image_lock *next;
	dev_t dev;
	ino_t ino;
	int fd; /* of the description that has the locks: it stays open as long as they do */
	unsigned users;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct image_lock *all;

/* ---- single bytes ---- */

static int lock_byte(int fd, short type, off_t byte)
{
	struct flock range = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	int ret;

	do
		ret = fcntl(fd, F_OFD_SETLK, &range);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

/* The permissions that another description has, or has alone, out of these. */
static unsigned held(int fd, off_t base, unsigned permissions)
{
	unsigned found = 0;

	for (unsigned i = 0; i < NR_PERMISSIONS; i++) {
		struct flock range = {
			.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + i, .l_len = 1
		};

		if ((permissions & 1 << i) && fcntl(fd, F_OFD_GETLK, &range) == 0 &&
		    range.l_type != F_UNLCK)
			found |= 1 << i;
	}
	return found;
}

static int lock_bytes(int fd, off_t base, unsigned permissions)
{
	int ret = 0;

	for (unsigned i = 0; i < NR_PERMISSIONS && ret == 0; i++)
		if (permissions & 1 << i)
			ret = lock_byte(fd, F_RDLCK, base + i);
	return ret;
}

static void unlock_bytes(int fd)
{
	for (unsigned i = 0; i < NR_PERMISSIONS; i++) {
		lock_byte(fd, F_UNLCK, HAS_BASE + i);
		lock_byte(fd, F_UNLCK, ALONE_BASE + i);
	}
}

/* ---- one file ---- */

/* Ours first, then a look at the others': of two that come at once, one at least sees the other. */
static int try_lock(int fd, const char *name, bool resize, const struct notice *notice,
		    struct error *err)
{
	unsigned wanted = READ | WRITE | (resize ? RESIZE : 0);
	int ret = lock_bytes(fd, HAS_BASE, wanted);

	if (ret == 0)
		ret = lock_bytes(fd, ALONE_BASE, ALONE);
	if (ret == -EAGAIN || ret == -EACCES)
		return error_set(err, EBUSY, "%s: in use: another program has locked it", name);
	/* EBADF: opened for writing alone; it can still be asked who else is there. */
	if (ret < 0 && ret != -EBADF)
		notice_tell(notice,
			    "%s: its file system has no locks (%s): another program that "
			    "writes to it isn't noticed",
			    name, strerror(-ret));
	if (held(fd, HAS_BASE, ALONE))
		return error_set(err, EBUSY,
				 "%s: in use: another program has it open for writing; "
				 "is it being served, or a disk of qemu's?",
				 name);
	if (held(fd, ALONE_BASE, wanted))
		return error_set(err, EBUSY,
				 "%s: in use: another program has it open and lets nobody "
				 "else write to it",
				 name);
	return 0;
}

static struct image_lock *image_lock_find(const struct stat *st)
{
	struct image_lock *lock = all;

	while (lock && (lock->dev != st->st_dev || lock->ino != st->st_ino))
		lock = lock->next;
	return lock;
}

static int image_lock_add(int fd, const char *name, const struct stat *st, struct image_lock **lock,
			  struct error *err)
{
	int ret;

	*lock = calloc(1, sizeof(**lock));
	if (!*lock)
		return error_set(err, ENOMEM, "%s: no memory for its lock", name);
	(*lock)->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if ((*lock)->fd < 0) {
		ret = error_set(err, errno, "%s: keeping its lock: %s", name, strerror(errno));
		free(*lock);
		*lock = NULL; /* or the caller would release it */
		return ret;
	}
	(*lock)->dev = st->st_dev;
	(*lock)->ino = st->st_ino;
	(*lock)->users = 1;
	(*lock)->next = all;
	all = *lock;
	return 0;
}

static int image_lock_make(int fd, const char *name, bool resize, const struct notice *notice,
			   struct image_lock **lock, struct error *err)
{
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return error_set(err, errno, "%s: %s", name, strerror(errno));
	*lock = image_lock_find(&st);
	if (*lock) {
		(*lock)->users++;
		return 0;
	}
	ret = try_lock(fd, name, resize, notice, err);
	if (ret == 0)
		ret = image_lock_add(fd, name, &st, lock, err);
	if (ret < 0)
		unlock_bytes(fd);
	return ret;
}

int image_lock_take(int fd, const char *name, bool resize, const struct notice *notice,
		    struct image_lock **lock, struct error *err)
{
	/* Not in step with another one that does the same. */
	const struct timespec pause = { .tv_nsec = (PAUSE_MS + getpid() % 20) * 1000000L };
	int ret;

	for (unsigned left = TRIES - 1;; left--) {
		pthread_mutex_lock(&mutex);
		ret = image_lock_make(fd, name, resize, notice, lock, err);
		pthread_mutex_unlock(&mutex);
		if (ret != -EBUSY || left == 0)
			return ret;
		nanosleep(&pause, NULL);
	}
}

void image_lock_release(struct image_lock *lock)
{
	struct image_lock **at = &all;

	if (!lock)
		return;
	pthread_mutex_lock(&mutex);
	if (--lock->users == 0) {
		while (*at != lock)
			at = &(*at)->next;
		*at = lock->next;
		close(lock->fd);
		free(lock);
	}
	pthread_mutex_unlock(&mutex);
}

void image_lock_look(int fd, const char *name, const struct notice *notice)
{
	struct stat st;
	bool ours;

	if (fstat(fd, &st) < 0)
		return;
	pthread_mutex_lock(&mutex);
	ours = image_lock_find(&st);
	pthread_mutex_unlock(&mutex);
	if (!ours && held(fd, HAS_BASE, WRITE))
		notice_tell(notice,
			    "%s: another program has it open for writing: what is read may "
			    "change meanwhile",
			    name);
}
