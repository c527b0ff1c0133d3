#include "header/header.h"

#include <errno.h>
#include <inttypes.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/align.h"
#include "header/header-seal.h"
#include "terminal/deferral.h"
#include "terminal/say.h"

#define MIB      (UINT64_C(1) << 20)
#define META_MAX (8 * MIB)    /* two copies of the largest LUKS2 metadata */
#define PIECE    (256 * 1024) /* bytes that are asked for at a time */
#define LOOK_MS  200          /* between two looks whether a signal has come */

enum ask { ASK_READ, ASK_WRITE, ASK_ZERO, ASK_FLUSH };

/* ---- the volume ---- */

static int header_open_volume(struct header *header, bool readonly)
{
	const struct ndio_options options = {
		.struct_size = sizeof(options),
		.flags = (readonly ? NDIO_OPEN_READONLY : 0) |
			 (header->no_lock ? NDIO_OPEN_NO_LOCK : 0) | NDIO_OPEN_NO_RECONNECT,
		.direct = NDIO_DIRECT_OFF, /* so that a file of any size is seen whole */
		.connections = 1,
		.file_size = header->file_size,
		.answer_timeout = header->answer_timeout,
		.notice = say_notice,
	};

	return ndio_open(header->name, &options, &header->volume);
}

void header_init(struct header *header, const char *locator)
{
	memset(header, 0, sizeof(*header));
	header->name = locator;
	luks_memfd_init(&header->memfd, locator);
	header_seal_init(header);
}

int header_open(struct header *header, bool readonly, struct error *err)
{
	int ret = header_open_volume(header, readonly);

	if (ret == 0)
		ret = ndio_queue_new(&header->queue);
	header->info.struct_size = sizeof(header->info);
	if (ret == 0)
		ret = ndio_get_info(header->volume, &header->info);
	if (ret < 0)
		return error_set(err, -ret, "%s", ndio_error());
	header->size = header->info.target_size;
	if (!readonly && !(header->info.can & NDIO_CAN_FLUSH))
		say_error("%s: the server can't flush: what is written may be lost, or half of it, "
			  "if it crashes soon",
			  header->name);
	return 0;
}

void header_let_go(struct header *header)
{
	ndio_close(header->volume, NDIO_CLOSE_CANCEL);
	ndio_queue_free(header->queue);
	header->volume = NULL;
	header->queue = NULL;
}

void header_forget(struct header *header)
{
	luks_memfd_close(&header->memfd);
	luks_memfd_init(&header->memfd, header->name);
	free(header->before);
	header->before = NULL;
	header->before_len = 0;
}

void header_close(struct header *header)
{
	header_forget(header);
	header_let_go(header);
	header_seal_close(header);
	header_init(header, NULL);
}

/* ---- its bytes ---- */

/* Nothing lands in the caller's memory after this. */
static int header_give_up(struct header *header, int ret)
{
	ndio_close(header->volume, NDIO_CLOSE_CANCEL);
	header->volume = NULL;
	return ret;
}

/* A local disk answers, or the kernel holds us anyway; a server that doesn't is given up below. */
static int wait_for_answer(struct header *header)
{
	struct ndio_event event;

	for (;;) {
		int n = ndio_queue_reap(header->queue, &event, 1, LOOK_MS);

		if (n == 1)
			return event.error;
		if (n < 0 && n != -EINTR)
			return header_give_up(header, n);
		if (header->info.nbd && deferral_is_over())
			return header_give_up(header, -EINTR);
	}
}

static const char *reason_of(const struct header *header, int ret)
{
	return ret == -EINTR ? "interrupted while the server didn't answer" :
			       ndio_reason(header->volume, ret);
}

/* One request. buf is of a read or write. */
static int ask_volume(struct header *header, enum ask ask, void *buf, uint64_t len, uint64_t offset,
		      const char *step, struct error *err)
{
	static const char *const names[] = { "read", "write", "zero", "flush" };
	const struct ndio_completion completion = { .queue = header->queue };
	const struct iovec iov = { buf, len };
	int ret = -ENOTCONN;

	if (header->volume && ask == ASK_READ)
		ret = ndio_aio_preadv(header->volume, &iov, 1, offset, 0, &completion);
	else if (header->volume && ask == ASK_WRITE)
		ret = ndio_aio_pwritev(header->volume, &iov, 1, offset, 0, &completion);
	else if (header->volume && ask == ASK_ZERO)
		ret = ndio_aio_zero(header->volume, offset, len, 0, &completion);
	else if (header->volume)
		ret = ndio_aio_flush(header->volume, &completion);
	if (ret == 0)
		ret = wait_for_answer(header);
	return ret == 0 ? 0 :
			  error_set(err, -ret, "%s: %s: %s at %" PRIu64 ": %s", header->name, step,
				    names[ask], offset, reason_of(header, ret));
}

