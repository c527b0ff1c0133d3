#include "target-nbd.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "align.h"
#include "clock.h"
#include "subrequest.h"

#define DEFAULT_MAX_LEN (32 * 1024 * 1024) /* what every server takes, by the protocol */
#define MAX_OTHER       (1024 * 1024 * 1024)
#define MAX_ALIGN       (64 * 1024)        /* the protocol's limit for the minimum */
#define CONTEXT         LIBNBD_CONTEXT_BASE_ALLOCATION

struct nbd_target {
	struct target target;
	struct nbd_server server;
	struct nbd_link first; /* until a queue takes it over; or zeroed */
	unsigned connections;
	uint64_t secret; /* see mark() */
	struct target_nbd_facts facts;
};

struct target_queue {
	struct nbd_target *owner;
	struct nbd_link link;
	unsigned in_flight;
	struct ndio_subrequest *landed, **landed_end; /* in the order of their landing */
	struct ndio_subrequest *again; /* landed, but something has to follow on the wire */
};

static struct nbd_target *to_nbd(const struct target *target)
{
	return (struct nbd_target *)target;
}

static int read_facts(struct nbd_target *owner, struct error *err)
{
	struct nbd_handle *nbd = owner->first.nbd;
	struct target_nbd_facts *facts = &owner->facts;
	struct target *target = &owner->target;
	int64_t size = nbd_get_size(nbd);
	int64_t minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
	int64_t preferred = nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED);
	int64_t maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);

	if (size < 0)
		return error_set(err, EPROTO, "%s: the server's size of the export makes no sense",
				 target->name);
	facts->protocol = nbd_get_protocol(nbd);
	facts->tls = owner->first.tls || nbd_get_tls_negotiated(nbd) > 0;
	if (owner->first.tls)
		tls_read_facts(owner->first.tls, &facts->tls_facts);
	facts->structured_replies = nbd_get_structured_replies_negotiated(nbd) > 0;
	facts->multi_conn = nbd_can_multi_conn(nbd) > 0;
	facts->can_fua = nbd_can_fua(nbd) > 0;
	facts->block_minimum = minimum > 0 ? minimum : 0;
	facts->block_preferred = preferred > 0 ? preferred : 0;
	facts->block_maximum = maximum > 0 ? maximum : 0;

	target->size = size;
	target->align = minimum > 0 ? minimum : 1;
	target->mem_align = 1;
	target->atomic = 1; /* who knows what the server does */
	target->max_len = maximum > 0 ? maximum : DEFAULT_MAX_LEN;
	if (!is_aligned(target->align, target->align) || target->align > MAX_ALIGN ||
	    target->max_len < target->align)
		return error_set(err, EPROTO,
				 "%s: the server's block sizes make no sense: minimum %" PRIi64
				 ", maximum %" PRIi64, target->name, minimum, maximum);
	target->max_len = round_down(min_u64(target->max_len, DEFAULT_MAX_LEN), target->align);
	target->max_other = MAX_OTHER;
	target->max_queues = facts->multi_conn ? owner->connections : 1;
	target->readonly = nbd_is_read_only(nbd) > 0;
	target->rotational = nbd_is_rotational(nbd) > 0;
	target->direct = true;
	target->can_flush = nbd_can_flush(nbd) > 0;
	target->can_fua = facts->can_fua || target->can_flush;
	target->can_trim = nbd_can_trim(nbd) > 0;
	target->can_zero = nbd_can_zero(nbd) > 0;
	target->can_fast_zero = nbd_can_fast_zero(nbd) > 0;
	target->can_extents = nbd_can_meta_context(nbd, CONTEXT) > 0;
	target->can_cache = nbd_can_cache(nbd) > 0;
	return 0;
}

/* ---- subrequests ---- */

static void add_landed(struct target_queue *queue, struct ndio_subrequest *sub)
{
	sub->next = NULL;
	*queue->landed_end = sub;
	queue->landed_end = &sub->next;
}

/* A number for a place in the export that no server can guess. */
static uint64_t mark(const struct nbd_target *owner, uint64_t place)
{
	uint64_t x = (place ^ owner->secret) * 0x9e3779b97f4a7c15;

	x = (x ^ x >> 32) * 0xd6e8feb86659fd93;
	return x ^ x >> 32;
}

/* The sum of this over chunks is that of the whole exactly if they lead from its start to its
 * end without a gap, in whatever order they come: all that is between cancels out. */
static uint64_t stretch(const struct nbd_target *owner, uint64_t start, uint64_t len)
{
	return mark(owner, start + len) - mark(owner, start);
}

/* A hostile server may leave a part of a read out, or send another part twice. */
static int chunk_read(void *opaque, const void *chunk, size_t count, uint64_t offset,
		      unsigned status, int *error)
{
	struct ndio_subrequest *sub = opaque;

	(void)chunk;
	(void)error;
	if (status == LIBNBD_READ_DATA || status == LIBNBD_READ_HOLE)
		sub->own += stretch(sub->queue->owner, offset, count);
	return 0;
}

