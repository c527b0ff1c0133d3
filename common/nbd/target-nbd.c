/* target-nbd: an export, and its queues.
 *
 * A queue is a connection (nbd-wire), for one thread at a time. One that has lost its connection
 * fails what it is given, and looks for another every DOWN_MS, until it is cancelled or all are
 * lost. */
#include "nbd/target-nbd.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/align.h"
#include "base/clock.h"
#include "nbd/nbd-wire.h"

#define DEFAULT_MAX_LEN (32 * 1024 * 1024) /* what every server takes, by the protocol */
#define MAX_OTHER       (1024 * 1024 * 1024)
#define MAX_ALIGN       (64 * 1024) /* the protocol's limit for the minimum */

/* What a connection beyond the first may take: a server that lets in no more clients may also just
 * not answer. */
#define MORE_MS      3000
#define AGAIN_MS     250  /* between tries to reach a server again before it is used */
#define PAUSE_MAX_MS 4000 /* of these when it isn't there at first: each is twice as long */
#define DOWN_MS      250  /* how often a queue whose connection is lost looks for another */

struct nbd_target {
	struct target target;
	struct nbd_server server;
	struct nbd_group group;
	pthread_mutex_t spares; /* queues may be closed by several threads at once: */
	struct nbd_link *spare[NBD_GROUP_MAX]; /* connected, and no queue's */
	unsigned nr_spare;
	unsigned connections;
	uint64_t secret; /* see wire_secret() */
	struct target_nbd_facts facts;
	struct error silent; /* in words, without the URI */

	unsigned reconnect; /* seconds, or 0 */
	uint64_t unflushed; /* bytes */
	bool memory_ready;
	struct lasting_listener listener;
	struct lasting *lasting;               /* from the first queue on, with reconnect */
	uint8_t identity[TARGET_NBD_IDENTITY]; /* of the disk, if there is: */
	target_nbd_identify_fn *identify;      /* or NULL */
	void *identify_opaque;
};

struct target_queue {
	struct nbd_target *owner;
	struct nbd_wire wire;
	bool canceled;
};

static struct nbd_target *to_nbd(const struct target *target)
{
	return (struct nbd_target *)target;
}

/* What it can, as bits, and its block sizes. */
static void read_capabilities(const struct nbd_link *link, struct target_nbd_facts *facts)
{
	struct nbd_handle *nbd = link->nbd;
	int64_t minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
	int64_t preferred = nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED);
	int64_t maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);

	*facts = (struct target_nbd_facts){
		.size = nbd_get_size(nbd),
		.protocol = nbd_get_protocol(nbd),
		.tls = link->tls,
		.identity = link->identity,
		.structured_replies = nbd_get_structured_replies_negotiated(nbd) > 0,
		.readonly = nbd_is_read_only(nbd) > 0,
		.rotational = nbd_is_rotational(nbd) > 0,
		.multi_conn = nbd_can_multi_conn(nbd) > 0,
		.can_flush = nbd_can_flush(nbd) > 0,
		.can_fua = nbd_can_fua(nbd) > 0,
		.can_trim = nbd_can_trim(nbd) > 0,
		.can_zero = nbd_can_zero(nbd) > 0,
		.can_fast_zero = nbd_can_fast_zero(nbd) > 0,
		.can_extents = nbd_can_meta_context(nbd, NBD_CONTEXT) > 0,
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

	read_capabilities(link, facts);
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
	target->max_len = min_u64(target->max_len, DEFAULT_MAX_LEN);
	if (owner->reconnect)
		target->max_len = min_u64(target->max_len, lasting_max_len(owner->unflushed));
	target->max_len = round_down(target->max_len, target->align);
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

/* ---- which disk is behind a connection ---- */

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

/* A target that leads over one connection, and can only be read. */
struct narrow {
	struct target target;
	struct nbd_link *link;
};

static int64_t narrow_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	struct narrow *narrow = (struct narrow *)target;
	int ret;

	if (offset >= target->size)
		return 0;
	len = min_u64(len, target->size - offset);
	memset(buf, 0, len);
	ret = read_over(narrow->link, buf, len, offset);
	return ret < 0 ? ret : (int64_t)len;
}

static int target_read_identity(const struct nbd_target *owner, struct nbd_link *link,
				uint8_t *identity, struct error *err)
{
	static const struct target_ops ops = { .read = narrow_read };
	struct narrow narrow = { .target = owner->target, .link = link };

	if (!owner->identify)
		return 0;
	narrow.target.ops = &ops;
	return owner->identify(owner->identify_opaque, &narrow.target, identity, err);
}

