/* A plain file as the destination of a copy. It is emptied, and grows as it is written, so
 * that nobody ever takes it for the whole before it is: the last piece comes when all before
 * it is on stable storage. Until it is whole an extended attribute says so, the mark: a copy
 * that was stopped, even by SIGKILL, knows by it how much is there, and can go on.
 *
 * On the main thread, but for endpoint_grow(), which the copy's lock guards. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/align.h"
#include "copy/endpoint.h"
#include "terminal/say.h"

#define MARK "user.ndio.copy" /* an extended attribute; see mark() */

#define GROWTH (64 * 1024 * 1024) /* bytes; see endpoint_grow() */

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

int endpoint_begin_volume(struct endpoint *endpoint, uint64_t piece, struct error *err)
{
	int ret;

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
	return error_set(err, EINVAL,
			 "%s: it has %" PRIu64 " bytes, and had %" PRIu64 " when it was "
			 "copied: that copy can't go on",
			 source->name, source->size, size);
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
		return error_set(err, EINVAL,
				 "%s: it has %" PRIu64 " bytes, more than %s: it is no copy "
				 "of that",
				 endpoint->name, endpoint->length, source->name);
	resume->end = min_u64(has, endpoint->length);
	if (resume->end < source->size)
		resume->end = round_down(resume->end, DIRECT_BLOCK);
	resume->gate = resume->sure ? resume->end : 0;
	return 0;
}

int endpoint_resume_volume(struct endpoint *endpoint, const struct endpoint *source,
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

int endpoint_begin_changes(struct endpoint *endpoint, const struct endpoint *source,
			   struct error *err)
{
	int ret = 0;

	if (endpoint->file < 0)
		return 0;
	if (endpoint->length > source->size)
		return error_set(err, EINVAL,
				 "%s: it has %" PRIu64 " bytes, and %s only %" PRIu64
				 ": it isn't cut",
				 endpoint->name, endpoint->length, source->name, source->size);
	mark(endpoint, SIZE_UNKNOWN);
	if (endpoint->length < source->size)
		ret = set_length(endpoint, source->size);
	return ret < 0 ? error_set(err, -ret, "%s: making it longer: %s", endpoint->name,
				   strerror(-ret)) :
			 0;
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