static int extents_read(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
			size_t nr_entries, int *error)
{
	struct ndio_subrequest *sub = opaque;

	(void)offset;
	if (strcmp(context, CONTEXT) != 0)
		return 0;
	for (size_t i = 0; i + 1 < nr_entries && sub->own < sub->len; i += 2) {
		uint64_t len = min_u64(entries[i], sub->len - sub->own);
		int ret = subrequest_tell_extent(sub, sub->own, len,
						 entries[i + 1] & (EXTENT_HOLE | EXTENT_ZERO));

		if (ret < 0) {
			*error = -ret;
			return -1;
		}
		sub->own += len;
	}
	return 0;
}

static bool changes_data(const struct ndio_subrequest *sub)
{
	return sub->op == OP_WRITE || sub->op == OP_ZERO || sub->op == OP_TRIM;
}

/* Must another command follow for it? A server may tell of fewer extents than asked, and one
 * without FUA needs a flush behind the write. */
static bool needs_more(struct ndio_subrequest *sub)
{
	uint64_t before = sub->result;

	if (sub->op == OP_EXTENTS)
		return sub->own > before && sub->own < sub->len;
	return changes_data(sub) && (sub->flags & REQ_FUA) &&
	       !sub->queue->owner->facts.can_fua && sub->own++ == 0;
}

/* Has all come that was asked for? */
static bool is_complete(const struct ndio_subrequest *sub)
{
	if (sub->op == OP_READ)
		return sub->own == stretch(sub->queue->owner, sub->start, sub->len);
	return sub->op != OP_EXTENTS || sub->own == sub->len;
}

static int command_done(void *opaque, int *error)
{
	struct ndio_subrequest *sub = opaque;
	struct target_queue *queue = sub->queue;

	queue->in_flight--;
	if (*error == 0 && needs_more(sub)) {
		sub->next = queue->again;
		queue->again = sub;
		return 1;
	}
	sub->result = *error ? -*error : (int64_t)sub->len;
	if (*error == 0 && !is_complete(sub))
		sub->result = -EPROTO;
	add_landed(queue, sub);
	return 1; /* libnbd forgets the command */
}

static uint32_t command_flags(const struct ndio_subrequest *sub)
{
	uint32_t flags = 0;

	if (changes_data(sub) && (sub->flags & REQ_FUA) && sub->queue->owner->facts.can_fua)
		flags |= LIBNBD_CMD_FLAG_FUA;
	if (sub->op == OP_ZERO && !(sub->flags & REQ_MAY_TRIM))
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	if (sub->op == OP_ZERO && (sub->flags & REQ_FAST_ZERO))
		flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
	return flags;
}

static int64_t send_command(struct ndio_subrequest *sub)
{
	struct nbd_handle *nbd = sub->queue->link.nbd;
	const nbd_completion_callback done = { .callback = command_done, .user_data = sub };
	const nbd_chunk_callback chunk = { .callback = chunk_read, .user_data = sub };
	const nbd_extent_callback extent = { .callback = extents_read, .user_data = sub };
	uint32_t flags = command_flags(sub);

	if (changes_data(sub) && sub->own) /* written; now the flush that stands for FUA */
		return nbd_aio_flush(nbd, done, 0);
	switch (sub->op) {
	case OP_READ:
		return nbd_aio_pread_structured(nbd, sub->io_base, sub->len, sub->start, chunk,
						done, 0);
	case OP_WRITE:
		return nbd_aio_pwrite(nbd, sub->io_base, sub->len, sub->start, done, flags);
	case OP_ZERO:
		return nbd_aio_zero(nbd, sub->len, sub->start, done, flags);
	case OP_TRIM:
		return nbd_aio_trim(nbd, sub->len, sub->start, done, flags);
	case OP_FLUSH:
		return nbd_aio_flush(nbd, done, 0);
	case OP_CACHE:
		return nbd_aio_cache(nbd, sub->len, sub->start, done, 0);
	case OP_EXTENTS:
		sub->result = sub->own; /* what was known before, see needs_more() */
		return nbd_aio_block_status(nbd, sub->len - sub->own, sub->start + sub->own,
					    extent, done, 0);
	}
	return -1;
}

static void nbd_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	sub->queue = queue;
	queue->in_flight++; /* the command may be done before the call returns */
	if (send_command(sub) < 0) {
		queue->in_flight--;
		/* Without a connection libnbd finds the call itself invalid. */
		sub->result = nbd_link_is_up(&queue->link) ? -nbd_link_errno() : -ENOTCONN;
		add_landed(queue, sub);
	}
}

static void nbd_submit(struct target_queue *queue)
{
	nbd_link_submit(&queue->link);
}

static void send_again(struct target_queue *queue)
{
	struct ndio_subrequest *sub;

	while ((sub = queue->again)) {
		queue->again = sub->next;
		nbd_issue(queue, sub);
	}
}

