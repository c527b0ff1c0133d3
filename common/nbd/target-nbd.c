/* target-nbd: subrequests as commands of libnbd.
 *
 *	nbd_issue() -> in flight -> command_done() -> landed -> nbd_queue_poll()'s caller
 *	     ^                           |
 *	     +---------- again <---------+      a flush in place of FUA, more extents
 *
 * A queue is a connection, for one thread at a time; libnbd calls back in that thread, inside of
 * nbd_issue() or nbd_queue_poll(). One that has lost its connection fails what it is given, and
 * looks for another every DOWN_MS, until it is cancelled or all are lost.
 *
 * What has landed is nobody's but the caller's: libnbd has forgotten it. A read lands well only when
 * its chunks were the whole (export_stretch), whatever the server says. */
#include "nbd/target-nbd.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/align.h"
#include "base/clock.h"
#include "engine/subrequest.h"

#define DEFAULT_MAX_LEN (32 * 1024 * 1024) /* what every server takes, by the protocol */
#define MAX_OTHER       (1024 * 1024 * 1024)
#define MAX_ALIGN       (64 * 1024) /* the protocol's limit for the minimum */
#define CONTEXT         LIBNBD_CONTEXT_BASE_ALLOCATION

/* What a connection beyond the first may take: a server that lets in no more clients may also just
 * not answer. */
#define MORE_MS 3000
#define DOWN_MS 250 /* how often a queue whose connection is lost looks for another */

struct nbd_target {
	struct target target;
	struct nbd_server server;
	struct nbd_group group;
	struct nbd_link *spare[NBD_GROUP_MAX]; /* connected, and no queue's */
	unsigned nr_spare;
	unsigned connections;
	uint64_t secret; /* see export_mark() */
	struct target_nbd_facts facts;
	struct error silent; /* in words, without the URI */
};

struct target_queue {
	struct nbd_target *owner;
	struct nbd_link *link;
	struct nbd_member member;
	bool canceled;
	unsigned in_flight;
	struct landed landed;
	struct ndio_subrequest *again; /* landed, but something has to follow on the wire */
};

static struct nbd_target *to_nbd(const struct target *target)
{
	return (struct nbd_target *)target;
}

/* What it can, as bits, and its block sizes. */
static void read_export(const struct nbd_link *link, struct target_nbd_facts *facts)
{
	struct nbd_handle *nbd = link->nbd;
	int64_t minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
	int64_t preferred = nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED);
	int64_t maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);

	*facts = (struct target_nbd_facts){
		.size = nbd_get_size(nbd),
		.protocol = nbd_get_protocol(nbd),
		.tls = link->tls,
		.structured_replies = nbd_get_structured_replies_negotiated(nbd) > 0,
		.readonly = nbd_is_read_only(nbd) > 0,
		.rotational = nbd_is_rotational(nbd) > 0,
		.multi_conn = nbd_can_multi_conn(nbd) > 0,
		.can_flush = nbd_can_flush(nbd) > 0,
		.can_fua = nbd_can_fua(nbd) > 0,
		.can_trim = nbd_can_trim(nbd) > 0,
		.can_zero = nbd_can_zero(nbd) > 0,
		.can_fast_zero = nbd_can_fast_zero(nbd) > 0,
		.can_extents = nbd_can_meta_context(nbd, CONTEXT) > 0,
		.can_cache = nbd_can_cache(nbd) > 0,
		.block_minimum = minimum > 0 ? minimum : 0,
		.block_preferred = preferred > 0 ? preferred : 0,
		.block_maximum = maximum > 0 ? maximum : 0,
	};
}

