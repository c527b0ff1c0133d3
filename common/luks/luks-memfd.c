#include "luks/luks-memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libcryptsetup.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/align.h"
#include "base/file-limit.h"

#define MIB         (UINT64_C(1) << 20)
#define LUKS2_FIRST (16 * MIB) /* holds both copies of any LUKS2 header */
#define LUKS1_LEN   1024       /* without its key areas */
#define MAGIC_LEN   6
#define BLOCK       512
#define SECTOR_MAX  4096 /* of LUKS2, which wants whole ones to format */
#define DESCRIPTORS 8    /* that libcryptsetup and libblkid have open at once, at the most */

static const char magic_first[] = "LUKS\xba\xbe";
static const char magic_second[] = "SKUL\xba\xbe";

bool luks_starts(const void *first, size_t len)
{
	return len >= MAGIC_LEN && memcmp(first, magic_first, MAGIC_LEN) == 0;
}

void luks_memfd_init(struct luks_memfd *memfd, const char *name)
{
	*memfd = (struct luks_memfd){ .name = name, .fd = -1 };
}

void luks_memfd_close(struct luks_memfd *memfd)
{
	crypt_free(memfd->cd);
	if (memfd->fd >= 0)
		close(memfd->fd);
	luks_memfd_init(memfd, NULL);
}

static void make_printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

/* Without a callback libcryptsetup prints. A hostile header must not send control sequences to the
 * terminal by way of a message. */
static void keep_log(int level, const char *text, void *opaque)
{
	struct luks_memfd *memfd = opaque;

	if (level != CRYPT_LOG_ERROR)
		return;
	snprintf(memfd->log, sizeof(memfd->log), "%s", text);
	memfd->log[strcspn(memfd->log, "\n")] = '\0';
	make_printable(memfd->log);
}

const char *luks_memfd_reason(const struct luks_memfd *memfd, int ret)
{
	return memfd->log[0] ? memfd->log : strerror(-ret);
}

/* An empty one: growing it beyond the limit would raise the signal. */
static int memfd_make_file(struct luks_memfd *memfd)
{
	uint64_t limit = file_limit();

	memfd->len = memfd->size <= limit ? memfd->size : round_down(limit, SECTOR_MAX);
	memfd->fd = memfd_create("ndio-luks-header", MFD_CLOEXEC);
	return memfd->fd < 0 || ftruncate(memfd->fd, memfd->len) < 0 ? -errno : 0;
}

/* Where libcryptsetup gets no descriptor it takes a good header for a damaged one. */
static int check_descriptors(const struct luks_memfd *memfd)
{
	int fds[DESCRIPTORS], n = 0, ret = 0;

	while (n < DESCRIPTORS && ret == 0) {
		fds[n] = fcntl(memfd->fd, F_DUPFD_CLOEXEC, 0);
		if (fds[n] < 0)
			ret = -errno;
		else
			n++;
	}
	while (n > 0)
		close(fds[--n]);
	return ret;
}

int luks_memfd_make(struct luks_memfd *memfd, uint64_t size, struct error *err)
{
	char path[32];
	int ret;

	if (size > INT64_MAX)
		return error_set(err, EINVAL, "%s: its size is impossible", memfd->name);
	memfd->size = size;
	ret = memfd_make_file(memfd);
	if (ret == 0)
		ret = check_descriptors(memfd);
	if (ret < 0)
		return error_set(err, -ret, "%s: making a place for the LUKS header: %s",
				 memfd->name, strerror(-ret));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd->fd);
	if (access(path, R_OK) < 0)
		return error_set(err, EIO,
				 "%s: opening the LUKS header: %s: %s (is /proc mounted?)",
				 memfd->name, path, strerror(errno));
	ret = crypt_init(&memfd->cd, path);
	if (ret < 0)
		return error_set(err, -ret, "%s: opening the LUKS header: %s", memfd->name,
				 strerror(-ret));
	crypt_set_log_callback(memfd->cd, keep_log, memfd);
	return 0;
}

uint64_t luks_memfd_tail(const struct luks_memfd *memfd, uint64_t from)
{
	uint64_t tail = memfd->size > LUKS_TAIL ? memfd->size - LUKS_TAIL : 0;

	return min_u64(from > tail ? from : tail, memfd->size);
}

int luks_memfd_write(struct luks_memfd *memfd, const void *buf, uint64_t len, uint64_t offset,
		     struct error *err)
{
	const uint8_t *from = buf;

	len = offset < memfd->len ? min_u64(len, memfd->len - offset) : 0;
	while (len > 0) {
		ssize_t n = pwrite(memfd->fd, from, len, offset);

		if (n <= 0)
			return error_set(err, n < 0 ? errno : EIO,
					 "%s: copying the LUKS header: %s", memfd->name,
					 strerror(n < 0 ? errno : EIO));
		from += n;
		len -= n;
		offset += n;
	}
	return 0;
}

static bool magic_at(const struct luks_memfd *memfd, off_t offset, const char *magic)
{
	char found[MAGIC_LEN];

	return pread(memfd->fd, found, MAGIC_LEN, offset) == MAGIC_LEN &&
	       !memcmp(found, magic, MAGIC_LEN);
}

