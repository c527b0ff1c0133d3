/* An edit goes through the ranges that differ from what the volume had, each time in another
 * mode: it compares what is there, writes, verifies, or restores. Its stage only advances, and
 * says after a failure what was left. The invariant: at any moment, also after a crash, one
 * copy of the metadata is whole on the volume, with all the key areas that it names; so areas
 * in use are written before the copies, one copy at a time with a flush behind it, and old
 * areas are wiped last.
 *
 * One thread, but for the trial that derives a key while the main thread looks for signals. */
#include "header/header-edit.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <libcryptsetup.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/align.h"
#include "base/thread.h"
#include "header/header-seal.h"
#include "terminal/deferral.h"
#include "terminal/say.h"

#define CHUNK       (UINT64_C(1) << 20)
#define MAGIC_BLOCK UINT64_C(4096) /* what is zeroed where a header may start */
#define MAX_SLOTS   32

/* ---- what is to be written ---- */

/* What is done with each range that differs from what the volume had. */
enum mode {
	COMPARE, /* does the volume still have what it had? */
	WRITE,
	VERIFY,  /* does it have what was written? */
	RESTORE, /* write what it had */
};

/* How far it has come: what a failure leaves behind. */
enum stage {
	NOTHING_WRITTEN,
	WRITING_AREAS,
	WRITING_METADATA,
	WIPING,
	WIPING_OLD, /* a new header: what was there goes first */
	PUT_BACK,
};

/* One writing back. */
struct edit {
	struct header *header;
	uint8_t *now;                        /* the memfd, mapped: header->len bytes */
	struct header_range copies[2];       /* in the order in which they are written */
	uint64_t areas;                      /* where the key areas begin */
	struct header_range used[MAX_SLOTS]; /* areas of the slots in use now */
	size_t nr_used;
	enum header_change change;
	enum mode mode;
	enum stage stage;
};

