#include "header/header-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "locator/locator.h"
#include "terminal/say.h"

#define EVERYBODYS "/run/lock"
#define NAME_SIZE  80 /* "ndio-" and a hash in hexadecimal */

/* ---- a folder ---- */

static int open_lock_folder(const char *path)
{
	int fd = path[0] == '/' ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	return fd < 0 ? -errno : fd;
}

/* Anybody can make things in /tmp: it is only taken if nobody else could have. */
static int open_own_folder(const char *path)
{
	struct stat st;
	int fd;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 077))
		return fd;
	close(fd);
	return -EPERM;
}

/* ---- a file in it ---- */

static int open_lock_file(int folder, const char *name)
{
	const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	int fd = openat(folder, name, flags);

	if (fd < 0 && errno == ENOENT) {
		fd = openat(folder, name, flags | O_CREAT | O_EXCL, 0644);
		if (fd >= 0)
			fchmod(fd, 0644); /* whatever the umask is: anybody may lock it */
		else if (errno == EEXIST) /* another was faster */
			fd = openat(folder, name, flags);
	}
	return fd < 0 ? -errno : fd;
}

/* Opens the lock in a folder that was opened, or wasn't, and closes that. */
static int open_in(int folder, const char *name)
{
	struct stat st;
	int fd;

	if (folder < 0)
		return folder;
	fd = open_lock_file(folder, name);
	close(folder);
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

static int name_lock(const char *uri, char name[NAME_SIZE], struct error *err)
{
	unsigned char hash[32];
	int at = snprintf(name, NAME_SIZE, "ndio-");

	if (!EVP_Digest(uri, strlen(uri), hash, NULL, EVP_sha256(), NULL))
		return error_set(err, EIO, "%s: naming its lock: SHA-256 failed", uri);
	for (size_t i = 0; i < sizeof(hash); i++)
		at += snprintf(name + at, NAME_SIZE - at, "%02x", hash[i]);
	return 0;
}

static void tell_folder(const char *uri, const char *folder, int why)
{
	say_error("%s: its lock is in %s, since " EVERYBODYS " can't be used (%s): it doesn't keep "
		  "out who has it elsewhere, as other users do",
		  uri, folder, strerror(why));
}

static int open_uri_lock(const char *uri, bool tell, struct error *err)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char name[NAME_SIZE], own[32];
	const char *folder = runtime;
	int fd, why, ret = name_lock(uri, name, err);

	if (ret < 0)
		return ret;
	fd = why = open_in(open_lock_folder(EVERYBODYS), name);
	if (fd >= 0)
		return fd;
	if (runtime)
		fd = open_in(open_lock_folder(runtime), name);
	if (fd < 0) {
		snprintf(own, sizeof(own), "/tmp/ndio-%u", geteuid());
		folder = own;
		fd = open_in(open_own_folder(own), name);
	}
	if (fd < 0)
		return error_set(err, -fd, "%s: no place for its lock: " EVERYBODYS ": %s; %s: %s",
				 uri, strerror(-why), own,
				 fd == -EPERM ? "it has to be a folder that is only yours" :
						strerror(-fd));
	if (tell)
		tell_folder(uri, folder, -why);
	return fd;
}

/* ---- the lock ---- */

static int open_lock(const char *locator, bool tell, struct error *err)
{
	int fd;

	if (locator_is_uri(locator))
		return open_uri_lock(locator, tell, err);
	fd = open(locator, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? error_set(err, errno, "%s: %s", locator, strerror(errno)) : fd;
}

int header_lock_check(const char *locator, struct error *err)
{
	int fd = open_lock(locator, false, err);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

int header_lock(const char *locator, int *lock, struct error *err)
{
	int fd = open_lock(locator, true, err);

	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		*lock = fd;
		return 0;
	}
	if (errno == EWOULDBLOCK) {
		say_error("%s: waiting for another program that has locked it", locator);
		if (flock(fd, LOCK_EX) == 0) {
			*lock = fd;
			return 0;
		}
	}
	error_set(err, errno, "%s: locking it: %s", locator, strerror(errno));
	close(fd);
	return -EAGAIN;
}
