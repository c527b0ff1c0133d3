#include "open.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "integrity/tagged-cipher.h"
#include "integrity/target-integrity.h"
#include "integrity/trusted.h"
#include "locator/same.h"
#include "memory/secret.h"
#include "nbd/target-nbd.h"

#define HEADER_SAMPLE 4096 /* bytes: its magic, a checksum and salts */

static int read_target(void *opaque, void *buf, size_t len, uint64_t offset)
{
	struct target *target = opaque;

	return target_read(target, buf, len, offset);
}

static int open_file_target(const struct volume_options *options, enum direct_mode direct,
			    struct target **target, struct error *err)
{
	const struct target_file_options file_options = {
		.direct = direct,
		.readonly = options->readonly,
		.locking = options->locking,
		.size = options->file_size,
		.notice = options->notice,
	};

	return target_file_open(options->file, &file_options, target, err);
}

static int open_target(struct volume *volume, const struct volume_options *options,
		       enum direct_mode direct, struct error *err)
{
	if (options->uri)
		return target_nbd_open(options->uri,
				       &(struct target_nbd_options){
					       .connections = options->connections,
					       .readonly = options->readonly,
					       .answer_timeout = options->answer_timeout,
					       .reconnect = options->reconnect,
					       .unflushed = options->unflushed,
					       .memory_ready = options->memory_ready,
					       .wait = options->wait,
					       .listener = options->listener,
					       .notice = options->notice,
				       },
				       &volume->target, err);
	return open_file_target(options, direct, &volume->target, err);
}

/* Does this disk begin with the header that was given as a detached one? By its bytes: the two may be
 * one under different names, or a server's. */
static int begins_with(struct target *target, struct target *holder, bool *same, struct error *err)
{
	uint8_t ours[HEADER_SAMPLE], theirs[HEADER_SAMPLE];
	int ret;

	*same = false;
	if (target->size < HEADER_SAMPLE || holder->size < HEADER_SAMPLE)
		return 0;
	ret = target_read(holder, ours, HEADER_SAMPLE, 0);
	if (ret == 0)
		ret = target_read(target, theirs, HEADER_SAMPLE, 0);
	if (ret < 0)
		return error_set(err, -ret, "%s: reading its first bytes: %s", target->name,
				 error_reason(-ret));
	*same = memcmp(ours, theirs, HEADER_SAMPLE) == 0;
	return 0;
}

/* So that the first write would destroy it? */
static int check_apart(const struct volume *volume, struct error *err)
{
	if (volume->luks.data_offset >= volume->luks.header_len)
		return 0;
	return error_set(err, EINVAL,
			 "%s: the header is on the disk itself, and the data would lie "
			 "over it: they start at byte %" PRIu64 ", and it ends at %" PRIu64,
			 volume->target->name, volume->luks.data_offset, volume->luks.header_len);
}

/* A header on the disk itself: over every connection it must be the one that was unlocked. */
static int volume_identify(void *opaque, struct target *target, uint8_t *identity,
			   struct error *err)
{
	const struct volume *volume = opaque;
	const struct luks_source source = {
		.name = target->name,
		.size = target->size,
		.read = read_target,
		.opaque = target,
	};

	_Static_assert(TARGET_NBD_IDENTITY == LUKS_IDENTITY_LEN, "the one is the other");
	return luks_identify(&source, &volume->luks, identity, err);
}

static int guard_header(void *trusted, struct luks_memfd *memfd, struct error *err)
{
	return trusted_check_header(trusted, memfd, err);
}

static int guard_key(void *trusted, const void *key, size_t len, struct error *err)
{
	return trusted_check_key(trusted, key, len, err);
}

