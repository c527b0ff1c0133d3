/* bare-plugin FILE: what nbdkit's threads and direct I/O can do at best with small requests. Each
 * is one pread or pwrite of its thread's own buffer, and one copy; nothing is locked, shared,
 * split, encrypted or checked. Large ones go a mebibyte at a time, with nothing in flight beside
 * it: no limit, but the plainest way. Only for requests of whole blocks. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define BUFFER_SIZE  (1024 * 1024)

static _Thread_local _Alignas(4096) char buffer[BUFFER_SIZE];
static char *path;
static int fd = -1;

static int bare_config(const char *key, const char *value)
{
	if (strcmp(key, "file") != 0 || path) {
		nbdkit_error("%s: only file=, and once", key);
		return -1;
	}
	path = nbdkit_absolute_path(value);
	return path ? 0 : -1;
}

static int bare_get_ready(void)
{
	fd = path ? open(path, O_RDWR | O_DIRECT | O_CLOEXEC) : -1;
	if (fd < 0)
		nbdkit_error("%s: %s", path ? path : "file=", strerror(path ? errno : EINVAL));
	return fd < 0 ? -1 : 0;
}

static void *bare_open(int readonly)
{
	(void)readonly;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t bare_get_size(void *handle)
{
	(void)handle;
	return lseek(fd, 0, SEEK_END);
}

static int bare_can_multi_conn(void *handle)
{
	(void)handle;
	return 1;
}

static bool moved(ssize_t n, size_t len, const char *what)
{
	if (n == (ssize_t)len)
		return true;
	nbdkit_error("%s: %s", what, n < 0 ? strerror(errno) : "too few bytes");
	nbdkit_set_error(EIO);
	return false;
}

static int bare_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	(void)flags;
	for (uint32_t at = 0, len; at < count; at += len) {
		len = count - at < BUFFER_SIZE ? count - at : BUFFER_SIZE;
		if (!moved(pread(fd, buffer, len, offset + at), len, "pread"))
			return -1;
		memcpy((char *)buf + at, buffer, len);
	}
	return 0;
}

static int bare_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
		       uint32_t flags)
{
	(void)handle;
	(void)flags;
	for (uint32_t at = 0, len; at < count; at += len) {
		len = count - at < BUFFER_SIZE ? count - at : BUFFER_SIZE;
		memcpy(buffer, (const char *)buf + at, len);
		if (!moved(pwrite(fd, buffer, len, offset + at), len, "pwrite"))
			return -1;
	}
	return 0;
}

static int bare_flush(void *handle, uint32_t flags)
{
	(void)handle;
	(void)flags;
	return fdatasync(fd);
}

static struct nbdkit_plugin plugin = {
	.name = "bare",
	.magic_config_key = "file",
	.config = bare_config,
	.get_ready = bare_get_ready,
	.open = bare_open,
	.get_size = bare_get_size,
	.can_multi_conn = bare_can_multi_conn,
	.pread = bare_pread,
	.pwrite = bare_pwrite,
	.flush = bare_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