static int read_facts(struct nbd_target *owner, struct error *err)
{
	const struct nbd_link *link = owner->spare[0];
	struct target_nbd_facts *facts = &owner->facts;
	struct target *target = &owner->target;

	read_export(link, facts);
	if (facts->size < 0)
		return error_set(err, EPROTO, "%s: the server's size of the export makes no sense",
				 target->name);
	if (link->tls)
		tls_read_facts(link->tls, &facts->tls_facts);
	target->size = facts->size;
	target->align = facts->block_minimum ? facts->block_minimum : 1;
	target->mem_align = 1;
	target->atomic = 1; /* who knows what the server does */
	target->max_len = facts->block_maximum ? facts->block_maximum : DEFAULT_MAX_LEN;
	if (!is_aligned(target->align, target->align) || target->align > MAX_ALIGN ||
	    target->max_len < target->align)
		return error_set(err, EPROTO,
				 "%s: the server's block sizes make no sense: minimum %" PRIu64
				 ", maximum %" PRIu64,
				 target->name, facts->block_minimum, facts->block_maximum);
	target->max_len = round_down(min_u64(target->max_len, DEFAULT_MAX_LEN), target->align);
	target->max_other = MAX_OTHER;
	target->max_queues = 1;
	target->readonly = facts->readonly;
	target->rotational = facts->rotational;
	target->direct = true;
	target->can_flush = facts->can_flush;
	target->can_fua = facts->can_fua || facts->can_flush;
	target->can_trim = facts->can_trim;
	target->can_zero = facts->can_zero;
	target->can_fast_zero = facts->can_fast_zero;
	target->can_extents = facts->can_extents;
	target->can_cache = facts->can_cache;
	return 0;
}

/* Is what is behind another connection the same export? */
static bool is_same_export(void *opaque, const struct nbd_link *link, struct error *err)
{
	const struct nbd_target *owner = opaque;
	const struct target_nbd_facts *first = &owner->facts;
	struct target_nbd_facts facts;

	read_export(link, &facts);
	if (facts.size != first->size) {
		error_set(err, EPROTO, "%s: its size has changed between two connections",
			  owner->target.name);
		return false;
	}
	if (facts.tls == first->tls && facts.structured_replies == first->structured_replies &&
	    facts.readonly == first->readonly && facts.rotational == first->rotational &&
	    facts.multi_conn == first->multi_conn && facts.can_flush == first->can_flush &&
	    facts.can_fua == first->can_fua && facts.can_trim == first->can_trim &&
	    facts.can_zero == first->can_zero && facts.can_fast_zero == first->can_fast_zero &&
	    facts.can_extents == first->can_extents && facts.can_cache == first->can_cache &&
	    facts.block_minimum == first->block_minimum &&
	    facts.block_maximum == first->block_maximum)
		return true;
	error_set(err, EPROTO, "%s: what it can has changed between two connections",
		  owner->target.name);
	return false;
}

/* ---- subrequests ---- */

/* A number for a place in the export that no server can guess. */
static uint64_t export_mark(const struct nbd_target *owner, uint64_t place)
{
	uint64_t x = (place ^ owner->secret) * 0x9e3779b97f4a7c15;

	x = (x ^ x >> 32) * 0xd6e8feb86659fd93;
	return x ^ x >> 32;
}

/* The sum of this over chunks is that of the whole exactly if they lead from its start to its
 * end without a gap, in whatever order they come: all that is between cancels out. */
static uint64_t export_stretch(const struct nbd_target *owner, uint64_t start, uint64_t len)
{
	return export_mark(owner, start + len) - export_mark(owner, start);
}

/* A hostile server may leave a part of a read out, or send another part twice. */
static int chunk_read(void *opaque, const void *chunk, size_t count, uint64_t offset,
		      unsigned status, int *error)
{
	struct ndio_subrequest *sub = opaque;

	(void)chunk;
	(void)error;
	if (status == LIBNBD_READ_DATA || status == LIBNBD_READ_HOLE)
		sub->progress.arrived += export_stretch(sub->queue->owner, offset, count);
	return 0;
}

static int extents_read(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
			size_t nr_entries, int *error)
{
	struct ndio_subrequest *sub = opaque;

	(void)offset;
	if (strcmp(context, CONTEXT) != 0)
		return 0;
	for (size_t i = 0; i + 1 < nr_entries && sub->progress.told < sub->len; i += 2) {
		uint64_t len = min_u64(entries[i], sub->len - sub->progress.told);
		int ret = subrequest_tell_extent(sub, sub->progress.told, len,
						 entries[i + 1] & (EXTENT_HOLE | EXTENT_ZERO));

		if (ret < 0) {
			*error = -ret;
			return -1;
		}
		sub->progress.told += len;
	}
	return 0;
}

/* Must another command follow for it? A server may tell of fewer extents than asked, and one
 * without FUA needs a flush behind the write. */
