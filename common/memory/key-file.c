#include "memory/key-file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/align.h"

/* ---- what is in it ---- */

/* What is there of the next len bytes, behind the key. */
static ssize_t read_some(int fd, const char *name, struct key *key, size_t len, struct error *err)
{
	ssize_t n;

	do {
		n = read(fd, (char *)key->data + key->len, len);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? error_set(err, errno, "%s: %s", name, strerror(errno)) : n;
}

/* A pipe can't be sought in. What is passed over is as secret as the rest. */
static int pass_over(int fd, const char *name, uint64_t bytes, struct key *key, struct error *err)
{
	ssize_t n = 1;

	if (bytes == 0)
		return 0;
	if (bytes <= INT64_MAX && lseek(fd, bytes, SEEK_CUR) >= 0)
		return 0;
	if (errno != ESPIPE)
		return error_set(err, errno, "%s: %s", name, strerror(errno));
	for (uint64_t left = bytes; left && n > 0; left -= n)
		if ((n = read_some(fd, name, key, min_u64(left, key->locked), err)) < 0)
			return n;
	return n > 0 ? 0 : error_set(err, ENODATA, "%s: it ends before byte %" PRIu64, name, bytes);
}

/* As many bytes as there are addresses for, or all that there are. */
static int read_rest(int fd, const char *name, size_t max, struct key *key, struct error *err)
{
	ssize_t n = 1;
	int ret = 0;

	while (ret == 0 && n > 0 && key->len < max) {
		if (key->len == key->locked)
			ret = key_grow(key, err);
		if (ret == 0)
			n = read_some(fd, name, key, min_u64(max, key->locked) - key->len, err);
		if (n < 0)
			ret = n;
		else if (ret == 0)
			key->len += n;
	}
	return ret;
}

static int too_large(const char *name, struct error *err)
{
	return error_set(err, EFBIG, "%s: larger than a key may be, at most %d bytes", name,
			 KEY_MAX);
}

/* Of a file, before so much has to be locked. */
static bool is_too_large(int fd, const struct key_part *part)
{
	struct stat st;

	return !part->size && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	       (uint64_t)st.st_size > part->offset && st.st_size - part->offset > KEY_MAX;
}

/* Without a size one byte more than allowed is asked for, to know that there is no more. */
int key_file_read(int fd, const char *name, const struct key_part *part, struct key *key,
		  struct error *err)
{
	size_t max = part->size ? part->size : KEY_MAX + 1;
	int ret = key_make(key, max, err);

	if (ret == 0 && is_too_large(fd, part))
		ret = too_large(name, err);
	if (ret == 0)
		ret = pass_over(fd, name, part->offset, key, err);
	if (ret == 0)
		ret = read_rest(fd, name, max, key, err);
	if (ret < 0)
		return ret;
	if (key->len > KEY_MAX)
		return too_large(name, err);
	if (key->len < part->size || (part->offset && key->len == 0))
		return error_set(err, ENODATA,
				 "%s: from byte %" PRIu64 " on it has %zu bytes, too few", name,
				 part->offset, key->len);
	key_fit(key);
	return 0;
}

/* ---- who may read it ---- */

int key_file_check(int fd, const char *path, struct error *err)
{
	mode_t wrong = S_IWGRP | S_IXGRP | S_IRWXO;
	struct stat st;
	bool own;

	if (fstat(fd, &st) < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return error_set(err, EISDIR, "%s: %s", path, strerror(EISDIR));
	own = st.st_uid == geteuid();
	if (own && st.st_gid == getegid())
		wrong |= S_IRGRP;
	if (!(st.st_mode & wrong))
		return 0;
	if (own)
		return error_set(err, EACCES,
				 "%s: a secret key that others may read or change: "
				 "chmod 600 %s",
				 path, path);
	return error_set(err, EACCES,
			 "%s: a secret key that others may read or change (mode %04o): "
			 "its owner has to forbid that",
			 path, st.st_mode & 07777);
}

/* Do all folders on the way to it let everybody pass? */
static bool is_reachable(const char *path)
{
	char real[PATH_MAX], *slash;
	struct stat st;

	if (!realpath(path, real))
		return false;
	while ((slash = strrchr(real, '/'))) {
		*slash = '\0';
		if (stat(slash == real ? "/" : real, &st) < 0 || !(st.st_mode & S_IXOTH))
			return false;
	}
	return true;
}

static int key_file_look(int fd, const char *name, const char *path, bool *readable,
			 struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set(err, errno, "%s: %s", name, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return error_set(err, EISDIR, "%s: not a regular file or a pipe: %s", name,
				 strerror(EISDIR));
	if (!S_ISREG(st.st_mode) || !(st.st_mode & (S_IROTH | S_IWOTH)) || !is_reachable(path))
		return 0;
	if (st.st_mode & S_IWOTH)
		return error_set(err, EACCES,
				 "%s: others may change it, and so choose the key: "
				 "chmod o= %s",
				 name, path);
	*readable = true;
	return 0;
}

int key_file_load(const char *path, const char *name, const struct key_part *part, bool *readable,
		  struct key *key, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int ret;

	*readable = false;
	if (fd < 0)
		return error_set(err, errno, "%s: %s", name, strerror(errno));
	ret = key_file_look(fd, name, path, readable, err);
	if (ret == 0)
		ret = key_file_read(fd, name, part, key, err);
	close(fd);
	return ret;
}
