/* A round: channel_send() splits pieces off the oldest request, encrypts them and hands them to the target;
 * channel_wait() reaps; channel_land() decrypts, asks for what is to be read next and for what a short transfer left
 * out, and ends what is done. A piece is a subrequest. That of a block written in part goes twice: read, then changed
 * and written back (reads_block).
 *
 * One thread at a time has a channel, so there is no lock; only channel_expect_cancel() comes from others.
 *
 * Invariants: of a request that failed nothing more is split off, and it ends when what is in flight has landed. A
 * request is in the list until all is split off. Plaintext is in bounce memory without a cipher only, or for as long as
 * a part of a sector is changed or copied, and then it is overwritten or cleansed. A subrequest changes only while it
 * isn't in flight. */
#include "engine/channel.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/align.h"
#include "engine/cipher.h"
#include "engine/probe.h"
#include "engine/subrequest.h"

struct channel {
	struct volume *volume;
	struct target_queue *queue;
	const struct cipher_ops *ops;      /* the volume's, */
	struct cipher *cipher;             /* and by them; NULL without a key */
	uint8_t *tags;                     /* of all subrequests, or NULL */
	struct helpers *helpers;           /* NULL without */
	size_t piece_len;                  /* bytes, at the most */
	atomic_bool canceled;              /* told by any thread */
	struct ndio_request *first, **end; /* started and not all split off, oldest first */
	struct ndio_subrequest *landed; /* at the last wait, still to be decrypted or sent again */
	struct ndio_subrequest *idle;   /* the last one's piece is the warmest */
	unsigned nr_busy;               /* those that aren't idle */
	struct ndio_subrequest sub[];   /* all, each with its piece of the bounce memory */
};

/* ---- one piece of the unencrypted side, against its sectors at io_base ---- */

static int run_cipher(struct channel *channel, cipher_fn *fn, const struct ndio_subrequest *sub,
		      uint64_t offset, const void *in, void *out, size_t len)
{
	return helpers_crypt(channel->helpers, fn, channel->cipher,
			     offset / 512 + channel->volume->luks.iv_offset, in, out, len,
			     volume_tag(channel->volume, sub->tags, offset - sub->offset));
}

/* Fills io_base from iter: copied without a cipher, else encrypted, in runs as long as the
 * caller's memory allows; a sector that straddles two runs is gathered first. */
static int subrequest_fill(struct channel *channel, struct ndio_subrequest *sub)
{
	size_t sector = channel->volume->sector;
	uint8_t *out = sub->io_base;
	uint64_t offset = sub->offset;
	int ret = 0;

	if (!channel->cipher) {
		iter_copy_from(&sub->iter, out, sub->iter.left);
		return 0;
	}
	while (sub->iter.left && ret == 0) {
		struct bvec run = iter_run(&sub->iter, sub->iter.left);
		size_t whole = round_down(run.len, sector);

		if (whole) {
			iter_advance(&sub->iter, whole);
		} else {
			whole = sector;
			iter_copy_from(&sub->iter, out, whole);
			run.base = out;
		}
		ret = run_cipher(channel, channel->ops->encrypt, sub, offset, run.base, out, whole);
		out += whole;
		offset += whole;
	}
	if (ret < 0)
		OPENSSL_cleanse(sub->io_base, sub->len);
	return ret;
}

/* Decrypts one sector that the caller gets only a part of, or that straddles two runs, where
 * it lies, copies the part, and leaves no plaintext behind in bounce memory. */
static int drain_sector(struct channel *channel, struct ndio_subrequest *sub, uint8_t *in,
			uint64_t offset, size_t lead)
{
	size_t sector = channel->volume->sector;
	size_t part = min_u64(sector - lead, sub->iter.left);
	int ret = run_cipher(channel, channel->ops->decrypt, sub, offset, in, in, sector);

	if (ret == 0)
		iter_copy_to(&sub->iter, in + lead, part);
	OPENSSL_cleanse(in, sector);
	return ret;
}

/* Moves what was read at io_base to iter, decrypting on the way, or in place where it was
 * read into the caller's memory. */