static int unlock_by(struct volume *volume, struct target *holder,
		     const struct volume_options *options, struct trusted *trusted,
		     struct error *err)
{
	const struct luks_guard guard = { guard_header, guard_key, trusted };
	const struct luks_source source = {
		.name = holder->name,
		.size = holder->size,
		.read = read_target,
		.opaque = holder,
		.detached = holder != volume->target,
	};
	struct luks_tokens tokens = options->tokens;
	const struct luks_pass pass = {
		.data = options->pass,
		.len = options->pass_len,
		.volume_key = options->volume_key,
		.asker = options->asker,
		.tokens = options->by_tokens ? &tokens : NULL,
		.slot = options->one_slot ? options->slot : LUKS_ANY_SLOT,
		.max_kdf_time = options->max_kdf_time,
		.notice = &options->notice,
		.fits = tagged_supported,
		.guard = &guard,
	};
	bool same = false;
	int ret = 0;

	tokens.wait = options->answer_timeout;
	/* Before: typing a passphrase may take longer than a server keeps an idle connection. */
	if (source.detached)
		ret = begins_with(volume->target, holder, &same, err);
	if (ret == 0)
		ret = luks_unlock(&source, &pass, &volume->luks, err);
	if (ret == 0 && !source.detached && target_is_nbd(holder))
		target_nbd_set_identity(holder, volume->luks.identity, volume_identify, volume);
	return ret == 0 && same ? check_apart(volume, err) : ret;
}

static int volume_unlock(struct volume *volume, const struct volume_options *options,
			 struct trusted *trusted, struct error *err)
{
	struct target *holder = volume->target;
	int ret;

	secret_no_dumps();
	if (options->header) {
		ret = target_file_open(options->header,
				       &(struct target_file_options){
					       .direct = DIRECT_OFF,
					       .readonly = true,
					       .locking = options->locking,
					       .notice = options->notice,
				       },
				       &holder, err);
		if (ret < 0)
			return ret;
	}
	ret = unlock_by(volume, holder, options, trusted, err);
	if (ret == -ETIMEDOUT && holder->timed_out)
		error_set(err, ETIMEDOUT, "%s: reading the LUKS header: %s", holder->name,
			  holder->timed_out);
	if (holder != volume->target)
		holder->ops->close(holder);
	return ret;
}

/* A LUKS data area that doesn't start where direct I/O can, or tagged sectors shorter than what that
 * takes: rare (cryptsetup aligns to 1 MiB), so it is read and written through the page cache rather
 * than by shifting every block. */
static int reopen_buffered(struct volume *volume, const struct volume_options *options,
			   struct error *err)
{
	struct target *target = volume->target;
	struct error why;
	int ret;

	if (volume->luks.integrity && is_aligned(volume->data_offset, target->align))
		error_set(&why, EINVAL, "%s: integrity's sectors are of %u bytes, and not of %u",
			  target->name, volume->luks.sector, target->align);
	else
		error_set(&why, EINVAL,
			  "%s: the data start at byte %" PRIu64 ", which is no multiple of %u",
			  target->name, volume->data_offset, target->align);
	if (options->uri || options->direct == DIRECT_ON)
		return error_set(err, EINVAL, "%s as %s needs it", why.text,
				 options->uri ? "the server" : "direct I/O");
	notice_tell(&options->notice, "%s as direct I/O needs it: going through the page cache",
		    why.text);
	ret = open_target(volume, options, DIRECT_OFF, err);
	if (ret == 0)
		target->ops->close(target);
	return ret;
}

/* Whole sectors; a part of a block at the end, only where all of that block can be read and
 * written. */
static void volume_set_size(struct volume *volume, uint64_t size, const struct notice *notice)
{
	const struct target *target = volume->target;
	unsigned unit = volume->encrypted ? volume->sector : 1;

	volume->size = round_down(size, unit);
	if (!target->any_size &&
	    round_up(volume->data_offset + volume->size, target->align) > target->size) {
		unit = volume->block;
		volume->size = round_down(size, unit);
	}
	if (volume->size != size)
		notice_tell(notice,
			    "%s: the last %" PRIu64 " bytes are no whole %s of %u and are "
			    "left out",
			    target->name, size - volume->size,
			    unit == volume->sector && volume->encrypted ? "sector" : "block", unit);
}

