#include "header-edit.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "align.h"

#define CHUNK       (UINT64_C(1) << 20)
#define MAGIC_BLOCK UINT64_C(4096) /* what is zeroed where a header may start */
#define MAX_SLOTS   32

/* ---- what is to be written ---- */

/* One writing back. */
struct edit {
	struct header *header;
	uint8_t *now;                       /* the memfd, mapped: header->len bytes */
	struct header_range copies[2];      /* in the order in which they are written */
	uint64_t areas;                     /* where the key areas begin */
	struct header_range used[MAX_SLOTS]; /* areas of the slots in use now */
	size_t nr_used;
	bool write; /* or only compare with what the volume has */
};

/* LUKS1 has no second copy: its two sectors stand for the two. */
static void find_copies(struct edit *edit, bool second_goes_first)
{
	const struct header *header = edit->header;
	const struct header_range first = { 0, header->version == 2 ? header->copy_len :
								      HEADER_UNIT };
	const struct header_range second = { first.len, first.len };

	edit->copies[second_goes_first] = first;
	edit->copies[!second_goes_first] = second;
	edit->areas = 2 * first.len;
}

static void find_used(struct edit *edit)
{
	struct crypt_device *cd = edit->header->memfd.cd;
	int max = crypt_keyslot_max(crypt_get_type(cd));

	assert(max <= MAX_SLOTS);
	for (int slot = 0; slot < max; slot++) {
		struct header_range *area = &edit->used[edit->nr_used];

		if (crypt_keyslot_status(cd, slot) >= CRYPT_SLOT_ACTIVE &&
		    crypt_keyslot_area(cd, slot, &area->offset, &area->len) == 0)
			edit->nr_used++;
	}
}

static bool is_used(const struct edit *edit, uint64_t offset)
{
	for (size_t i = 0; i < edit->nr_used; i++)
		if (offset >= edit->used[i].offset &&
		    offset - edit->used[i].offset < edit->used[i].len)
			return true;
	return false;
}

static bool is_changed(const struct edit *edit, uint64_t offset, uint64_t len)
{
	return memcmp(edit->now + offset, edit->header->before + offset, len) != 0;
}

/* ---- one range of it ---- */

static int compare(const struct edit *edit, uint64_t offset, uint64_t len, struct error *err)
{
	struct header *header = edit->header;
	uint8_t *found = malloc(len);
	int ret;

	if (!found)
		return error_set(err, ENOMEM, "%s: no memory for its LUKS header", header->name);
	ret = header_read_bytes(header, found, len, offset, "reading the LUKS header again", err);
	if (ret == 0 && memcmp(found, header->before + offset, len) != 0)
		ret = error_set(err, EBUSY, "%s: its LUKS header changed meanwhile: nothing was "
				"written", header->name);
	free(found);
	return ret;
}

static int handle_range(const struct edit *edit, uint64_t offset, uint64_t len, const char *step,
			struct error *err)
{
	if (!edit->write)
		return compare(edit, offset, len, err);
	return header_write_bytes(edit->header, edit->now + offset, len, offset, step, err);
}

static int flush(const struct edit *edit, const char *step, struct error *err)
{
	return edit->write ? header_flush(edit->header, step, err) : 0;
}

static int handle_copy(const struct edit *edit, const struct header_range *copy,
		       struct error *err)
{
	static const char step[] = "writing the LUKS metadata";
	int ret;

	/* Of a copy that stays as it is, it still matters that nobody else has changed it. */
	if (edit->write && !is_changed(edit, copy->offset, copy->len))
		return 0;
	ret = handle_range(edit, copy->offset, copy->len, step, err);
	return ret < 0 ? ret : flush(edit, step, err);
}

/* The changed bytes of the areas that are in use now, or of those that are not. */
static int handle_areas(const struct edit *edit, bool used, const char *step, struct error *err)
{
	uint64_t end = edit->header->len, start = edit->areas, at;
	bool any = false;
	int ret = 0;

	while (start < end && ret == 0) {
		for (at = start; at < end; at += HEADER_UNIT)
			if (is_used(edit, at) != used ||
			    !is_changed(edit, at, min_u64(HEADER_UNIT, end - at)))
				break;
		if (at > end)
			at = end;
		if (at > start) {
			ret = handle_range(edit, start, at - start, step, err);
			any = true;
			start = at;
		} else {
			start += HEADER_UNIT;
		}
	}
	return any && ret == 0 ? flush(edit, step, err) : ret;
}

/* ---- all of it, in order ---- */

static int handle_all(const struct edit *edit, struct error *err)
{
	int ret = handle_areas(edit, true, "writing the key area", err);

	if (ret == 0)
		ret = handle_copy(edit, &edit->copies[0], err);
	if (ret == 0)
		ret = handle_copy(edit, &edit->copies[1], err);
	if (ret == 0)
		ret = handle_areas(edit, false, "wiping the old key area", err);
	return ret;
}