static bool needs_more(struct ndio_subrequest *sub)
{
	struct subrequest_progress *progress = &sub->progress;
	uint64_t before = sub->result;

	if (sub->op == OP_EXTENTS)
		return progress->told > before && progress->told < sub->len;
	if (!op_changes_data(sub->op) || !(sub->flags & REQ_FUA) || progress->written)
		return false;
	progress->written = !sub->queue->owner->facts.can_fua;
	return progress->written;
}

/* Has all come that was asked for? */
static bool is_complete(const struct ndio_subrequest *sub)
{
	if (sub->op == OP_READ)
		return sub->progress.arrived ==
		       export_stretch(sub->queue->owner, sub->start, sub->len);
	return sub->op != OP_EXTENTS || sub->progress.told == sub->len;
}

/* Over the connection, in the one direction or the other. */
static uint64_t bytes_carried(const struct ndio_subrequest *sub)
{
	return op_carries_data(sub->op) ? sub->len : 0;
}

static int command_done(void *opaque, int *error)
{
	struct ndio_subrequest *sub = opaque;
	struct target_queue *queue = sub->queue;

	queue->in_flight--;
	nbd_link_answered(queue->link, bytes_carried(sub));
	nbd_group_answered(&queue->member, sub, *error == 0);
	if (*error == 0 && needs_more(sub)) {
		sub->next = queue->again;
		queue->again = sub;
		return 1;
	}
	sub->result = *error == 0 ? (int64_t)sub->len : queue->link->silent ? -ETIMEDOUT : -*error;
	if (*error == 0 && !is_complete(sub))
		sub->result = -EPROTO;
	landed_add(&queue->landed, sub);
	return 1; /* libnbd forgets the command */
}

static uint32_t command_flags(const struct ndio_subrequest *sub)
{
	uint32_t flags = 0;

	if (op_changes_data(sub->op) && (sub->flags & REQ_FUA) && sub->queue->owner->facts.can_fua)
		flags |= LIBNBD_CMD_FLAG_FUA;
	if (sub->op == OP_ZERO && !(sub->flags & REQ_MAY_TRIM))
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	if (sub->op == OP_ZERO && (sub->flags & REQ_FAST_ZERO))
		flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
	return flags;
}

static int64_t send_command(struct ndio_subrequest *sub)
{
	struct nbd_handle *nbd = sub->queue->link->nbd;
	const nbd_completion_callback done = { .callback = command_done, .user_data = sub };
	const nbd_chunk_callback chunk = { .callback = chunk_read, .user_data = sub };
	const nbd_extent_callback extent = { .callback = extents_read, .user_data = sub };
	uint32_t flags = command_flags(sub);

	if (sub->progress.written) /* now the flush that stands for FUA */
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
		sub->result = sub->progress.told; /* what was known before, see needs_more() */
		return nbd_aio_block_status(nbd, sub->len - sub->progress.told,
					    sub->start + sub->progress.told, extent, done, 0);
	}
	return -1;
}

/* Is the connection lost since it was last looked at? Not if it was cut by us. */
static void queue_look_whether_up(struct target_queue *queue)
{
	if (queue->member.up && !queue->canceled && !nbd_link_is_up(queue->link))
		nbd_group_lose(&queue->owner->group, &queue->member);
}

/* A server that was given up has not answered those that come later either. */
static int why_lost(const struct target_queue *queue)
{
	return queue->link->silent ? -ETIMEDOUT : -ENOTCONN;
}

static void nbd_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	sub->queue = queue;
	queue->in_flight++; /* the command may be done before the call returns */
	nbd_link_asked(queue->link, bytes_carried(sub));
	nbd_group_asked(&queue->owner->group, &queue->member, sub);
	if (send_command(sub) < 0) {
		queue->in_flight--;
		nbd_link_answered(queue->link, bytes_carried(sub));
		nbd_group_answered(&queue->member, sub, false);
		/* Without a connection libnbd finds the call itself invalid. */
		sub->result = nbd_link_is_up(queue->link) ? -nbd_link_errno() : why_lost(queue);
		queue_look_whether_up(queue);
		landed_add(&queue->landed, sub);
	}
}

static void nbd_submit(struct target_queue *queue)
{
	nbd_link_submit(queue->link);
}

static void send_again(struct target_queue *queue)
{
	struct ndio_subrequest *sub;

	while ((sub = queue->again)) {
		queue->again = sub->next;
		nbd_issue(queue, sub);
	}
}

