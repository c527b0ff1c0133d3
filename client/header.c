#include "header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cmd.h"

#define MIB        (UINT64_C(1) << 20)
#define META_MAX   (8 * MIB)   /* two copies of the largest LUKS2 metadata */
#define HEADER_MAX (160 * MIB) /* LUKS2 allows key areas of 128 MiB, after 8 MiB */
#define SECOND_MIN (UINT64_C(16) << 10) /* where a second copy may start: this, doubled, */
#define SECOND_MAX (4 * MIB)            /* up to this */
#define MAGIC_LEN  6

static const char magic_first[] = "LUKS\xba\xbe";
static const char magic_second[] = "SKUL\xba\xbe";

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
	header->fd = -1;
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
	crypt_free(header->cd);
	if (header->fd >= 0)
		close(header->fd);
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

/* Without a callback libcryptsetup prints. */
static void keep_log(int level, const char *text, void *opaque)
{
	struct header *header = opaque;

	if (level != CRYPT_LOG_ERROR)
		return;
	snprintf(header->log, sizeof(header->log), "%s", text);
	header->log[strcspn(header->log, "\n")] = '\0';
}

const char *header_reason(const struct header *header, int ret)
{
	return header->log[0] ? header->log : strerror(-ret);
}

int header_make(struct header *header, uint64_t size, struct error *err)
{
	char path[32];
	int ret;

	header->fd = memfd_create("ndio-luks-header", MFD_CLOEXEC);
	if (header->fd < 0 || ftruncate(header->fd, size) < 0)
		return error_set(err, errno, "%s: making a place for the LUKS header: %s",
				 header->name, strerror(errno));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", header->fd);
	ret = crypt_init(&header->cd, path);
	if (ret < 0)
		return error_set(err, -ret, "%s: opening the LUKS header: %s", header->name,
				 strerror(-ret));
	crypt_set_log_callback(header->cd, keep_log, header);
	return 0;
}

static int out_of_memory(const struct header *header, struct error *err)
{
	return error_set(err, ENOMEM, "%s: no memory for its LUKS header", header->name);
}

static int write_memfd(const struct header *header, const uint8_t *buf, uint64_t len,
		       uint64_t offset, struct error *err)
{
	while (len > 0) {
		ssize_t n = pwrite(header->fd, buf, len, offset);

		if (n <= 0)
			return error_set(err, n < 0 ? errno : EIO,
					 "%s: copying the LUKS header: %s", header->name,
					 strerror(n < 0 ? errno : EIO));
		buf += n;
		len -= n;
		offset += n;
	}
	return 0;
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
		ret = write_memfd(header, before + from, end - from, from, err);
	if (ret == 0)
		header->before_len = end;
	return ret;
}

/* ---- loading ---- */

static bool magic_at(const struct header *header, uint64_t offset, const char *magic)
{
	return offset + MAGIC_LEN <= header->before_len &&
	       memcmp(header->before + offset, magic, MAGIC_LEN) == 0;
}

static bool magic_found(const struct header *header)
{
	if (magic_at(header, 0, magic_first))
		return true;
	for (uint64_t offset = SECOND_MIN; offset <= SECOND_MAX; offset *= 2)
		if (magic_at(header, offset, magic_second))
			return true;
	return false;
}

static int find_luks2_end(struct header *header, struct error *err)
{
	uint64_t keys;
	int ret = crypt_get_metadata_size(header->cd, &header->copy_len, &keys);

	if (ret < 0)
		return error_set(err, -ret, "%s: measuring the LUKS header: %s", header->name,
				 header_reason(header, ret));
	header->len = 2 * header->copy_len + keys;
	return 0;
}

static void find_luks1_end(struct header *header)
{
	uint64_t offset, len;

	header->len = 2 * HEADER_UNIT;
	for (int slot = 0; slot < crypt_keyslot_max(CRYPT_LUKS1); slot++)
		if (crypt_keyslot_area(header->cd, slot, &offset, &len) == 0 &&
		    header->len < offset + len)
			header->len = offset + len;
}

int header_measure(struct header *header, struct error *err)
{
	int ret = 0;

	header->version = strcmp(crypt_get_type(header->cd), CRYPT_LUKS2) == 0 ? 2 : 1;
	if (header->version == 2)
		ret = find_luks2_end(header, err);
	else
		find_luks1_end(header);
	if (ret == 0 && header->len > HEADER_MAX)
		return error_set(err, EINVAL, "%s: the LUKS header says that it has %llu bytes",
				 header->name, (unsigned long long)header->len);
	return ret;
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
		pread(header->fd, second, len, len) != (ssize_t)len ||
		memcmp(second, header->before + len, len) != 0;
	free(second);
	return 0;
}

int header_load(struct header *header, struct error *err)
{
	int ret = header_make(header, header->size, err);

	if (ret == 0)
		ret = copy_until(header, SECOND_MAX + HEADER_UNIT, err);
	if (ret < 0)
		return ret;
	if (!magic_found(header))
		return error_set(err, ENODATA, "%s: not a LUKS volume", header->name);
	ret = copy_until(header, META_MAX, err);
	if (ret < 0)
		return ret;
	ret = crypt_load(header->cd, CRYPT_LUKS, NULL);
	/* A memfd has no bad blocks: -EIO is one that is too short. */
	if (ret == -EINVAL || ret == -EIO)
		return error_set(err, EINVAL, "%s: the LUKS header is damaged beyond repair, or "
				 "the volume is cut off", header->name);
	if (ret < 0)
		return error_set(err, -ret, "%s: loading the LUKS header: %s", header->name,
				 header_reason(header, ret));
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