static int drain(struct channel *channel, struct ndio_subrequest *sub)
{
	size_t sector = channel->volume->sector;
	size_t lead = sub->lead, passed_over = channel->cipher ? round_down(lead, sector) : 0;
	uint8_t *in = (uint8_t *)sub->io_base + passed_over;
	uint64_t offset = sub->offset + passed_over;
	int ret = 0;

	lead -= passed_over;
	if (!channel->cipher) {
		if (sub->bounced)
			iter_copy_to(&sub->iter, in + lead, sub->iter.left);
		return 0;
	}
	while (sub->iter.left && ret == 0) {
		struct bvec run = iter_run(&sub->iter, sub->iter.left);
		size_t whole = lead ? 0 : round_down(run.len, sector);

		if (whole) {
			ret = run_cipher(channel, channel->ops->decrypt, sub, offset, in, run.base,
					 whole);
			iter_advance(&sub->iter, whole);
		} else {
			whole = sector;
			ret = drain_sector(channel, sub, in, offset, lead);
			lead = 0;
		}
		in += whole;
		offset += whole;
	}
	return ret;
}

/* The block of a partial write has been read: changes the caller's part of it. Plaintext is
 * in bounce memory only until the last line. */
static int change_block(struct channel *channel, struct ndio_subrequest *sub)
{
	int ret = 0;

	if (channel->cipher)
		ret = run_cipher(channel, channel->ops->decrypt, sub, sub->offset, sub->io_base,
				 sub->io_base, sub->len);
	if (ret == 0)
		iter_copy_from(&sub->iter, (uint8_t *)sub->io_base + sub->lead, sub->iter.left);
	if (ret == 0 && channel->cipher)
		ret = run_cipher(channel, channel->ops->encrypt, sub, sub->offset, sub->io_base,
				 sub->io_base, sub->len);
	if (ret < 0)
		OPENSSL_cleanse(sub->io_base, sub->len);
	return ret;
}

/* ---- splitting ---- */

/* May the next piece go straight from or to the caller's memory? Writes of an encrypted
 * volume never can. Short runs among others are gathered instead: fewer, larger pieces. */
static size_t direct_len(const struct channel *channel, const struct ndio_request *request)
{
	const struct volume *volume = channel->volume;
	size_t max = channel->cipher ? channel->piece_len : volume->target->max_len;
	struct bvec run = iter_run(&request->iter, max);

	if (request->iter.zeroes || (request->op != OP_READ && channel->cipher) ||
	    !is_aligned((uintptr_t)run.base, volume->target->mem_align))
		return 0;
	run.len = round_down(run.len, volume->block);
	return run.len >= min_u64(request->iter.left, channel->piece_len) ? run.len : 0;
}

/* The piece of the request at its split-off point: its bytes go to sub->iter, and its blocks,
 * of which the caller's bytes may be only a part, to sub->offset and sub->len. */
static void split_data(struct channel *channel, struct ndio_request *request,
		       struct ndio_subrequest *sub)
{
	const struct volume *volume = channel->volume;
	uint64_t block = volume->block;
	uint64_t pos = request->start + request->split;
	uint64_t left = request->len - request->split;
	uint64_t bytes, direct;

	sub->lead = pos - round_down(pos, block);
	sub->offset = pos - sub->lead;
	direct = sub->lead ? 0 : direct_len(channel, request);
	bytes = direct ? direct : min_u64(left, channel->piece_len - sub->lead);
	if (sub->op == OP_WRITE) {
		if (sub->lead || left < block) {
			bytes = min_u64(left, block - sub->lead);
			sub->reads_block = true;
			sub->op = OP_READ;
			stat_add(&channel->volume->stats, partial, 1);
		} else {
			bytes = round_down(bytes, block);
		}
	}
	sub->len = round_up(sub->lead + bytes, block);
	if (direct) {
		sub->io_base = iter_run(&request->iter, direct).base;
		stat_add(&channel->volume->stats, zero_copy, 1);
	} else {
		sub->bounced = true;
		sub->io_base = sub->bounce;
		stat_add(&channel->volume->stats, bounced, 1);
	}
	sub->iter = request->iter;
	sub->iter.left = bytes;
	iter_advance(&request->iter, bytes);
	request->split += bytes;
}