static bool magic_found(const struct luks_memfd *memfd)
{
	if (magic_at(memfd, 0, magic_first))
		return true;
	/* The second copy of a LUKS2 header follows the first, whose size is one of these. */
	for (off_t offset = 16 << 10; offset <= 4 << 20; offset *= 2)
		if (magic_at(memfd, offset, magic_second))
			return true;
	return false;
}

int luks_memfd_damaged(const struct luks_memfd *memfd, struct error *err)
{
	if (memfd->size < LUKS2_FIRST)
		return error_set(err, EINVAL,
				 "%s: the LUKS header is damaged beyond repair, or the "
				 "rest of it is missing: there are only %" PRIu64 " bytes",
				 memfd->name, memfd->size);
	return error_set(err, EINVAL, "%s: the LUKS header is damaged beyond repair", memfd->name);
}

static int too_little_room(const struct luks_memfd *memfd, struct error *err)
{
	return error_set(err, EFBIG, "%s: no room for its LUKS header: " FILE_LIMIT_LOW,
			 memfd->name);
}

int luks_memfd_check_room(const struct luks_memfd *memfd, uint64_t end, struct error *err)
{
	return end > memfd->len && memfd->len < memfd->size ? too_little_room(memfd, err) : 0;
}

/* libcryptsetup didn't take it. A second copy alone is an old one where libblkid finds something
 * else, which libcryptsetup tells with its message alone. */
static int load_failed(const struct luks_memfd *memfd, struct error *err)
{
	bool first = magic_at(memfd, 0, magic_first);
	bool foreign = strstr(memfd->log, "ambiguous signatures");

	if (luks_memfd_check_room(memfd, LUKS2_FIRST, err) < 0)
		return -EFBIG;
	if (first && foreign)
		return error_set(err, EINVAL,
				 "%s: the LUKS header is damaged, and something else is "
				 "on the disk as well",
				 memfd->name);
	if (first || (magic_found(memfd) && !foreign))
		return luks_memfd_damaged(memfd, err);
	return error_set(err, ENODATA, "%s: not a LUKS volume%s", memfd->name,
			 foreign ? " any more: something else is there, and an old second header" :
				   "");
}

int luks_memfd_load(struct luks_memfd *memfd, struct error *err)
{
	uint8_t before[BLOCK] = { 0 }, after[BLOCK] = { 0 };
	ssize_t n = pread(memfd->fd, before, BLOCK, 0);
	int ret = crypt_load(memfd->cd, CRYPT_LUKS, NULL);

	/* A memfd has no bad blocks: -EIO is one that is too short. */
	if (ret == -EINVAL || ret == -EIO)
		return load_failed(memfd, err);
	/* Repaired without a look at the end of the disk. */
	if (ret == 0 && memfd->len < memfd->size && pread(memfd->fd, after, BLOCK, 0) == n &&
	    memcmp(before, after, BLOCK) != 0)
		return too_little_room(memfd, err);
	if (ret < 0)
		return error_set(err, -ret, "%s: loading the LUKS header: %s", memfd->name,
				 luks_memfd_reason(memfd, ret));
	return 0;
}

unsigned luks_memfd_version(const struct luks_memfd *memfd)
{
	return strcmp(crypt_get_type(memfd->cd), CRYPT_LUKS2) == 0 ? 2 : 1;
}

void luks_memfd_cipher(const struct luks_memfd *memfd, char *text, size_t size)
{
	const char *cipher = crypt_get_cipher(memfd->cd), *mode = crypt_get_cipher_mode(memfd->cd);

	snprintf(text, size, "%s-%s", cipher ? cipher : "?", mode ? mode : "?");
	make_printable(text);
}

static uint64_t luks1_end(const struct luks_memfd *memfd)
{
	uint64_t end = LUKS1_LEN, offset, len;

	for (int slot = 0; slot < crypt_keyslot_max(CRYPT_LUKS1); slot++)
		if (crypt_keyslot_area(memfd->cd, slot, &offset, &len) == 0 && end < offset + len)
			end = offset + len;
	return end;
}

int luks_memfd_measure(struct luks_memfd *memfd, uint64_t *end, uint64_t *copy_len,
		       struct error *err)
{
	uint64_t copy = 0, keys = 0;
	int ret = 0;

	if (luks_memfd_version(memfd) == 2)
		ret = crypt_get_metadata_size(memfd->cd, &copy, &keys);
	if (ret < 0)
		return error_set(err, -ret, "%s: measuring the LUKS header: %s", memfd->name,
				 luks_memfd_reason(memfd, ret));
	*end = copy ? 2 * copy + keys : luks1_end(memfd);
	if (copy_len)
		*copy_len = copy;
	if (luks_memfd_check_room(memfd, *end, err) < 0)
		return -EFBIG;
	if (*end > LUKS_HEADER_MAX)
		return error_set(err, EINVAL,
				 "%s: the LUKS header says that it has %" PRIu64 " bytes",
				 memfd->name, *end);
	return 0;
}