/* LUKS1 has no second copy: its two sectors stand for the two. */
static void find_copies(struct edit *edit, bool second_goes_first)
{
	const struct header *header = edit->header;
	const struct header_range first = { 0,
					    header->version == 2 ? header->copy_len : HEADER_UNIT };
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

/* Is this what the volume has there? */
static int compare_range(const struct edit *edit, const uint8_t *wanted, uint64_t offset,
			 uint64_t len, const char *step, int otherwise, struct error *err)
{
	struct header *header = edit->header;
	uint8_t *found = malloc(len);
	int ret;

	if (!found)
		return error_set(err, ENOMEM, "%s: no memory for its LUKS header", header->name);
	ret = header_read_bytes(header, found, len, offset, step, err);
	if (ret == 0 && memcmp(found, wanted + offset, len) != 0)
		ret = -otherwise;
	free(found);
	return ret;
}

static int compare_before(const struct edit *edit, uint64_t offset, uint64_t len, struct error *err)
{
	int ret = compare_range(edit, edit->header->before, offset, len,
				"reading the LUKS header again", EBUSY, err);

	return ret == -EBUSY ? error_set(err, EBUSY, "%s: its LUKS header changed meanwhile",
					 edit->header->name) :
			       ret;
}

static int verify(const struct edit *edit, uint64_t offset, uint64_t len, struct error *err)
{
	int ret = compare_range(edit, edit->now, offset, len, "reading what was written", EILSEQ,
				err);

	return ret == -EILSEQ ? error_set(err, EIO,
					  "%s: what was written at %" PRIu64 " reads back as "
					  "something else",
					  edit->header->name, offset) :
				ret;
}

static int handle_range(const struct edit *edit, uint64_t offset, uint64_t len, const char *step,
			struct error *err)
{
	switch (edit->mode) {
	case COMPARE:
		return compare_before(edit, offset, len, err);
	case VERIFY:
		return verify(edit, offset, len, err);
	case RESTORE:
		return header_write_bytes(edit->header, edit->header->before + offset, len, offset,
					  step, err);
	default:
		return header_write_bytes(edit->header, edit->now + offset, len, offset, step, err);
	}
}

static int flush_step(const struct edit *edit, const char *step, struct error *err)
{
	bool writes = edit->mode == WRITE || edit->mode == RESTORE;

	return writes ? header_flush(edit->header, step, err) : 0;
}

static int handle_copy(const struct edit *edit, const struct header_range *copy, struct error *err)
{
	static const char step[] = "writing the LUKS metadata";
	int ret;

	/* Of a copy that stays as it is, it still matters that nobody else has changed it. */
	if (edit->mode != COMPARE && !is_changed(edit, copy->offset, copy->len))
		return 0;
	ret = handle_range(edit, copy->offset, copy->len, step, err);
	return ret < 0 ? ret : flush_step(edit, step, err);
}

/* The changed bytes of the areas that are in use now, or of those that are not. */
static int handle_areas(const struct edit *edit, bool used, struct error *err)
{
	const char *step = used ? "writing the key area" : "wiping the old key area";
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
	return any && ret == 0 ? flush_step(edit, step, err) : ret;
}

/* ---- what it leaves behind ---- */

/* What a failure leaves, and how to go on. */
static const char *edit_state(const struct edit *edit)
{
	static const char *const metadata[] = {
		[HEADER_ADDED] = "the new key may be there or not, the others are: see \"ndio key "
				 "list\", and do it again",
		[HEADER_REMOVED] =
			"the key slot may be there or not: see \"ndio key list\", and do it "
			"again",
		[HEADER_CHANGED] =
			"the key slot has the old key or the new one: if the old one opens "
			"it (\"ndio info\"), do it again",
		[HEADER_LABELLED] =
			"the header has what it had, or what it should have: see \"ndio "
			"info\", and do it again",
		[HEADER_RESIZED] =
			"the data have the old length, or the new one: see \"ndio info\", "
			"and do it again",
		[HEADER_SEALED] = "its seal may be the old one or the new one: seal it again",
		[HEADER_ERASED] = "the key slots may be there or not: do it again",
		[HEADER_RESTORED] = "it is partly the old header and partly the backup: restore it "
				    "again",
		[HEADER_CONVERTED] = "it is partly converted: restore the backup that was made, "
				     "with --force",
		[HEADER_NEW] = "the new header isn't whole: format it again",
	};

	switch (edit->stage) {
	case NOTHING_WRITTEN:
		return "nothing was written";
	case WRITING_AREAS:
		return edit->change >= HEADER_RESTORED ? metadata[edit->change] :
							 "the key slots are as they were";
	case WRITING_METADATA:
		return metadata[edit->change];
	case PUT_BACK:
		return "all was put back as it was";
	case WIPING:
		return "it is done, but the old key may still open what of its slot is not wiped";
	default:
		return "what was there is lost, and there is no new header yet: format it again";
	}
}

static int edit_tell_state(const struct edit *edit, int ret, struct error *err)
{
	struct error reason = *err;

	return error_set(err, -ret, "%s: %s", reason.text, edit_state(edit));
}

/* ---- all of it, in order ---- */

static int handle_header(const struct edit *edit, struct error *err)
{
	int ret = handle_areas(edit, true, err);

	if (ret == 0)
		ret = handle_copy(edit, &edit->copies[0], err);
	return ret < 0 ? ret : handle_copy(edit, &edit->copies[1], err);
}

static int compare_all(struct edit *edit, struct error *err)
{
	int ret;

	edit->mode = COMPARE;
	ret = handle_header(edit, err);
	return ret < 0 ? ret : handle_areas(edit, false, err);
}

/* The key doesn't open what was written: puts back what was there, the last copy first. */
static int undo(struct edit *edit, unsigned nr_copies, int why, struct error *err)
{
	struct error reason = *err, failure;
	int ret = 0;

	edit->mode = RESTORE;
	while (nr_copies > 0 && ret == 0)
		ret = handle_copy(edit, &edit->copies[--nr_copies], &failure);
	if (ret == 0)
		ret = handle_areas(edit, true, &failure);
	if (ret < 0)
		return error_set(err, -why, "%s; and putting back what was there failed: %s",
				 reason.text, failure.text);
	edit->stage = PUT_BACK;
	return why;
}

/* A proof, in a thread of its own. */
struct trial {
	struct header *header;
	const struct header_proof *proof;
	struct error *err;
	int ret;
};

static void *run_trial(void *opaque)
{
	struct trial *trial = opaque;

	trial->ret = header_prove(trial->header, trial->proof, trial->err);
	return NULL;
}

/* Whoever makes a key of which the derivation takes hours may change his mind. libcryptsetup can't be
 * stopped, so that the program ends here. */
static void end_interrupted(const struct edit *edit)
{
	struct error err;

	error_set(&err, EINTR, "%s: interrupted while the new key was tried", edit->header->name);
	edit_tell_state(edit, -EINTR, &err);
	say_error("%s", err.text);
	deferral_end();
	_exit(EXIT_FAILURE); /* not reached: the signal ends it */
}

static int prove_patiently(const struct edit *edit, const struct header_proof *proof,
			   struct error *err)
{
	struct trial trial = { edit->header, proof, err, 0 };
	struct timespec until;
	pthread_t thread;
	int ret = thread_start(&thread, run_trial, &trial);

	if (ret)
		return error_set(err, ret, "%s: no thread to try the new key in",
				 edit->header->name);
	do {
		if (deferral_is_over())
			end_interrupted(edit);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++;
	} while (pthread_timedjoin_np(thread, NULL, &until) != 0);
	return trial.ret;
}

static int prove_edit(struct edit *edit, const struct header_proof *proof, unsigned nr_copies,
		      struct error *err)
{
	int ret = proof ? prove_patiently(edit, proof, err) : 0;

	return ret < 0 ? undo(edit, nr_copies, ret, err) : 0;
}

/* Of LUKS2's two copies the newer one counts: while the other still has the old metadata, it is
 * only a write back to them. */
static int write_metadata(struct edit *edit, const struct header_proof *proof, struct error *err)
{
	bool two = edit->header->version == 2;
	int ret;

	edit->stage = WRITING_METADATA;
	ret = handle_copy(edit, &edit->copies[0], err);
	if (ret == 0 && two)
		ret = prove_edit(edit, proof, 1, err);
	if (ret == 0)
		ret = handle_copy(edit, &edit->copies[1], err);
	if (ret == 0 && !two)
		ret = prove_edit(edit, proof, 2, err);
	return ret;
}

static int write_edit(struct edit *edit, const struct header_proof *proof, struct error *err)
{
	int ret;

	edit->mode = WRITE;
	edit->stage = WRITING_AREAS;
	ret = handle_areas(edit, true, err);
	if (ret == 0)
		ret = write_metadata(edit, proof, err);
	if (ret < 0)
		return ret;
	edit->mode = VERIFY;
	ret = handle_header(edit, err);
	if (ret < 0)
		return ret;
	edit->mode = WRITE;
	edit->stage = WIPING;
	ret = handle_areas(edit, false, err);
	edit->mode = VERIFY;
	return ret < 0 ? ret : handle_areas(edit, false, err);
}

static int map_memfd(struct header *header, uint64_t len, uint8_t **now, struct error *err)
{
	*now = mmap(NULL, len, PROT_READ, MAP_SHARED, header->memfd.fd, 0);
	if (*now == MAP_FAILED)
		return error_set(err, errno, "%s: reading the new LUKS header: %s", header->name,
				 strerror(errno));
	return 0;
}

int header_write_back(struct header *header, enum header_change change,
		      const struct header_proof *proof, struct error *err)
{
	struct edit edit = { .header = header, .change = change };
	int ret;

	assert(header->before_len >= header->len);
	if (!(header->info.can & NDIO_CAN_WRITE))
		return error_set(err, EROFS, "%s: it can only be read", header->name);
	ret = header_seal_before(header, change, err);
	if (ret == 0)
		ret = map_memfd(header, header->len, &edit.now, err);
	if (ret < 0)
		return ret;
	find_copies(&edit, header->version == 2 ?
				   header->second_is_stale :
				   change != HEADER_REMOVED && change != HEADER_ERASED);
	find_used(&edit);
	deferral_begin();
	ret = compare_all(&edit, err);
	if (ret == 0)
		ret = write_edit(&edit, proof, err);
	if (ret == 0) {
		memcpy(header->before, edit.now, header->len);
		header->first_is_stale = header->second_is_stale = false;
	} else {
		edit_tell_state(&edit, ret, err);
	}
	munmap(edit.now, header->len);
	return ret < 0 ? ret : header_seal_after(header, err);
}

/* ---- a new header ---- */

static int zero_range(struct header *header, uint64_t offset, uint64_t len, const char *step,
		      struct error *err)
{
	if (offset >= header->size)
		return 0;
	return header_zero_bytes(header, min_u64(len, header->size - offset), offset, step, err);
}

static int zero_and_flush(struct header *header, uint64_t offset, uint64_t len, struct error *err)
{
	static const char step[] = "wiping what was there";
	int ret = zero_range(header, offset, len, step, err);

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

static int write_new_areas(const struct edit *edit, uint64_t end, struct error *err)
{
	static const char step[] = "writing the key areas";
	int ret = 0;

	for (uint64_t at = edit->areas, len; at < end && ret == 0; at += len) {
		len = min_u64(CHUNK, end - at);
		if (is_zero(edit->now + at, len))
			ret = zero_range(edit->header, at, len, step, err);
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

/* The beginning comes last. */
static int write_new_header(struct edit *edit, uint64_t end, struct error *err)
{
	int ret = write_new_areas(edit, end, err);

	edit->stage = WRITING_METADATA;
	for (unsigned i = 0; i < 2 && ret == 0; i++)
		ret = write_new_copy(edit, &edit->copies[i], err);
	for (unsigned i = 0; i < 2 && ret == 0; i++)
		ret = verify(edit, edit->copies[i].offset, edit->copies[i].len, err);
	return ret;
}

int header_write_new(struct header *header, uint64_t end, const struct header_range *wipe,
		     size_t nr_wipe, const struct header_proof *proof, struct error *err)
{
	struct edit edit = { .header = header, .change = HEADER_NEW, .stage = WIPING_OLD };
	int ret = map_memfd(header, end, &edit.now, err);

	if (ret < 0)
		return ret;
	find_copies(&edit, true);
	deferral_begin();
	ret = wipe_old(header, wipe, nr_wipe, err);
	if (ret == 0)
		ret = write_new_header(&edit, end, err);
	if (ret == 0)
		ret = prove_patiently(&edit, proof, err);
	if (ret < 0)
		edit_tell_state(&edit, ret, err);
	munmap(edit.now, end);
	return ret;
}
