/* How the sides of a copy are opened: what a locator stands for decides which operations it
 * gets. A path with a key, a block device, an NBD URI: a volume; a pipe, a character device,
 * standard input and output: a stream; a plain file without a key as the destination: a volume
 * that is made, see plain-file.c, or a stream where the source's size isn't known. */
#include "copy/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/align.h"
#include "copy/unlocking.h"
#include "file/image-lock.h"
#include "locator/locator.h"
#include "terminal/key-try.h"
#include "terminal/say.h"

#define ZERO_PLAIN (32 * 1024 * 1024) /* bytes zeroed by one request; */
#define ZERO_DATA  (1024 * 1024)      /* encrypted zeroes are data */

bool endpoint_is_special(const char *locator)
{
	return strcmp(locator, "-") == 0 || strcmp(locator, "null:") == 0;
}

/* ---- places ---- */

/* What a locator or header is, if it is something local that exists. */
static bool stat_locator(const char *locator, int stream, struct stat *st)
{
	if (!locator || locator_is_uri(locator))
		return false;
	if (strcmp(locator, "-") == 0)
		return fstat(stream, st) == 0;
	return stat(locator, st) == 0;
}

/* ---- streams ---- */

/* A descriptor for a pipe that doesn't block, without changing the one that we share with
 * others. Else the same one: a signal may have to wait for the other end then. */
static int unblock(int fd, int mode)
{
	char path[32];
	struct stat st;
	int own;

	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, mode | O_NONBLOCK | O_CLOEXEC);
	if (own < 0)
		return fd;
	if (fd > STDERR_FILENO)
		close(fd);
	return own;
}

static void use_stream(struct endpoint *endpoint, int fd, int mode)
{
	endpoint->ops = &endpoint_stream;
	endpoint->fd = unblock(fd, mode);
	endpoint->size = SIZE_UNKNOWN;
	endpoint->block = 1;
	endpoint->can = NDIO_CAN_FLUSH;
}