/* For a queue that has lost its connection. */
static bool find_another(struct target_queue *queue)
{
	struct nbd_link *link = nbd_group_mend(&queue->owner->group, &queue->member);

	if (!link)
		return false;
	assert(queue->in_flight == 0);
	nbd_link_close(queue->link);
	queue->link = link;
	return true;
}

/* How long to sleep at the most; -1: no limit. */
static int until_another(struct target_queue *queue)
{
	return queue->member.up || queue->canceled || nbd_group_is_lost(&queue->owner->group) ?
		       -1 :
		       DOWN_MS;
}

static struct ndio_subrequest *nbd_queue_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	bool sleep, awake = false;

	do {
		sleep = wait && !queue->landed.first && (queue->in_flight || wake_fd >= 0);
		if (sleep || queue->in_flight)
			awake = nbd_link_look(queue->link, sleep ? until_another(queue) : 0,
					      wake_fd);
		queue_look_whether_up(queue);
		send_again(queue);
		if (!queue->member.up && !queue->canceled)
			awake |= find_another(queue) || sleep;
	} while (sleep && !awake && !queue->landed.first);
	return landed_take(&queue->landed);
}

static void nbd_cancel(struct target_queue *queue)
{
	queue->canceled = true;
	nbd_link_cut(queue->link);
}

static bool nbd_is_up(const struct target_queue *queue)
{
	return queue->member.up;
}

/* ---- the queue and the target ---- */

static int64_t answer_ms(const struct nbd_target *owner)
{
	return owner->server.answer_timeout * INT64_C(1000);
}

static int connect_spare(struct nbd_target *owner, int64_t ms, struct error *err)
{
	const struct deadline deadline = { .at = clock_ms() + min_u64(ms, answer_ms(owner)) };
	struct nbd_link *link;
	int ret = nbd_watch_start(&owner->server.watch, err);

	if (ret < 0)
		return ret;
	ret = nbd_link_open(&link, &owner->server, CONTEXT, &deadline, err);
	nbd_watch_stop(&owner->server.watch);
	if (ret == 0)
		owner->spare[owner->nr_spare++] = link;
	return ret;
}

/* One that still stands, or another. */
static struct nbd_link *take_spare(struct nbd_target *owner, struct error *err)
{
	struct nbd_link *link;

	while (owner->nr_spare > 0) {
		link = owner->spare[0];
		owner->nr_spare--;
		memmove(owner->spare, owner->spare + 1, owner->nr_spare * sizeof(owner->spare[0]));
		nbd_link_look(link, 0, -1);
		if (nbd_link_is_up(link))
			return link;
		nbd_link_close(link);
	}
	if (nbd_group_is_lost(&owner->group)) {
		error_set(err, ENOTCONN, "%s: %s", owner->target.name, error_reason(ENOTCONN));
		return NULL;
	}
	if (connect_spare(owner, INT64_MAX, err) < 0)
		return NULL;
	link = owner->spare[--owner->nr_spare];
	if (is_same_export(owner, link, err))
		return link;
	nbd_link_close(link);
	return NULL;
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
	queue->link = take_spare(owner, err);
	if (!queue->link || nbd_watch_start(&owner->server.watch, err) < 0) {
		nbd_link_close(queue->link);
		free(queue);
		return NULL;
	}
	nbd_group_join(&owner->group, &queue->member);
	return queue;
}

static void nbd_queue_close(struct target_queue *queue)
{
	struct nbd_target *owner = queue->owner;

	assert(queue->in_flight == 0 && !queue->landed.first && !queue->again);
	nbd_group_leave(&owner->group, &queue->member);
	if (queue->member.up && !queue->canceled && owner->nr_spare < NBD_GROUP_MAX)
		owner->spare[owner->nr_spare++] = queue->link;
	else
		nbd_link_close(queue->link);
	nbd_watch_stop(&owner->server.watch);
	free(queue);
}

/* Waits for a command, until the server has answered or is lost: then nothing lands in the caller's
 * memory later. */
static int finish_command(struct nbd_link *link, int64_t cookie)
{
	int ret;

	while ((ret = nbd_aio_command_completed(link->nbd, cookie)) == 0)
		nbd_link_look(link, -1, -1);
	return ret > 0 ? 0 : link->silent ? -ETIMEDOUT : -nbd_link_errno();
}