/* Operations without data go to the target in one piece, except that the edges of a zero that
 * are no whole block are written like any other partial write. */
static void split_other(struct channel *channel, struct ndio_request *request,
			struct ndio_subrequest *sub)
{
	uint64_t left = request->len - request->split;
	uint64_t block = channel->volume->block;
	uint64_t pos = request->start + request->split;

	if (request->op == OP_FLUSH) {
		request->split = 1;
		return;
	}
	if (request->op == OP_ZERO) {
		if (channel->cipher || !channel->volume->target->can_zero ||
		    !is_aligned(pos, block) || left < block) {
			sub->op = OP_WRITE;
			split_data(channel, request, sub);
			return;
		}
		left = round_down(left, block);
	}
	/* Rounded out to whole blocks: reading ahead more does no harm, and extents are cut to
	 * what was asked when they are told. A zero or trim is whole blocks by now. */
	sub->offset = round_down(pos, block);
	sub->len = min_u64(round_up(pos + left, block) - sub->offset,
			   channel->volume->target->max_other);
	left = min_u64(left, sub->offset + sub->len - pos);
	if (request->op == OP_ZERO)
		iter_advance(&request->iter, left);
	request->split += left;
}

static void split(struct channel *channel, struct ndio_request *request,
		  struct ndio_subrequest *sub)
{
	*sub = (struct ndio_subrequest){
		.request = request,
		.op = request->op,
		.flags = request->flags,
		.bounce = sub->bounce,
		.tags = sub->tags,
	};
	if (op_carries_data(request->op))
		split_data(channel, request, sub);
	else
		split_other(channel, request, sub);
	sub->start = channel->volume->data_offset + sub->offset;
}

bool channel_one_piece(const struct ndio_request *request, size_t piece_len)
{
	uint64_t block = request->volume->block;
	uint64_t end = request->start + request->len;
	uint64_t span = round_up(end, block) - round_down(request->start, block);

	switch (request->op) {
	case OP_READ:
		return span <= piece_len;
	case OP_WRITE:
	case OP_ZERO: /* parts of blocks are pieces of their own */
		return span <= (span == request->len ? piece_len : block);
	default:
		return true;
	}
}

/* ---- sending and landing ---- */

static void retire(struct channel *channel, struct ndio_subrequest *sub)
{
	sub->next = channel->idle;
	channel->idle = sub;
	channel->nr_busy--;
}

/* Can another piece of it be sent now? Extents are told in order, so one at a time. */
static bool has_turn(const struct channel *channel, const struct ndio_request *request)
{
	return !request_all_split(request) && channel->idle &&
	       !(request->op == OP_EXTENTS && request->nr_outstanding);
}

static bool finish_if_done(struct ndio_request *request)
{
	if (request->nr_outstanding || !request_all_split(request))
		return false;
	request_end(request);
	return true;
}

static void issue(struct channel *channel, struct ndio_subrequest *sub)
{
	PROBE4(subrequest_issue, sub->request->debug_id, sub->op, sub->start, sub->len);
	sub->progress = (struct subrequest_progress){ 0 };
	channel->volume->target->ops->issue(channel->queue, sub);
}

/* Sends one more piece of the oldest request: a write is encrypted, and a large one goes out before the next is. */
static void send_piece(struct channel *channel, struct ndio_request *request)
{
	struct ndio_subrequest *sub = channel->idle;
	int ret = 0;

	channel->idle = sub->next;
	channel->nr_busy++;
	split(channel, request, sub);
	if (sub->op == OP_WRITE && sub->bounced)
		ret = subrequest_fill(channel, sub);
	if (ret < 0) {
		request_fail(request, ret);
		retire(channel, sub);
		return;
	}
	request->nr_outstanding++;
	issue(channel, sub);
	if (!request_all_split(request) ||
	    (request->op == OP_WRITE && request->len >= HELPERS_MIN_LEN))
		channel->volume->target->ops->submit(channel->queue);
}

static bool is_unsent(const struct ndio_request *request)
{
	return request->split == 0 && !request_all_split(request);
}