static int open_stream(struct endpoint *endpoint, const char *path, int mode, struct error *err)
{
	int fd = open(path, mode | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	use_stream(endpoint, fd, mode);
	return 0;
}

/* ---- volumes ---- */

/* The page cache is for reading plain files, which are likely to be in it, and where direct I/O
 * would leave out the last bytes. Writing, which ends in a flush, is faster without. */
static int direct_for(const struct endpoint_spec *spec, unsigned flags, uint64_t file_size)
{
	bool plain_source = !spec->unlock && (flags & NDIO_OPEN_READONLY);
	struct stat st;

	if (!stat_locator(spec->locator, -1, &st) || !S_ISREG(st.st_mode))
		return NDIO_DIRECT_AUTO;
	return plain_source || !is_aligned(file_size ? file_size : (uint64_t)st.st_size,
					   DIRECT_BLOCK) ?
		       NDIO_DIRECT_OFF :
		       NDIO_DIRECT_AUTO;
}

/* Of a file without a key all are beside the point; but not that a server lets in few connections, or
 * why one was lost. */
static bool wants_notices(const struct endpoint_spec *spec)
{
	return spec->unlock || locator_is_uri(spec->locator);
}

/* What the library would tell. */
static void look_for_writer(const char *locator)
{
	const struct notice notice = { .tell = say_notice };
	int fd = locator_is_uri(locator) ?
			 -1 :
			 open(locator, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return;
	image_lock_look(fd, locator, &notice);
	close(fd);
}

static void note_event(void *opaque, int server, const char *message)
{
	struct endpoint *endpoint = opaque;

	(void)message; /* as a notice, too */
	atomic_store(&endpoint->away, server == NDIO_SERVER_AWAY);
}

static int open_with(struct endpoint *endpoint, const struct endpoint_spec *spec, unsigned flags,
		     const struct key *key, uint64_t file_size, struct error *err)
{
	struct ndio_options options = {
		.struct_size = sizeof(options),
		.header = spec->header,
		.flags = flags | (spec->reconnect ? 0 : NDIO_OPEN_NO_RECONNECT),
		.direct = direct_for(spec, flags, file_size),
		.file_size = file_size,
		.connections = spec->connections,
		.answer_timeout = spec->answer_timeout,
		.reconnect = spec->reconnect,
		.notice = wants_notices(spec) ? say_notice : NULL,
		.event = note_event,
		.opaque = endpoint,
	};
	struct ndio_info info = { .struct_size = sizeof(info) };
	int ret;

	if (spec->unlock)
		unlocking_set(&spec->how, key, &options);
	ret = ndio_open(spec->locator, &options, &endpoint->volume);
	if (ret < 0)
		return error_set(err, -ret, "%s", ndio_error());
	if (!options.notice && (flags & NDIO_OPEN_READONLY))
		look_for_writer(spec->locator);
	ndio_get_info(endpoint->volume, &info);
	endpoint->ops = &endpoint_volume;
	endpoint->size = info.size;
	endpoint->block = info.block;
	endpoint->sector = info.sector;
	endpoint->can = info.can;
	endpoint->encrypted = info.luks;
	endpoint->zero_max = info.luks ? ZERO_DATA : ZERO_PLAIN;
	if (!info.luks && info.size != info.target_size && (flags & NDIO_OPEN_READONLY))
		return error_set(err, EINVAL,
				 "%s: its last %" PRIu64 " bytes can't be read: they are no whole "
				 "block of %" PRIu32,
				 spec->locator, info.target_size - info.size, info.block);
	return 0;
}

struct opening {
	struct endpoint *endpoint;
	const struct endpoint_spec *spec;
	unsigned flags;     /* enum ndio_open_flag */
	uint64_t file_size; /* what a plain file will have, or 0 */
};

static int endpoint_try_key(void *opaque, const struct key *key, struct error *err)
{
	const struct opening *opening = opaque;

	return open_with(opening->endpoint, opening->spec, opening->flags, key, opening->file_size,
			 err);
}

static int endpoint_open_volume(struct endpoint *endpoint, const struct endpoint_spec *spec,
				unsigned flags, uint64_t file_size, struct error *err)
{
	struct opening opening = { endpoint, spec, flags, file_size };
	struct key key = { 0 };
	char prompt[4200];
	int ret;

	if (!spec->unlock)
		return endpoint_try_key(&opening, &key, err);
	snprintf(prompt, sizeof(prompt), "Passphrase for %s", spec->locator);
	ret = key_try(&spec->key, &spec->how, prompt, &key, endpoint_try_key, &opening, err);
	key_clear(&key);
	return ret;
}

/* ---- the source ---- */

static void endpoint_start(struct endpoint *endpoint, const struct endpoint_spec *spec)
{
	*endpoint = (struct endpoint){ .name = spec->locator, .fd = -1, .file = -1 };
}

static bool is_stream_path(const struct endpoint_spec *spec)
{
	struct stat st;

	return !spec->unlock && stat_locator(spec->locator, -1, &st) &&
	       (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode));
}

int endpoint_open_source(struct endpoint *endpoint, const struct endpoint_spec *spec,
			 struct error *err)
{
	endpoint_start(endpoint, spec);
	if (strcmp(spec->locator, "-") == 0) {
		endpoint->name = "standard input";
		use_stream(endpoint, STDIN_FILENO, O_RDONLY);
		return 0;
	}
	if (is_stream_path(spec))
		return open_stream(endpoint, spec->locator, O_RDONLY, err);
	return endpoint_open_volume(endpoint, spec, NDIO_OPEN_READONLY, 0, err);
}

int endpoint_open_with_key(struct endpoint *endpoint, const struct endpoint_spec *spec,
			   const struct key *key, unsigned flags, struct error *err)
{
	endpoint_start(endpoint, spec);
	return open_with(endpoint, spec, flags, key, 0, err);
}

/* ---- the destination ---- */

/* As it is, or made, and locked against other programs. */
static int open_plain_file(struct endpoint *endpoint, const char *path, mode_t mode,
			   struct error *err)
{
	const struct notice notice = { .tell = say_notice };
	const int flags = O_CLOEXEC | O_NOCTTY;
	int fd = open(path, flags | O_RDWR | O_CREAT | O_EXCL, mode);
	int ret;

	endpoint->created = fd >= 0;
	if (fd < 0 && errno == EEXIST)
		fd = open(path, flags | O_RDWR | O_CREAT, mode);
	if (fd < 0 && errno == EACCES)
		fd = open(path, flags | O_WRONLY | O_CREAT, mode);
	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	ret = image_lock_take(fd, path, true, &notice, &endpoint->lock, err);
	if (ret < 0)
		close(fd);
	return ret < 0 ? ret : fd;
}

static int make_plain_file(struct endpoint *endpoint, const char *path,
			   const struct endpoint *source, struct error *err)
{
	/* As secret as it was. */
	int fd = open_plain_file(endpoint, path, source->encrypted ? 0600 : 0666, err);
	struct stat st;

	if (fd < 0)
		return fd;
	endpoint->file = fd;
	if (fstat(fd, &st) < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	endpoint->length = st.st_size;
	return 0;
}

static int make_streamed_file(struct endpoint *endpoint, const char *path, struct error *err)
{
	int fd = open_plain_file(endpoint, path, 0666, err);

	if (fd < 0)
		return fd;
	use_stream(endpoint, fd, O_WRONLY);
	endpoint->plain = true;
	return 0;
}

static bool is_plain_file(const struct endpoint_spec *spec)
{
	struct stat st;

	if (spec->unlock || locator_is_uri(spec->locator))
		return false;
	return stat_locator(spec->locator, -1, &st) ? S_ISREG(st.st_mode) : errno == ENOENT;
}

static int check_destination(const struct endpoint *endpoint, const struct endpoint *source,
			     struct error *err)
{
	if (!(endpoint->can & NDIO_CAN_WRITE))
		return error_set(err, EROFS, "%s: it is read-only", endpoint->name);
	if (source->size != SIZE_UNKNOWN && source->size > endpoint->size)
		return error_set(err, ENOSPC,
				 "%s: too small: it has %" PRIu64 " bytes, and %s has %" PRIu64,
				 endpoint->name, endpoint->size, source->name, source->size);
	return 0;
}

int endpoint_open_destination(struct endpoint *endpoint, const struct endpoint_spec *spec,
			      const struct endpoint *source, struct error *err)
{
	int ret = 0;

	endpoint_start(endpoint, spec);
	if (strcmp(spec->locator, "null:") == 0) {
		endpoint->ops = &endpoint_null;
		endpoint->size = SIZE_UNKNOWN;
		endpoint->zeroed = true;
		endpoint->can = NDIO_CAN_FLUSH;
		endpoint->block = 1;
		return 0;
	}
	if (strcmp(spec->locator, "-") == 0) {
		endpoint->name = "standard output";
		if (isatty(STDOUT_FILENO))
			return error_set(err, EINVAL, "a disk isn't written to the terminal");
		use_stream(endpoint, STDOUT_FILENO, O_WRONLY);
		return 0;
	}
	if (is_stream_path(spec))
		return open_stream(endpoint, spec->locator, O_WRONLY, err);
	if (is_plain_file(spec) && source->size == SIZE_UNKNOWN)
		return make_streamed_file(endpoint, spec->locator, err);
	if (is_plain_file(spec))
		ret = make_plain_file(endpoint, spec->locator, source, err);
	if (ret == 0)
		ret = endpoint_open_volume(endpoint, spec, 0, endpoint->file < 0 ? 0 : source->size,
					   err);
	if (endpoint->file >= 0)
		endpoint->size = source->size; /* it will be; it may be longer now */
	return ret < 0 ? ret : check_destination(endpoint, source, err);
}

/* ---- the end ---- */

void endpoint_close_volume(struct endpoint *endpoint, enum ndio_close_how how)
{
	ndio_close(endpoint->volume, how);
	endpoint->volume = NULL;
}

void endpoint_close(struct endpoint *endpoint)
{
	endpoint_close_volume(endpoint, NDIO_CLOSE_CANCEL);
	if (endpoint->fd > STDERR_FILENO)
		close(endpoint->fd);
	if (endpoint->file > STDERR_FILENO)
		close(endpoint->file);
	image_lock_release(endpoint->lock);
}

bool endpoint_unmake(struct endpoint *endpoint)
{
	return endpoint->created && unlink(endpoint->name) == 0;
}
