#include "header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cmd.h"

#define MIB        (UINT64_C(1) << 20)
#define META_MAX   (8 * MIB) /* two copies of the largest LUKS2 metadata */

/* ---- the volume ---- */

static int open_volume(struct header *header, bool readonly)
{
	const struct ndio_options options = {
		.struct_size = sizeof(options),
		.flags = readonly ? NDIO_OPEN_READONLY : 0,
		.direct = NDIO_DIRECT_OFF, /* so that a file of any size is seen whole */
		.connections = 1,
		.notice = cmd_notice,
	};

	return ndio_open(header->name, &options, &header->volume);
}

int header_step_failed(const struct header *header, int ret, const char *step, struct error *err)
{
	const char *reason = ndio_error();
	size_t len = strlen(header->name);

	/* The library's message names the volume as well. */
	if (strncmp(reason, header->name, len) == 0 && strncmp(reason + len, ": ", 2) == 0)
		reason += len + 2;
	return error_set(err, -ret, "%s: %s: %s", header->name, step, reason);
}

void header_init(struct header *header, const char *locator)
{
	memset(header, 0, sizeof(*header));
	header->name = locator;
	luks_memfd_init(&header->memfd, locator);
}

int header_open(struct header *header, bool readonly, struct error *err)
{
	int ret = open_volume(header, readonly);

	if (ret < 0)
		return error_set(err, -ret, "%s", ndio_error());
	header->info.struct_size = sizeof(header->info);
	ret = ndio_get_info(header->volume, &header->info);
	if (ret < 0)
		return header_step_failed(header, ret, "asking what it is", err);
	header->size = header->info.target_size;
	if (!readonly && !(header->info.can & NDIO_CAN_FLUSH))
		cmd_error("%s: the server can't flush: what is written may be lost, or half of it, "
			  "if it crashes soon", header->name);
	return 0;
}

void header_close(struct header *header)
{
	luks_memfd_close(&header->memfd);
	free(header->before);
	ndio_close(header->volume, NDIO_CLOSE_CANCEL);
	header_init(header, NULL);
}

int header_read_bytes(struct header *header, void *buf, uint64_t len, uint64_t offset,
		      const char *step, struct error *err)
{
	const struct iovec iov = { buf, len };
	ssize_t n = len ? ndio_preadv(header->volume, &iov, 1, offset, 0) : 0;

	return n < 0 ? header_step_failed(header, n, step, err) : 0;
}

int header_write_bytes(struct header *header, const void *buf, uint64_t len, uint64_t offset,
		       const char *step, struct error *err)
{
	const struct iovec iov = { (void *)buf, len };
	ssize_t n = len ? ndio_pwritev(header->volume, &iov, 1, offset, 0) : 0;

	return n < 0 ? header_step_failed(header, n, step, err) : 0;
}

int header_flush(struct header *header, const char *step, struct error *err)
{
	int ret = header->info.can & NDIO_CAN_FLUSH ? ndio_flush(header->volume) : 0;

	return ret < 0 ? header_step_failed(header, ret, step, err) : 0;
}

/* ---- the memfd ---- */

static int out_of_memory(const struct header *header, struct error *err)
{
	return error_set(err, ENOMEM, "%s: no memory for its LUKS header", header->name);
}

/* Reads what is missing of the volume's bytes before end. */
static int copy_until(struct header *header, uint64_t end, struct error *err)
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
	ret = header_read_bytes(header, before + from, end - from, from,
				"reading the LUKS header", err);
	if (ret == 0)
		ret = luks_memfd_write(&header->memfd, before + from, end - from, from, err);
	if (ret == 0)
		header->before_len = end;
	return ret;
}

/* ---- loading ---- */

int header_measure(struct header *header, struct error *err)
{
	header->version = luks_memfd_version(&header->memfd);
	return luks_memfd_measure(&header->memfd, &header->len, &header->copy_len, err);
}

static int find_stale_copy(struct header *header, struct error *err)
{
	uint64_t len = header->copy_len;
	uint8_t *second;

	if (header->version == 1)
		return 0;
	if (2 * len > header->before_len)
		return error_set(err, EINVAL, "%s: too small for its LUKS header", header->name);
	second = malloc(len);
	if (!second)
		return out_of_memory(header, err);
	header->second_is_stale =
		pread(header->memfd.fd, second, len, len) != (ssize_t)len ||
		memcmp(second, header->before + len, len) != 0;
	free(second);
	return 0;
}

int header_load(struct header *header, struct error *err)
{
	int ret = luks_memfd_make(&header->memfd, header->size, err);

	if (ret == 0)
		ret = copy_until(header, META_MAX, err);
	if (ret == 0)
		ret = luks_memfd_load(&header->memfd, err);
	if (ret == 0)
		ret = header_measure(header, err);
	if (ret == 0)
		ret = find_stale_copy(header, err);
	return ret;
}

int header_load_areas(struct header *header, struct error *err)
{
	if (header->len > header->size)
		return error_set(err, EINVAL,
				 "%s: too small for its LUKS header: it has %llu bytes of %llu",
				 header->name, (unsigned long long)header->size,
				 (unsigned long long)header->len);
	return copy_until(header, header->len, err);
}