bool channel_send(struct channel *channel, bool keep_unsent)
{
	struct ndio_request *request;
	bool ended = false;

	while ((request = channel->first)) {
		if (keep_unsent && is_unsent(request) && !channel_is_up(channel))
			return true;
		while (has_turn(channel, request))
			send_piece(channel, request);
		if (!request_all_split(request))
			break;
		channel->first = request->next;
		ended |= finish_if_done(request);
	}
	return ended;
}

/* Back where by is negative. */
static void move_on(const struct channel *channel, struct ndio_subrequest *sub, int64_t by)
{
	sub->before += by;
	sub->start += by;
	sub->len -= by;
	sub->io_base = (uint8_t *)sub->io_base + by;
	if (sub->tags) /* the target took whole sectors */
		sub->tags += by / channel->volume->sector * channel->volume->tag_len;
}

/* The target took fewer bytes than asked: asks for the rest. */
static bool ask_for_rest(struct channel *channel, struct ndio_subrequest *sub)
{
	uint64_t got = round_down(sub->result, channel->volume->target->align);

	if (got == 0)
		return false;
	move_on(channel, sub, got);
	issue(channel, sub);
	return true;
}

static void subrequest_fail(struct ndio_subrequest *sub, int error)
{
	struct ndio_request *request = sub->request;

	request_fail(request, error);
	/* A FUA write may read its block first, and then nothing was synced yet; what can't be
	 * done at all lost nothing. */
	if (request->is_sync && !request->sync_error && sub->op != OP_READ && error != -EOPNOTSUPP)
		request->sync_error = error;
}

/* What follows when a subrequest has landed. True: it went out again. */
static bool land(struct channel *channel, struct ndio_subrequest *sub)
{
	struct ndio_request *request = sub->request;
	bool data = op_carries_data(sub->op);
	int ret = 0;

	PROBE4(subrequest_land, request->debug_id, sub->op, sub->start, sub->result);
	if (sub->result < 0) {
		subrequest_fail(sub, channel->canceled ? -ECANCELED : sub->result);
		return false;
	}
	if (data && (uint64_t)sub->result < sub->len) {
		if (ask_for_rest(channel, sub))
			return true;
		subrequest_fail(sub, -EIO); /* the file is shorter than it was */
		return false;
	}
	if (sub->before)
		move_on(channel, sub, -(int64_t)sub->before);
	if (sub->reads_block) {
		ret = change_block(channel, sub);
		if (ret == 0) {
			sub->reads_block = false;
			sub->op = OP_WRITE;
			issue(channel, sub);
			return true;
		}
	} else if (sub->op == OP_READ) {
		ret = drain(channel, sub);
	}
	if (ret < 0)
		request_fail(request, ret);
	return false;
}

void channel_start(struct channel *channel, struct ndio_request *request)
{
	request_begin(request);
	if (channel->canceled)
		request_fail(request, -ECANCELED);
	request->next = NULL;
	*(channel->first ? channel->end : &channel->first) = request;
	channel->end = &request->next;
}

void channel_wait(struct channel *channel, bool sleep, int wake_fd)
{
	assert(!channel->landed);
	channel->landed = channel->volume->target->ops->poll(channel->queue, sleep, wake_fd);
}

bool channel_all_read(const struct channel *channel)
{
	unsigned in_flight = channel->nr_busy;

	for (struct ndio_subrequest *sub = channel->landed; sub; sub = sub->next)
		in_flight--;
	return !channel->first && in_flight == 0;
}

/* To ask for what is only to be read costs this core little: so the target is at it while the rest of what has
 * landed is decrypted. */
static void send_ahead(struct channel *channel)
{
	struct ndio_request *request = channel->first;

	if (!request || request->op != OP_READ || request->len < HELPERS_MIN_LEN ||
	    !has_turn(channel, request) || !channel_is_up(channel))
		return;
	send_piece(channel, request);
	channel->volume->target->ops->submit(channel->queue);
	if (request_all_split(request))
		channel->first = request->next;
}