/* In pieces: a slow network is no silent server. */
static int ask_in_pieces(struct header *header, enum ask ask, void *buf, uint64_t len,
			 uint64_t offset, const char *step, struct error *err)
{
	int ret = 0;

	for (uint64_t at = 0, n; at < len && ret == 0; at += n) {
		n = min_u64(PIECE, len - at);
		ret = ask_volume(header, ask, buf ? (uint8_t *)buf + at : NULL, n, offset + at,
				 step, err);
	}
	return ret;
}

int header_read_bytes(struct header *header, void *buf, uint64_t len, uint64_t offset,
		      const char *step, struct error *err)
{
	return ask_in_pieces(header, ASK_READ, buf, len, offset, step, err);
}

int header_write_bytes(struct header *header, const void *buf, uint64_t len, uint64_t offset,
		       const char *step, struct error *err)
{
	return ask_in_pieces(header, ASK_WRITE, (void *)buf, len, offset, step, err);
}

int header_zero_bytes(struct header *header, uint64_t len, uint64_t offset, const char *step,
		      struct error *err)
{
	return ask_in_pieces(header, ASK_ZERO, NULL, len, offset, step, err);
}

int header_flush(struct header *header, const char *step, struct error *err)
{
	if (!(header->info.can & NDIO_CAN_FLUSH))
		return 0;
	return ask_volume(header, ASK_FLUSH, NULL, 0, 0, step, err);
}

/* ---- the memfd ---- */

static int out_of_memory(const struct header *header, struct error *err)
{
	return error_set(err, ENOMEM, "%s: no memory for its LUKS header", header->name);
}

int header_load_before(struct header *header, uint64_t end, struct error *err)
{
	uint64_t from = header->before_len;
	uint8_t *before;
	int ret;

	if (end > header->size)
		end = header->size;
	if (end <= from)
		return 0;
	before = realloc(header->before, end);
	if (!before)
		return out_of_memory(header, err);
	header->before = before;
	ret = header_read_bytes(header, before + from, end - from, from, "reading the LUKS header",
				err);
	if (ret == 0)
		header->before_len = end;
	return ret;
}

/* Reads what is missing of the volume's bytes before end, into the memfd, too. */
static int header_copy_until(struct header *header, uint64_t end, struct error *err)
{
	uint64_t from = header->before_len;
	int ret = header_load_before(header, end, err);

	if (ret == 0 && header->before_len > from)
		ret = luks_memfd_write(&header->memfd, header->before + from,
				       header->before_len - from, from, err);
	return ret;
}

static int copy_tail(struct header *header, struct error *err)
{
	uint64_t offset = luks_memfd_tail(&header->memfd, header->before_len);
	uint64_t len = header->size - offset;
	uint8_t *tail = malloc(len + 1);
	int ret;

	if (!tail)
		return out_of_memory(header, err);
	ret = header_read_bytes(header, tail, len, offset, "reading its end", err);
	if (ret == 0)
		ret = luks_memfd_write(&header->memfd, tail, len, offset, err);
	if (ret == -EIO)
		ret = 0; /* a disk that can't be read there may be LUKS all the same */
	free(tail);
	return ret;
}

/* ---- loading ---- */

int header_measure(struct header *header, struct error *err)
{
	int ret = luks_memfd_measure(&header->memfd, &header->len, &header->copy_len, err);

	header->version = luks_memfd_version(&header->memfd);
	header->data_elsewhere =
		crypt_get_data_offset(header->memfd.cd) * HEADER_UNIT < header->len;
	return ret;
}

static bool is_repaired(const struct header *header, uint8_t *copy, uint64_t offset)
{
	uint64_t len = header->copy_len;

	return pread(header->memfd.fd, copy, len, offset) != (ssize_t)len ||
	       memcmp(copy, header->before + offset, len) != 0;
}

static int find_stale_copy(struct header *header, struct error *err)
{
	uint64_t len = header->copy_len;
	uint8_t *copy;

	if (header->version == 1)
		return 0;
	if (2 * len > header->before_len)
		return error_set(err, EINVAL, "%s: too small for its LUKS header", header->name);
	copy = malloc(len);
	if (!copy)
		return out_of_memory(header, err);
	header->first_is_stale = is_repaired(header, copy, 0);
	header->second_is_stale = is_repaired(header, copy, len);
	free(copy);
	return 0;
}

int header_load(struct header *header, struct error *err)
{
	int ret = luks_memfd_make(&header->memfd, header->size, err);

	if (ret == 0)
		ret = header_copy_until(header, META_MAX, err);
	if (ret == 0)
		ret = copy_tail(header, err);
	if (ret == 0)
		ret = luks_memfd_load(&header->memfd, err);
	if (ret == 0)
		ret = header_measure(header, err);
	if (ret == 0)
		ret = find_stale_copy(header, err);
	return ret < 0 ? ret : header_seal_look(header, err);
}

int header_load_areas(struct header *header, struct error *err)
{
	if (header->len > header->size)
		return error_set(err, EINVAL,
				 "%s: too small for its LUKS header: it has %llu bytes of %llu",
				 header->name, (unsigned long long)header->size,
				 (unsigned long long)header->len);
	return header_copy_until(header, header->len, err);
}