static int set_geometry(struct volume *volume, const struct volume_options *options,
			struct error *err)
{
	const struct luks *luks = &volume->luks;
	struct target *target = volume->target;
	int ret;

	if (volume->encrypted) {
		volume->data_offset = luks->data_offset;
		if (!is_aligned(luks->data_offset, target->align) ||
		    (luks->integrity && luks->sector < target->align)) {
			ret = reopen_buffered(volume, options, err);
			if (ret < 0)
				return ret;
			target = volume->target;
		}
		if (luks->data_offset >= target->size ||
		    target->size - luks->data_offset < luks->data_size)
			return error_set(err, EINVAL,
					 "%s: too small for its LUKS header: it has %" PRIu64
					 " bytes, and the data %s byte %" PRIu64,
					 target->name, target->size,
					 luks->data_size ? "end at" : "start at",
					 luks->data_offset + luks->data_size);
	}
	volume->sector = volume->encrypted ? luks->sector : target->align;
	volume->block = volume->sector > target->align ? volume->sector : target->align;
	volume_set_size(volume,
			luks->data_size ? luks->data_size : target->size - volume->data_offset,
			&options->notice);
	return 0;
}

/* As with cryptsetup, the header's flag says so once and for all. */
static bool may_discard(const struct volume *volume, const struct volume_options *options)
{
	return options->discard || (volume->luks.allow_discards && !options->no_discard);
}

static void set_capabilities(struct volume *volume, const struct volume_options *options)
{
	const struct target *target = volume->target;

	volume->readonly = options->readonly || target->readonly;
	volume->can_trim = target->can_trim && (!volume->encrypted || may_discard(volume, options));
	volume->can_fast_zero = !volume->encrypted && target->can_fast_zero;
	volume->can_extents = !volume->encrypted && target->can_extents;
	volume->reads_tear = volume_reads_tear(volume);
}

/* A header that was given apart may be on the disk, but not among its data: clients would write to
 * it. */
static int check_header(const struct volume *volume, const struct volume_options *options,
			struct error *err)
{
	const struct same_part data = {
		.locator = options->uri ? options->uri : options->file,
		.offset = volume->data_offset,
		.size = volume->size,
	};
	const struct same_part header = {
		.locator = options->header,
		.size = volume->luks.header_len,
	};

	if (options->readonly || !same_bytes(NULL, &data, &header))
		return 0;
	return error_set(err, EINVAL,
			 "%s and %s: the same, or one is on the other: the header would "
			 "be overwritten",
			 header.locator, data.locator);
}

/* ---- a trust file ---- */

static int guard_layout(void *trusted, const struct layout *layout, struct error *err)
{
	return trusted_check_areas(trusted, layout, err);
}

/* What couldn't be written is only that less counts than the file says. */
static void end_trust(void *opaque)
{
	struct trusted *trusted = opaque;
	struct error err;

	if (trusted)
		trusted_close(trusted, &err);
	free(trusted);
}

/* Even without a file, for a header that has a seal. */
static int begin_trust(const struct volume *volume, const struct volume_options *options,
		       struct trusted **opened, struct error *err)
{
	bool readonly = options->readonly || volume->target->readonly;
	struct trusted *trusted = malloc(sizeof(*trusted));

	*opened = trusted;
	if (!trusted)
		return error_set(err, ENOMEM, "%s: no memory", volume->target->name);
	return trusted_open(trusted, options->trust, readonly && !options->learn, err);
}

