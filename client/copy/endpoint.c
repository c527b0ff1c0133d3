#include "copy/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/align.h"
#include "attach/clash.h"
#include "locator/locator.h"
#include "terminal/key-try.h"
#include "file/image-lock.h"
#include "terminal/say.h"

/* The largest alignment that direct I/O is likely to need. */
#define DIRECT_BLOCK 4096

#define MARK "user.ndio.copy" /* an extended attribute; see mark() */

#define GROWTH (64 * 1024 * 1024) /* bytes; see endpoint_grow() */

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

/* What same_bytes() can look at. */
static const char *name_of(const struct endpoint_spec *spec, const char *stream)
{
	return strcmp(spec->locator, "-") == 0 ? stream : spec->locator;
}

int endpoint_clash(const struct endpoint_spec *source, const struct endpoint_spec *destination,
		   struct error *err)
{
	const char *written = name_of(destination, "/proc/self/fd/1");
	int ret;

	if (strcmp(destination->locator, "null:") == 0)
		return 0;
	ret = clash_refuse(written, name_of(source, "/proc/self/fd/0"), "the source", err);
	if (ret == 0)
		ret = clash_refuse(written, source->header, "the source's header", err);
	if (ret == 0)
		ret = clash_refuse_key(written, &source->key, err);
	if (ret == 0)
		ret = clash_refuse(written, destination->header, "its own header", err);
	if (ret == 0)
		ret = clash_refuse_key(written, &destination->key, err);
	return ret;
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
	endpoint->kind = ENDPOINT_STREAM;
	endpoint->fd = unblock(fd, mode);
	endpoint->size = SIZE_UNKNOWN;
	endpoint->block = 1;
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
	return plain_source || !is_aligned(file_size ? file_size : (uint64_t)st.st_size, DIRECT_BLOCK) ? NDIO_DIRECT_OFF :
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
	int fd = locator_is_uri(locator) ? -1 : open(locator, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return;
	image_lock_look(fd, locator, &notice);
	close(fd);
}

static int open_with(struct endpoint *endpoint, const struct endpoint_spec *spec, unsigned flags,
		     const struct key *key, uint64_t file_size, struct error *err)
{
	struct ndio_options options = {
		.struct_size = sizeof(options),
		.key = key->data,
		.key_len = key->len,
		.header = spec->header,
		.flags = flags,
		.direct = direct_for(spec, flags, file_size),
		.file_size = file_size,
		.connections = spec->connections,
		.answer_timeout = spec->answer_timeout,
		.notice = wants_notices(spec) ? say_notice : NULL,
	};
	struct ndio_info info = { .struct_size = sizeof(info) };
	int ret;

	unlock_tell(&spec->how, &options);
	ret = ndio_open(spec->locator, &options, &endpoint->volume);

	if (ret < 0)
		return error_set(err, -ret, "%s", ndio_error());
	if (!options.notice && (flags & NDIO_OPEN_READONLY))
		look_for_writer(spec->locator);
	ndio_get_info(endpoint->volume, &info);
	endpoint->kind = ENDPOINT_VOLUME;
	endpoint->size = info.size;
	endpoint->block = info.block;
	endpoint->sector = info.sector;
	endpoint->can = info.can;
	endpoint->encrypted = info.luks;
	if (!info.luks && info.size != info.target_size && (flags & NDIO_OPEN_READONLY))
		return error_set(err, EINVAL,
				 "%s: its last %" PRIu64 " bytes can't be read: they are no whole "
				 "block of %" PRIu32, spec->locator, info.target_size - info.size,
				 info.block);
	return 0;
}

struct opening {
	struct endpoint *endpoint;
	const struct endpoint_spec *spec;
	unsigned flags;     /* enum ndio_open_flag */
	uint64_t file_size; /* what a plain file will have, or 0 */
};

static int try_key(void *opaque, const struct key *key, struct error *err)
{
	const struct opening *opening = opaque;

	return open_with(opening->endpoint, opening->spec, opening->flags, key,
			 opening->file_size, err);
}

static int open_volume(struct endpoint *endpoint, const struct endpoint_spec *spec,
		       unsigned flags, uint64_t file_size, struct error *err)
{
	struct opening opening = { endpoint, spec, flags, file_size };
	struct key key = { 0 };
	char prompt[4200];
	int ret;

	if (!spec->unlock)
		return try_key(&opening, &key, err);
	snprintf(prompt, sizeof(prompt), "Passphrase for %s", spec->locator);
	ret = key_try(&spec->key, prompt, &key, try_key, &opening, err);
	key_clear(&key);
	return ret;
}

/* ---- the source ---- */

static void start(struct endpoint *endpoint, const struct endpoint_spec *spec)
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
	start(endpoint, spec);
	if (strcmp(spec->locator, "-") == 0) {
		endpoint->name = "standard input";
		use_stream(endpoint, STDIN_FILENO, O_RDONLY);
		return 0;
	}
	if (is_stream_path(spec))
		return open_stream(endpoint, spec->locator, O_RDONLY, err);
	return open_volume(endpoint, spec, NDIO_OPEN_READONLY, 0, err);
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