/* A session looks at that itself, whenever it takes a connection. */
static bool has_same_identity(const struct nbd_target *owner, struct nbd_link *link,
			      struct error *err)
{
	uint8_t identity[TARGET_NBD_IDENTITY] = { 0 };

	if (owner->reconnect)
		return true;
	if (target_read_identity(owner, link, identity, err) < 0)
		return false;
	if (memcmp(identity, owner->identity, sizeof(identity)) == 0)
		return true;
	error_set(err, EPROTO, "%s: another disk is there than was opened", owner->target.name);
	return false;
}

/* Is what is behind another connection the same export? */
static bool is_same_export(void *opaque, struct nbd_link *link, struct error *err)
{
	const struct nbd_target *owner = opaque;
	const struct target_nbd_facts *first = &owner->facts;
	struct target_nbd_facts facts;

	read_capabilities(link, &facts);
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
		return has_same_identity(owner, link, err);
	error_set(err, EPROTO, "%s: what it can has changed between two connections",
		  owner->target.name);
	return false;
}

/* Is the connection lost since it was last looked at? Not if it was cut by us. */
static void queue_look_whether_up(struct target_queue *queue)
{
	if (queue->wire.member.up && !queue->canceled && !nbd_link_is_up(queue->wire.link))
		nbd_group_lose(&queue->owner->group, &queue->wire.member);
}

static void nbd_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	if (!wire_issue(&queue->wire, sub))
		queue_look_whether_up(queue);
}

static void nbd_submit(struct target_queue *queue)
{
	nbd_link_submit(queue->wire.link);
}

/* For a queue that has lost its connection. */
static bool find_another(struct target_queue *queue)
{
	struct nbd_link *link = nbd_group_mend(&queue->owner->group, &queue->wire.member);

	if (!link)
		return false;
	assert(queue->wire.in_flight == 0);
	nbd_link_close(queue->wire.link);
	queue->wire.link = link;
	return true;
}

/* How long to sleep at the most; -1: no limit. */
static int until_another(struct target_queue *queue)
{
	return queue->wire.member.up || queue->canceled || nbd_group_is_lost(&queue->owner->group) ?
		       -1 :
		       DOWN_MS;
}

static struct ndio_subrequest *nbd_queue_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	bool sleep, awake = false;

	do {
		sleep = wait && !queue->wire.landed.first &&
			(queue->wire.in_flight || wake_fd >= 0);
		if (sleep || queue->wire.in_flight)
			awake = nbd_link_look(queue->wire.link, sleep ? until_another(queue) : 0,
					      wake_fd);
		queue_look_whether_up(queue);
		wire_go_on(&queue->wire);
		if (!queue->wire.member.up && !queue->canceled)
			awake |= find_another(queue) || sleep;
	} while (sleep && !awake && !queue->wire.landed.first);
	return landed_take(&queue->wire.landed);
}

static void nbd_cancel(struct target_queue *queue)
{
	queue->canceled = true;
	nbd_link_cut(queue->wire.link);
}

static bool nbd_is_up(const struct target_queue *queue)
{
	return queue->wire.member.up;
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
	ret = nbd_link_open(&link, &owner->server, NBD_CONTEXT, owner->reconnect ? 1 : 0, &deadline,
			    err);
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
	queue->wire = (struct nbd_wire){
		.link = take_spare(owner, err),
		.secret = owner->secret,
		.can_fua = owner->facts.can_fua,
		.group = &owner->group,
	};
	if (!queue->wire.link || nbd_watch_start(&owner->server.watch, err) < 0) {
		nbd_link_close(queue->wire.link);
		free(queue);
		return NULL;
	}
	nbd_group_join(&owner->group, &queue->wire.member);
	return queue;
}

static void nbd_queue_close(struct target_queue *queue)
{
	struct nbd_target *owner = queue->owner;
	bool keep;

	assert(queue->wire.in_flight == 0 && !queue->wire.landed.first && !queue->wire.again);
	nbd_group_leave(&owner->group, &queue->wire.member);
	pthread_mutex_lock(&owner->spares);
	keep = queue->wire.member.up && !queue->canceled && owner->nr_spare < NBD_GROUP_MAX;
	if (keep)
		owner->spare[owner->nr_spare++] = queue->wire.link;
	pthread_mutex_unlock(&owner->spares);
	if (!keep)
		nbd_link_close(queue->wire.link);
	nbd_watch_stop(&owner->server.watch);
	free(queue);
}

/* A connection in place of the first, with which all others are lost too. */
static int target_dial_again(struct nbd_target *owner)
{
	struct error err;

	while (owner->nr_spare > 0)
		nbd_link_close(owner->spare[--owner->nr_spare]);
	if (connect_spare(owner, INT64_MAX, &err) < 0)
		return -ENOTCONN;
	return is_same_export(owner, owner->spare[0], &err) ? 0 : -ESTALE;
}