static int read_over(struct nbd_link *link, void *buf, size_t len, uint64_t offset)
{
	int64_t cookie = nbd_aio_pread(link->nbd, buf, len, offset, NBD_NULL_COMPLETION, 0);
	int ret;

	if (cookie < 0)
		return nbd_link_is_up(link) ? -nbd_link_errno() : -ENOTCONN;
	nbd_link_asked(link, len);
	ret = finish_command(link, cookie);
	nbd_link_answered(link, len);
	return ret;
}

static int64_t nbd_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	struct nbd_target *owner = to_nbd(target);
	int ret;

	if (offset >= target->size)
		return 0;
	if (owner->nr_spare == 0)
		return -ENOTCONN;
	len = min_u64(len, target->size - offset);
	memset(buf, 0, len); /* what a hostile server leaves out */
	ret = nbd_watch_start(&owner->server.watch, NULL);
	if (ret < 0)
		return ret;
	ret = read_over(owner->spare[0], buf, len, offset);
	nbd_watch_stop(&owner->server.watch);
	return ret < 0 ? ret : (int64_t)len;
}

static void nbd_target_close(struct target *target)
{
	struct nbd_target *owner = to_nbd(target);

	while (owner->nr_spare > 0)
		nbd_link_close(owner->spare[--owner->nr_spare]);
	nbd_group_destroy(&owner->group);
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
	.is_up = nbd_is_up,
	.cancel = nbd_cancel,
	.close = nbd_target_close,
};

bool target_is_nbd(const struct target *target)
{
	return target->ops == &nbd_ops;
}

void target_nbd_hurry(struct target *target)
{
	atomic_store(&to_nbd(target)->server.hurry, true);
}

void target_nbd_facts(const struct target *target, struct target_nbd_facts *facts)
{
	*facts = to_nbd(target)->facts;
}

/* A message without the URI that it starts with. */
static const char *reason_alone(const struct nbd_target *owner, const struct error *err)
{
	size_t len = strlen(owner->target.name);

	return strncmp(err->text, owner->target.name, len) == 0 &&
			       strncmp(err->text + len, ": ", 2) == 0 ?
		       err->text + len + 2 :
		       err->text;
}

int target_nbd_connect(struct target *target, struct error *err)
{
	struct nbd_target *owner = to_nbd(target);
	unsigned wanted = owner->facts.multi_conn ? owner->connections : 1;
	struct error why = { 0 };
	int ret = 0;

	while (owner->nr_spare < wanted && ret == 0) {
		ret = connect_spare(owner, MORE_MS, &why);
		if (ret < 0 || is_same_export(owner, owner->spare[owner->nr_spare - 1], &why))
			continue;
		ret = -EPROTO;
		nbd_link_close(owner->spare[--owner->nr_spare]);
	}
	target->max_queues = owner->nr_spare;
	if (ret == -EPROTO)
		return error_set(err, EPROTO, "%s", why.text);
	if (ret < 0)
		notice_tell(&owner->server.notice,
			    "%s: the server lets in %u connection%s and not "
			    "%u: going on with %s (the next one: %s)",
			    target->name, owner->nr_spare, owner->nr_spare == 1 ? "" : "s", wanted,
			    owner->nr_spare == 1 ? "that" : "those", reason_alone(owner, &why));
	return 0;
}

static int open_first(struct nbd_target *owner, const struct target_nbd_options *options,
		      struct error *err)
{
	int ret = nbd_server_init(&owner->server, owner->target.name, options->answer_timeout,
				  &options->notice, err);

	nbd_group_init(&owner->group, &owner->server, CONTEXT, is_same_export, owner);
	if (ret == 0)
		ret = connect_spare(owner, INT64_MAX, err);
	return ret < 0 ? ret : read_facts(owner, err);
}

int target_nbd_open(const char *uri, const struct target_nbd_options *options,
		    struct target **target, struct error *err)
{
	struct nbd_target *owner = calloc(1, sizeof(*owner));
	struct error silent;
	int ret;

	assert(options->connections > 0 && options->connections <= NBD_GROUP_MAX);
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
	ret = open_first(owner, options, err);
	if (ret < 0) {
		nbd_target_close(&owner->target);
		return ret;
	}
	nbd_server_is_silent(&owner->server, &silent);
	error_set(&owner->silent, ETIMEDOUT, "%s", reason_alone(owner, &silent));
	owner->target.timed_out = owner->silent.text;
	owner->target.readonly |= options->readonly;
	*target = &owner->target;
	return 0;
}