void channel_land(struct channel *channel)
{
	struct ndio_subrequest *sub = channel->landed, *next;

	channel->landed = NULL;
	for (; sub; sub = next) {
		struct ndio_request *request = sub->request;

		next = sub->next;
		if (land(channel, sub))
			continue;
		retire(channel, sub);
		request->nr_outstanding--;
		/* One that still has pieces to send is looked at again when that sends. */
		if (request != channel->first)
			finish_if_done(request);
		send_ahead(channel);
	}
}

void channel_expect_cancel(struct channel *channel)
{
	atomic_store(&channel->canceled, true);
}

bool channel_is_up(const struct channel *channel)
{
	bool (*is_up)(const struct target_queue *) = channel->volume->target->ops->is_up;

	return !is_up || is_up(channel->queue);
}

struct ndio_request *channel_take_unsent(struct channel *channel)
{
	struct ndio_request *taken = NULL, **taken_end = &taken;
	struct ndio_request **at = &channel->first, *request;

	while ((request = *at)) {
		if (is_unsent(request)) {
			request_unbegin(request);
			*at = request->next;
			*taken_end = request;
			taken_end = &request->next;
		} else {
			at = &request->next;
		}
	}
	channel->end = at;
	*taken_end = NULL;
	return taken;
}

void channel_cancel(struct channel *channel)
{
	channel_expect_cancel(channel);
	for (struct ndio_request *request = channel->first; request; request = request->next)
		request_fail(request, -ECANCELED);
	channel->volume->target->ops->cancel(channel->queue);
}

size_t channel_bounce_len(const struct channel_options *options)
{
	return options->pieces * round_up(options->piece_len, sysconf(_SC_PAGESIZE));
}

static int open_parts(struct channel *channel, const struct channel_options *options,
		      struct bvec bounce, struct error *err)
{
	size_t share = channel_bounce_len(options) / options->pieces;
	struct volume *volume = channel->volume;

	assert(channel_bounce_len(options) <= bounce.len);
	channel->nr_busy = options->pieces;
	for (unsigned i = options->pieces; i-- > 0;) {
		channel->sub[i].bounce = (uint8_t *)bounce.base + i * share;
		retire(channel, &channel->sub[i]);
	}
	channel->piece_len =
		round_down(min_u64(options->piece_len, volume->target->max_len), volume->block);
	if (channel->piece_len == 0)
		return error_set(err, EINVAL,
				 "%s: takes no more than %" PRIu64 " bytes at a time, "
				 "less than a sector",
				 volume->target->name, volume->target->max_len);
	if (volume->encrypted) {
		channel->cipher = channel->ops->make(volume, err);
		if (!channel->cipher)
			return -EINVAL;
	}
	if (volume->tag_len) {
		size_t len = channel->piece_len / volume->sector * volume->tag_len;

		channel->tags = calloc(options->pieces, len);
		if (!channel->tags)
			return error_set(err, ENOMEM, "no memory for a channel's tags");
		for (unsigned i = 0; i < options->pieces; i++)
			channel->sub[i].tags = channel->tags + i * len;
	}
	channel->queue =
		volume->target->ops->queue_open(volume->target, options->pieces, bounce, err);
	return channel->queue ? 0 : -EIO;
}

int channel_open(struct volume *volume, const struct channel_options *options, struct bvec bounce,
		 struct channel **result, struct error *err)
{
	struct channel *channel =
		calloc(1, sizeof(*channel) + options->pieces * sizeof(channel->sub[0]));
	int ret;

	assert(options->pieces > 0);
	if (!channel)
		return error_set(err, ENOMEM, "no memory for a channel");
	channel->volume = volume;
	channel->ops = volume->cipher_ops;
	channel->helpers = options->helpers;
	ret = open_parts(channel, options, bounce, err);
	if (ret < 0)
		channel_close(channel);
	else
		*result = channel;
	return ret;
}

void channel_close(struct channel *channel)
{
	if (!channel)
		return;
	assert(!channel->first);
	if (channel->queue)
		channel->volume->target->ops->queue_close(channel->queue);
	if (channel->cipher)
		channel->ops->free(channel->cipher);
	free(channel->tags);
	free(channel);
}