/* Nothing has been written yet: a server that was away meanwhile, while a passphrase was typed, and is
 * back is as good as before. That is tried once: somebody waits. */
static int read_or_again(struct nbd_target *owner, void *buf, size_t len, uint64_t offset)
{
	int ret = owner->nr_spare ? read_over(owner->spare[0], buf, len, offset) : -ENOTCONN;

	if (ret == 0 || !owner->reconnect || ret == -ETIMEDOUT ||
	    (owner->nr_spare && nbd_link_is_up(owner->spare[0])))
		return ret;
	ret = target_dial_again(owner);
	return ret < 0 ? ret : read_over(owner->spare[0], buf, len, offset);
}

static int64_t nbd_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	struct nbd_target *owner = to_nbd(target);
	int ret;

	if (offset >= target->size)
		return 0;
	len = min_u64(len, target->size - offset);
	memset(buf, 0, len); /* what a hostile server leaves out */
	ret = nbd_watch_start(&owner->server.watch, NULL);
	if (ret < 0)
		return ret;
	ret = read_or_again(owner, buf, len, offset);
	nbd_watch_stop(&owner->server.watch);
	return ret < 0 ? ret : (int64_t)len;
}

static void nbd_target_close(struct target *target)
{
	struct nbd_target *owner = to_nbd(target);

	lasting_close(owner->lasting);
	while (owner->nr_spare > 0)
		nbd_link_close(owner->spare[--owner->nr_spare]);
	nbd_group_destroy(&owner->group);
	pthread_mutex_destroy(&owner->spares);
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

/* ---- a session's queues ---- */

/* So many bits of all that it can and is that another disk is another number. */
static uint32_t facts_sum_up(const struct target_nbd_facts *facts)
{
	const uint64_t parts[] = {
		facts->tls,           facts->structured_replies, facts->readonly,
		facts->rotational,    facts->multi_conn,         facts->can_trim,
		facts->can_zero,      facts->can_fast_zero,      facts->can_extents,
		facts->can_cache,     facts->block_minimum,      facts->block_preferred,
		facts->block_maximum,
	};
	uint32_t sum = 2166136261; /* FNV-1a */

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		for (unsigned shift = 0; shift < 64; shift += 8)
			sum = (sum ^ (parts[i] >> shift & 0xff)) * 16777619;
	return sum;
}

/* What the server says of a disk. */
static struct session_identity facts_identity(const struct target_nbd_facts *facts)
{
	return (struct session_identity){
		.size = facts->size,
		.facts = facts_sum_up(facts),
		.can_flush = facts->can_flush,
		.can_fua = facts->can_fua,
	};
}

static int link_identify(void *opaque, struct nbd_link *link, struct session_identity *identity,
			 struct error *err)
{
	const struct nbd_target *owner = opaque;
	struct target_nbd_facts facts;

	read_capabilities(link, &facts);
	*identity = facts_identity(&facts);
	identity->fences = link->identity.fences;
	identity->has_instance = link->identity.has_instance;
	memcpy(identity->instance, link->identity.instance, sizeof(identity->instance));
	return identity->size == owner->target.size ?
		       target_read_identity(owner, link, identity->header, err) :
		       0;
}

/* As many as there will be queues: some may have been lost since. */
static int fill_spares(struct nbd_target *owner, struct error *err)
{
	while (owner->nr_spare < owner->target.max_queues) {
		int ret = connect_spare(owner, INT64_MAX, err);

		if (ret < 0)
			return ret;
		if (is_same_export(owner, owner->spare[owner->nr_spare - 1], err))
			continue;
		nbd_link_close(owner->spare[--owner->nr_spare]);
		return -ESTALE;
	}
	return 0;
}

static int start_session(struct nbd_target *owner, struct error *err)
{
	struct lasting_options options = {
		.server = &owner->server,
		.context = NBD_CONTEXT,
		.links = owner->target.max_queues,
		.max_len = owner->target.max_len,
		.secret = owner->secret,
		.reconnect = owner->reconnect,
		.unflushed = owner->unflushed,
		.memory_ready = owner->memory_ready,
		.listener = owner->listener,
		.disk = facts_identity(&owner->facts),
		.identify = link_identify,
		.opaque = owner,
	};

	memcpy(options.disk.header, owner->identity, sizeof(options.disk.header));
	owner->nr_spare = 0;
	error_set(&owner->silent, ETIMEDOUT, "the server has been away for %u second%s",
		  owner->reconnect, owner->reconnect == 1 ? "" : "s");
	return lasting_open(&options, owner->spare, &owner->lasting, err);
}

static struct target_queue *session_queue_open(struct target *target, unsigned depth,
					       struct bvec bounce, struct error *err)
{
	struct nbd_target *owner = to_nbd(target);

	(void)bounce;
	return owner->lasting || (fill_spares(owner, err) == 0 && start_session(owner, err) == 0) ?
		       lasting_queue_open(owner->lasting, depth, err) :
		       NULL;
}

static const struct target_ops session_ops = {
	.read = nbd_read,
	.queue_open = session_queue_open,
	.queue_close = lasting_queue_close,
	.issue = lasting_issue,
	.submit = lasting_submit,
	.poll = lasting_poll,
	.cancel = lasting_cancel,
	.close = nbd_target_close,
};

bool target_is_nbd(const struct target *target)
{
	return target->ops == &nbd_ops || target->ops == &session_ops;
}

void target_nbd_set_identity(struct target *target, const uint8_t ours[TARGET_NBD_IDENTITY],
			     target_nbd_identify_fn *identify_fn, void *opaque)
{
	struct nbd_target *owner = to_nbd(target);

	memcpy(owner->identity, ours, TARGET_NBD_IDENTITY);
	owner->identify = identify_fn;
	owner->identify_opaque = opaque;
}

void target_nbd_hurry(struct target *target)
{
	struct nbd_target *owner = to_nbd(target);

	atomic_store(&owner->server.hurry, true);
	if (owner->lasting)
		lasting_hurry(owner->lasting);
}

bool target_nbd_lasting(const struct target *target, struct lasting_facts *facts)
{
	const struct nbd_target *owner = (const struct nbd_target *)target;

	if (!target_is_nbd(target) || !owner->lasting)
		return false;
	lasting_read_facts(owner->lasting, facts);
	return true;
}

void target_nbd_facts(const struct target *target, struct target_nbd_facts *facts)
{
	*facts = to_nbd(target)->facts;
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
			    owner->nr_spare == 1 ? "that" : "those",
			    nbd_server_reason(&owner->server, &why));
	return 0;
}