static void signals_hold(sigset_t *before)
{
	sigset_t held;

	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	sigaddset(&held, SIGTERM);
	sigaddset(&held, SIGHUP);
	sigaddset(&held, SIGQUIT);
	pthread_sigmask(SIG_BLOCK, &held, before);
}

static int map_memfd(struct header *header, uint64_t len, uint8_t **now, struct error *err)
{
	*now = mmap(NULL, len, PROT_READ, MAP_SHARED, header->memfd.fd, 0);
	if (*now == MAP_FAILED)
		return error_set(err, errno, "%s: reading the new LUKS header: %s", header->name,
				 strerror(errno));
	return 0;
}

int header_write_back(struct header *header, enum header_change change, struct error *err)
{
	struct edit edit = { .header = header };
	sigset_t before;
	int ret;

	assert(header->before_len >= header->len);
	if (!(header->info.can & NDIO_CAN_WRITE))
		return error_set(err, EROFS, "%s: it can only be read", header->name);
	ret = map_memfd(header, header->len, &edit.now, err);
	if (ret < 0)
		return ret;
	find_copies(&edit, header->version == 2 ? header->second_is_stale :
						  change == HEADER_ADDED);
	find_used(&edit);
	signals_hold(&before);
	ret = handle_all(&edit, err);
	edit.write = true;
	if (ret == 0)
		ret = handle_all(&edit, err);
	if (ret == 0) {
		memcpy(header->before, edit.now, header->len);
		header->second_is_stale = false;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	munmap(edit.now, header->len);
	return ret;
}

/* ---- a new header ---- */

static int zero(struct header *header, uint64_t offset, uint64_t len, const char *step,
		struct error *err)
{
	int ret;

	if (offset >= header->size)
		return 0;
	len = min_u64(len, header->size - offset);
	ret = ndio_zero(header->volume, offset, len, 0);
	return ret < 0 ? header_step_failed(header, ret, step, err) : 0;
}

static int zero_and_flush(struct header *header, uint64_t offset, uint64_t len, struct error *err)
{
	static const char step[] = "wiping what was there";
	int ret = zero(header, offset, len, step, err);

	return ret < 0 ? ret : header_flush(header, step, err);
}

/* Every place where libcryptsetup or blkid would find a LUKS header. One after the other from
 * the beginning, since an old second copy has its key areas behind it: what is left of an old
 * header is either whole or none. */
static int wipe_old(struct header *header, const struct header_range *wipe, size_t nr_wipe,
		    struct error *err)
{
	int ret = zero_and_flush(header, 0, MAGIC_BLOCK, err);

	for (uint64_t offset = 16 << 10; offset <= 4 << 20 && ret == 0; offset *= 2)
		ret = zero_and_flush(header, offset, MAGIC_BLOCK, err);
	for (size_t i = 0; i < nr_wipe && ret == 0; i++)
		ret = zero_and_flush(header, wipe[i].offset, wipe[i].len, err);
	return ret;
}

static bool is_zero(const uint8_t *bytes, uint64_t len)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static int write_new_areas(const struct edit *edit, uint64_t end, struct error *err)
{
	static const char step[] = "writing the key areas";
	int ret = 0;

	for (uint64_t at = edit->areas, len; at < end && ret == 0; at += len) {
		len = min_u64(CHUNK, end - at);
		if (is_zero(edit->now + at, len))
			ret = zero(edit->header, at, len, step, err);
		else
			ret = header_write_bytes(edit->header, edit->now + at, len, at, step, err);
	}
	return ret < 0 ? ret : header_flush(edit->header, step, err);
}

static int write_new_copy(const struct edit *edit, const struct header_range *copy,
			  struct error *err)
{
	static const char step[] = "writing the LUKS metadata";
	int ret = header_write_bytes(edit->header, edit->now + copy->offset, copy->len,
				     copy->offset, step, err);

	return ret < 0 ? ret : header_flush(edit->header, step, err);
}

int header_write_new(struct header *header, uint64_t end, const struct header_range *wipe,
		     size_t nr_wipe, struct error *err)
{
	struct edit edit = { .header = header };
	sigset_t before;
	int ret = map_memfd(header, end, &edit.now, err);

	if (ret < 0)
		return ret;
	find_copies(&edit, true);
	signals_hold(&before);
	ret = wipe_old(header, wipe, nr_wipe, err);
	if (ret == 0)
		ret = write_new_areas(&edit, end, err);
	if (ret == 0)
		ret = write_new_copy(&edit, &edit.copies[0], err);
	if (ret == 0)
		ret = write_new_copy(&edit, &edit.copies[1], err);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	munmap(edit.now, end);
	return ret;
}