/* What the volume stands on becomes what keeps its tags. */
static int lay_tags(struct volume *volume, const struct volume_options *options,
		    struct trusted *trusted, struct error *err)
{
	const struct luks *luks = &volume->luks;
	struct target_integrity_options integrity = {
		.start = volume->data_offset,
		.room = luks->data_size ? luks->data_size :
					  volume->target->size - volume->data_offset,
		.block = luks->sector,
		.tag_size = tagged_tag_len(luks->cipher),
		.cache = options->integrity_cache,
		.over_journal = options->readonly || volume->disk->readonly,
		.journal = !luks->no_journal && !options->readonly && !volume->disk->readonly,
		.notice = options->notice,
		.trust = trusted->has_file ? &trusted->trust : NULL,
		.trust_read_only = trusted->file.read_only,
		.check = guard_layout,
		.closed = end_trust,
		.opaque = trusted,
	};
	int ret = target_integrity_open(volume->disk, &integrity, &volume->target, err);

	if (ret == -EUCLEAN && !options->readonly && !volume->disk->readonly) {
		integrity.recover = true;
		ret = options->uri || options->locking != LOCK_IMAGE_LATER ?
			      0 :
			      target_file_lock(volume->disk, err);
		if (ret == 0)
			ret = target_integrity_open(volume->disk, &integrity, &volume->target, err);
	}
	if (ret < 0)
		return ret;
	volume->cipher_ops = &cipher_tagged;
	volume->tag_len = integrity.tag_size;
	volume->data_offset = 0;
	volume->size = volume->target->size;
	if (options->discard || luks->allow_discards)
		notice_tell(&options->notice,
			    "%s: with integrity nothing can be discarded: trims are not passed on",
			    volume->target->name);
	return 0;
}

int volume_open(const struct volume_options *options, struct volume **opened, struct error *err)
{
	struct volume *volume = volume_new();
	struct trusted *trusted = NULL;
	int ret = 0;

	*opened = NULL;
	if (!volume)
		return error_set(err, ENOMEM, "no memory for a volume");
	volume->encrypted = options->unlock;
	volume->target = options->target;
	if (!volume->target)
		ret = open_target(volume, options, options->direct, err);
	if (ret == 0 && volume->encrypted)
		ret = begin_trust(volume, options, &trusted, err);
	if (ret == 0 && volume->encrypted)
		ret = volume_unlock(volume, options, trusted, err);
	if (ret == 0)
		ret = set_geometry(volume, options, err);
	if (ret == 0 && options->header)
		ret = check_header(volume, options, err);
	/* Not before: what can't be unlocked needs no more of them. */
	if (ret == 0 && options->uri)
		ret = target_nbd_connect(volume->target, err);
	volume->disk = volume->target;
	if (ret == 0 && volume->luks.integrity)
		ret = lay_tags(volume, options, trusted, err);
	else if (ret == 0 && trusted)
		ret = trusted_check_areas(trusted, NULL, err);
	if (ret < 0 || !volume->luks.integrity)
		end_trust(trusted);
	if (ret < 0) {
		if (options->target)
			volume->target = NULL;
		volume_close(volume);
		return ret;
	}
	set_capabilities(volume, options);
	*opened = volume;
	return 0;
}

/* ---- for servers ---- */

int open_check_key_file(const struct volume_options *options, const char *file,
			const struct key_part *part, struct error *err)
{
	const struct same_part disk = { .locator = options->uri ? options->uri : options->file };
	const struct same_part key = { .locator = file,
				       .offset = part->offset,
				       .size = part->size };

	if (!same_bytes(NULL, &disk, &key))
		return 0;
	return error_set(
		err, EINVAL,
		"%s and %s: the same, or one is on the other: the key file would be overwritten",
		key.locator, disk.locator);
}

void open_tell_ciphertext(const struct volume *volume, const struct notice *notice)
{
	uint8_t first[512];

	if (!volume->encrypted && volume->target->size >= sizeof(first) &&
	    target_read(volume->target, first, sizeof(first), 0) == 0 &&
	    luks_starts(first, sizeof(first)))
		notice_tell(notice,
			    "%s: a LUKS volume; without a key it is served as it is, encrypted",
			    volume->target->name);
}