/* An id that no other has, or can guess. */
static int name_session(struct nbd_target *owner, struct error *err)
{
	uint8_t id[SESSION_ID];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return error_set(err, errno, "%s: no random number: %s", owner->target.name,
				 strerror(errno));
	for (unsigned i = 0; i < sizeof(id); i++)
		snprintf(owner->server.session + 2 * i, 3, "%02x", id[i]);
	owner->server.told = true; /* why a connection is lost is in what the session tells */
	return 0;
}

/* The first connection. Where only nobody is there yet, he may come. */
static int dial_first(struct nbd_target *owner, unsigned wait, struct error *err)
{
	const int64_t deadline = clock_ms() + wait * INT64_C(1000);
	unsigned pause = AGAIN_MS;
	int ret;

	while ((ret = connect_spare(owner, INT64_MAX, err)) < 0 && ret != -EACCES &&
	       clock_ms() < deadline) {
		if (pause == AGAIN_MS)
			notice_tell(&owner->server.notice,
				    "%s: waiting for the server, %u second%s at the most",
				    err->text, wait, wait == 1 ? "" : "s");
		usleep(pause * 1000);
		pause = min_u64(2 * pause, PAUSE_MAX_MS);
	}
	return ret;
}

static int open_first(struct nbd_target *owner, const struct target_nbd_options *options,
		      struct error *err)
{
	int ret = nbd_server_init(&owner->server, owner->target.name, options->answer_timeout,
				  &options->notice, err);

	pthread_mutex_init(&owner->spares, NULL);
	nbd_group_init(&owner->group, &owner->server, NBD_CONTEXT, is_same_export, owner);
	if (ret == 0 && owner->reconnect)
		ret = name_session(owner, err);
	if (ret == 0)
		ret = dial_first(owner, options->wait, err);
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
	owner->target.ops = options->reconnect ? &session_ops : &nbd_ops;
	owner->connections = options->connections;
	owner->reconnect = options->reconnect;
	owner->memory_ready = options->memory_ready;
	owner->unflushed = options->unflushed ? options->unflushed : TARGET_UNFLUSHED;
	owner->listener = options->listener;
	owner->secret = wire_secret();
	ret = open_first(owner, options, err);
	if (ret < 0) {
		nbd_target_close(&owner->target);
		return ret;
	}
	nbd_server_is_silent(&owner->server, owner->server.answer_timeout, &silent);
	error_set(&owner->silent, ETIMEDOUT, "%s", nbd_server_reason(&owner->server, &silent));
	owner->target.timed_out = owner->silent.text;
	owner->target.readonly |= options->readonly;
	*target = &owner->target;
	return 0;
}