static struct ndio_subrequest *nbd_queue_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	struct ndio_subrequest *list;
	bool sleep, woken;

	do {
		sleep = wait && !queue->landed && (queue->in_flight || wake_fd >= 0);
		woken = (sleep || queue->in_flight) &&
			nbd_link_look(&queue->link, sleep ? -1 : 0, wake_fd);
		send_again(queue);
	} while (sleep && !woken && !queue->landed);
	list = queue->landed;
	queue->landed = NULL;
	queue->landed_end = &queue->landed;
	return list;
}

static void nbd_cancel(struct target_queue *queue)
{
	nbd_link_cut(&queue->link);
}

/* ---- the queue and the target ---- */

/* The connection that found out what the export is, or another. */
static int open_link(struct nbd_target *owner, struct nbd_link *link, struct error *err)
{
	if (!owner->first.nbd)
		return nbd_link_open(link, &owner->server, CONTEXT, err);
	*link = owner->first;
	owner->first = (struct nbd_link){ 0 };
	return 0;
}

static struct target_queue *nbd_queue_open(struct target *target, unsigned depth,
					   struct bvec bounce, struct error *err)
{
	struct nbd_target *owner = to_nbd(target);
	struct target_queue *queue = calloc(1, sizeof(*queue));

	(void)depth;
	(void)bounce;
	if (!queue) {
		error_set(err, ENOMEM, "%s: no memory for a connection", target->name);
		return NULL;
	}
	queue->owner = owner;
	queue->landed_end = &queue->landed;
	if (open_link(owner, &queue->link, err) < 0) {
		free(queue);
		return NULL;
	}
	if (nbd_get_size(queue->link.nbd) != (int64_t)target->size) {
		error_set(err, EPROTO, "%s: its size has changed between two connections",
			  target->name);
		nbd_link_close(&queue->link);
		free(queue);
		return NULL;
	}
	return queue;
}

static void nbd_queue_close(struct target_queue *queue)
{
	assert(queue->in_flight == 0 && !queue->landed && !queue->again);
	nbd_link_close(&queue->link);
	free(queue);
}

/* Waits for a command, but no longer than a server may take. Then the connection is given up, so
 * that nothing lands in the caller's memory later. */
static int finish_command(struct nbd_link *link, int64_t cookie)
{
	int64_t deadline = clock_ms() + NBD_ANSWER_TIMEOUT * 1000;
	bool given_up = false;
	int ret;

	while ((ret = nbd_aio_command_completed(link->nbd, cookie)) == 0) {
		int64_t left = deadline - clock_ms();

		if (left <= 0 && !given_up) {
			nbd_link_cut(link);
			given_up = true;
		}
		nbd_link_look(link, left > 0 ? left : 1, -1);
	}
	return ret > 0 ? 0 : given_up ? -ETIMEDOUT : -nbd_link_errno();
}

static int64_t nbd_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	struct nbd_link *link = &to_nbd(target)->first;
	int64_t cookie;
	int ret;

	if (offset >= target->size)
		return 0;
	len = min_u64(len, target->size - offset);
	memset(buf, 0, len); /* what a hostile server leaves out */
	cookie = nbd_aio_pread(link->nbd, buf, len, offset, NBD_NULL_COMPLETION, 0);
	ret = cookie < 0 ? -nbd_link_errno() : finish_command(link, cookie);
	return ret < 0 ? ret : (int64_t)len;
}

static void nbd_target_close(struct target *target)
{
	struct nbd_target *owner = to_nbd(target);

	nbd_link_close(&owner->first);
	nbd_server_clear(&owner->server);
	free(target->name);
	free(owner);
}

static const struct target_ops nbd_ops = {
	.read = nbd_read,
	.queue_open = nbd_queue_open,
	.queue_close = nbd_queue_close,
	.issue = nbd_issue,
	.submit = nbd_submit,
	.poll = nbd_queue_poll,
	.cancel = nbd_cancel,
	.close = nbd_target_close,
};

bool target_is_nbd(const struct target *target)
{
	return target->ops == &nbd_ops;
}

void target_nbd_facts(const struct target *target, struct target_nbd_facts *facts)
{
	*facts = to_nbd(target)->facts;
}

int target_nbd_open(const char *uri, const struct target_nbd_options *options,
		    struct target **target, struct error *err)
{
	struct nbd_target *owner = calloc(1, sizeof(*owner));
	int ret;

	assert(options->connections > 0);
	if (owner)
		owner->target.name = strdup(uri);
	if (!owner || !owner->target.name) {
		free(owner);
		return error_set(err, ENOMEM, "%s: no memory", uri);
	}
	owner->target.ops = &nbd_ops;
	owner->connections = options->connections;
	if (getrandom(&owner->secret, sizeof(owner->secret), 0) < 0)
		owner->secret = clock_ms() * (uintptr_t)owner;
	ret = nbd_server_init(&owner->server, owner->target.name, options->tls_by,
			      &options->notice, err);
	if (ret == 0)
		ret = nbd_link_open(&owner->first, &owner->server, CONTEXT, err);
	if (ret == 0)
		ret = read_facts(owner, err);
	if (ret < 0) {
		nbd_target_close(&owner->target);
		return ret;
	}
	owner->target.readonly |= options->readonly;
	*target = &owner->target;
	return 0;
}