	start(endpoint, spec);
	if (strcmp(spec->locator, "null:") == 0) {
		endpoint->kind = ENDPOINT_NULL;
		endpoint->zeroed = true;
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
		ret = open_volume(endpoint, spec, 0, endpoint->file < 0 ? 0 : source->size, err);
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

/* ---- a stream to a file ---- */

/* Behind its end, and where we write is where the last write ended. */
static bool can_have_holes(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	off_t pos = lseek(fd, 0, SEEK_CUR);
	struct stat st;

	return flags >= 0 && !(flags & O_APPEND) && pos >= 0 && fstat(fd, &st) == 0 &&
	       S_ISREG(st.st_mode) && pos >= st.st_size;
}

int endpoint_skip(const struct endpoint *endpoint, uint64_t len)
{
	return lseek(endpoint->fd, len, SEEK_CUR) < 0 ? -errno : 0;
}

int endpoint_end(const struct endpoint *endpoint)
{
	struct stat st;
	off_t pos;

	if (!endpoint->holes)
		return 0;
	pos = lseek(endpoint->fd, 0, SEEK_CUR);
	if (pos < 0 || fstat(endpoint->fd, &st) < 0)
		return -errno;
	return pos > st.st_size && ftruncate(endpoint->fd, pos) < 0 ? -errno : 0;
}

/* ---- a plain file, as it is written ---- */

static int set_length(struct endpoint *endpoint, uint64_t length)
{
	if (ftruncate(endpoint->file, length) < 0)
		return -errno;
	endpoint->length = length;
	return 0;
}

/* A plain file that isn't whole says so, where its file system has room for that: of how many bytes it
 * will be a copy, and how many it has. SIZE_UNKNOWN: it is being written, and may have gaps. */
static void mark(const struct endpoint *endpoint, uint64_t has)
{
	char text[64];

	if (has == SIZE_UNKNOWN)
		snprintf(text, sizeof(text), "%" PRIu64, endpoint->size);
	else
		snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64, endpoint->size, has);
	if (fsetxattr(endpoint->file, MARK, text, strlen(text), 0) < 0)
		return; /* its length says it, too, unless the copy is killed */
}

/* Is there one? */
static bool read_mark(const struct endpoint *endpoint, uint64_t *size, uint64_t *has)
{
	char text[64];
	ssize_t len = fgetxattr(endpoint->file, MARK, text, sizeof(text) - 1);
	int count;

	if (len <= 0)
		return false;
	text[len] = '\0';
	*has = SIZE_UNKNOWN;
	count = sscanf(text, "%" SCNu64 " %" SCNu64, size, has);
	return count >= 1;
}

void endpoint_unmark(struct endpoint *endpoint)
{
	if (endpoint->file >= 0 && fremovexattr(endpoint->file, MARK) < 0)
		return; /* there was none */
}

static void find_tail(struct endpoint *endpoint, uint64_t piece)
{
	endpoint->tail = endpoint->size ? round_down(endpoint->size - 1, piece) : 0;
}

int endpoint_begin(struct endpoint *endpoint, uint64_t piece, struct error *err)
{
	int ret;

	if (endpoint->plain && ftruncate(endpoint->fd, 0) < 0)
		return error_set(err, errno, "%s: emptying it: %s", endpoint->name, strerror(errno));
	if (endpoint->kind == ENDPOINT_STREAM)
		endpoint->holes = can_have_holes(endpoint->fd);
	if (endpoint->file < 0)
		return 0;
	find_tail(endpoint, piece);
	ret = set_length(endpoint, 0);
	if (ret < 0)
		return error_set(err, -ret, "%s: emptying it: %s", endpoint->name, strerror(-ret));
	mark(endpoint, SIZE_UNKNOWN);
	endpoint->zeroed = true;
	return 0;
}

static int refuse_size(const struct endpoint *source, uint64_t size, struct error *err)
{
	return error_set(err, EINVAL, "%s: it has %" PRIu64 " bytes, and had %" PRIu64 " when it was "
			 "copied: that copy can't go on", source->name, source->size, size);
}

static int resume_file(struct endpoint *endpoint, const struct endpoint *source,
		       const struct resume_from *from, struct resume *resume, struct error *err)
{
	uint64_t has = SIZE_UNKNOWN, size;
	bool marked = read_mark(endpoint, &size, &has);

	if (marked && size != source->size)
		return refuse_size(source, size, err);
	if (from->offset != SIZE_UNKNOWN)
		has = from->offset;
	else if (!marked)
		has = endpoint->length;
	resume->sure = has != SIZE_UNKNOWN;
	if (resume->sure && has > endpoint->length)
		return error_set(err, EINVAL, "%s: it has %" PRIu64 " bytes, and not %" PRIu64,
				 endpoint->name, endpoint->length, has);
	if (endpoint->length > source->size)
		return error_set(err, EINVAL, "%s: it has %" PRIu64 " bytes, more than %s: it is no copy "
				 "of that", endpoint->name, endpoint->length, source->name);
	resume->end = min_u64(has, endpoint->length);
	if (resume->end < source->size)
		resume->end = round_down(resume->end, DIRECT_BLOCK);
	resume->gate = resume->sure ? resume->end : 0;
	return 0;
}

int endpoint_resume(struct endpoint *endpoint, const struct endpoint *source,
		    const struct resume_from *from, uint64_t piece, struct resume *resume,
		    struct error *err)
{
	if (from->size != SIZE_UNKNOWN && from->size != source->size)
		return refuse_size(source, from->size, err);
	if (from->offset != SIZE_UNKNOWN && from->offset > source->size)
		return error_set(err, EINVAL, "%s: it has %" PRIu64 " bytes, fewer than %" PRIu64,
				 source->name, source->size, from->offset);
	if (endpoint->file >= 0) {
		find_tail(endpoint, piece);
		return resume_file(endpoint, source, from, resume, err);
	}
	resume->sure = from->offset != SIZE_UNKNOWN;
	resume->end = min_u64(from->offset, source->size);
	resume->gate = resume->sure ? resume->end : min_u64(piece, source->size);
	return 0;
}

int endpoint_accept(struct endpoint *endpoint, const struct resume *resume)
{
	int ret = 0;

	if (endpoint->file < 0)
		return 0;
	if (resume->sure)
		ret = set_length(endpoint, resume->end);
	endpoint->zeroed = resume->sure;
	mark(endpoint, SIZE_UNKNOWN);
	return ret;
}

int endpoint_grow(struct endpoint *endpoint, uint64_t end)
{
	if (endpoint->file < 0 || end <= endpoint->length || end > endpoint->tail)
		return 0;
	return set_length(endpoint, min_u64(round_up(end + 1, GROWTH), endpoint->tail));
}

int endpoint_finish(struct endpoint *endpoint)
{
	return endpoint->file < 0 ? 0 : set_length(endpoint, endpoint->size);
}

void endpoint_cut(struct endpoint *endpoint, uint64_t size)
{
	if (endpoint->file < 0)
		return;
	mark(endpoint, size);
	if (ftruncate(endpoint->file, size) < 0)
		say_error("%s: cutting it to %" PRIu64 " bytes: %s", endpoint->name, size,
			  strerror(errno));
}

bool endpoint_unmake(struct endpoint *endpoint)
{
	return endpoint->created && unlink(endpoint->name) == 0;
}
