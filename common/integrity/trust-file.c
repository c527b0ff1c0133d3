#include "integrity/trust-file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/path.h"

static int read_trust(void *opaque, uint64_t at, void *bytes, size_t len)
{
	struct trust_file *file = opaque;
	uint8_t *to = bytes;

	while (len > 0) {
		ssize_t got = pread(file->fd, to, len, at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0) {
			memset(to, 0, len);
			return 0;
		}
		to += got;
		at += got;
		len -= got;
	}
	return 0;
}

static int write_trust(void *opaque, uint64_t at, const void *bytes, size_t len)
{
	struct trust_file *file = opaque;
	const uint8_t *from = bytes;

	if (file->read_only)
		return -EROFS;
	while (len > 0) {
		ssize_t put = pwrite(file->fd, from, len, at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		from += put;
		at += put;
		len -= put;
	}
	return 0;
}

static int sync_trust(void *opaque)
{
	struct trust_file *file = opaque;

	return fdatasync(file->fd) < 0 ? -errno : 0;
}

static struct trust_io io_of(struct trust_file *file, const char *name)
{
	return (struct trust_io){
		.read = read_trust,
		.write = write_trust,
		.sync = sync_trust,
		.file = file,
		.name = name,
	};
}

static int fail_of_file(const char *path, struct error *err)
{
	if (errno == EWOULDBLOCK)
		return error_set(err, EBUSY, "%s: in use by another process", path);
	return error_set(err, errno, "%s: %s", path, strerror(errno));
}

/* A file's name is safe once its folder is. */
static int sync_folder(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int ret = fd < 0 ? -1 : fsync(fd);

	if (fd >= 0)
		close(fd);
	free(copy);
	return ret;
}

/* The lock may be of a file that was replaced meanwhile. */
static int check_still(int fd, const char *path, struct error *err)
{
	struct stat one, other;

	if (fstat(fd, &one) == 0 && stat(path, &other) == 0 && one.st_dev == other.st_dev &&
	    one.st_ino == other.st_ino)
		return 0;
	errno = EWOULDBLOCK;
	return fail_of_file(path, err);
}

int trust_file_hold(const char *path, int *held, struct error *err)
{
	int ret;

	*held = open(path, O_RDONLY | O_CLOEXEC);
	if (*held < 0)
		return errno == ENOENT ? 0 : fail_of_file(path, err);
	ret = flock(*held, LOCK_EX | LOCK_NB) < 0 ? fail_of_file(path, err) :
						    check_still(*held, path, err);
	if (ret < 0)
		trust_file_let_go(held);
	return ret;
}

void trust_file_let_go(int *held)
{
	if (*held >= 0)
		close(*held);
	*held = -1;
}

int trust_file_rename(const char *from, const char *path, int held, struct error *err)
{
	unsigned flags = held >= 0 ? 0 : RENAME_NOREPLACE;
	int ret = held >= 0 ? check_still(held, path, err) : 0;

	if (ret == 0 &&
	    (renameat2(AT_FDCWD, from, AT_FDCWD, path, flags) < 0 || sync_folder(path) < 0))
		ret = fail_of_file(path, err);
	return ret;
}

static int make_new(const char *path, const char *other, const struct trust_volume *volume,
		    const char *text, bool replace, struct error *err)
{
	struct trust_file file = { .fd = mkostemp((char *)other, O_CLOEXEC) };
	struct trust_io io = io_of(&file, path);
	int held = -1, ret;

	if (file.fd < 0)
		return fail_of_file(path, err);
	ret = trust_make(&io, volume, text, err);
	if (ret == 0 && replace)
		ret = trust_file_hold(path, &held, err);
	if (ret == 0)
		ret = trust_file_rename(other, path, held, err);
	trust_file_let_go(&held);
	if (ret < 0)
		unlink(other);
	close(file.fd);
	return ret;
}

int trust_file_make(const char *path, const struct trust_volume *volume, const char *text,
		    bool replace, struct error *err)
{
	char *other;
	int ret;

	if (asprintf(&other, "%s.XXXXXX", path) < 0)
		return error_set(err, ENOMEM, "%s: %s", path, strerror(ENOMEM));
	ret = make_new(path, other, volume, text, replace, err);
	free(other);
	return ret;
}

int trust_file_open(struct trust_file *file, struct trust *trust, const char *path, bool read_only,
		    struct error *err)
{
	struct trust_io io;
	int ret = 0;

	*file = (struct trust_file){ .fd = -1, .read_only = read_only };
	*trust = (struct trust){ 0 };
	file->path = path_absolute(path);
	if (file->path)
		file->fd = open(file->path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (file->fd < 0 || flock(file->fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
		ret = fail_of_file(path, err);
	} else {
		io = io_of(file, file->path);
		ret = check_still(file->fd, path, err);
		if (ret == 0)
			ret = trust_open(trust, &io, err);
	}
	if (ret < 0)
		trust_file_close(file, trust, NULL);
	return ret;
}

int trust_file_close(struct trust_file *file, struct trust *trust, struct error *err)
{
	int ret = 0;

	if (trust->text && !file->read_only && trust->changed)
		ret = trust_checkpoint(trust, err);
	trust_destroy(trust);
	if (file->fd >= 0)
		close(file->fd);
	free(file->path);
	*file = (struct trust_file){ .fd = -1 };
	return ret;
}
