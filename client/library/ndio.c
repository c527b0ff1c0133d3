/* ndio: the library's volumes and requests: the engine behind the interface of ndio.h. */
#include "library/ndio.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "base/thread.h"
#include "engine/bounce.h"
#include "engine/worker.h"
#include "library/callback.h"
#include "library/message.h"
#include "library/queue.h"
#include "locator/locator.h"
#include "memory/mapping.h"
#include "memory/pin.h"
#include "nbd/target-nbd.h"
#include "open.h"

/* A file's queue depth is in the pieces, a server's also in its connections. All bounce memory
 * together stays below the usual locked-memory limit of 8 MiB. */
#define FILE_WORKERS        2
#define FILE_PIECES         24
#define DEFAULT_CONNECTIONS 4
#define MAX_CONNECTIONS     64
#define NBD_PIECES          6
#define NBD_PIECE_LEN       (256 * 1024)
#define FILE_PIECE_LEN      (128 * 1024)
#define DEFAULT_COPY_MEMORY (64 * 1024 * 1024)
#define PIN_MAX             512 /* bytes */

/* All that there are. */
#define OPEN_FLAGS                                                                                 \
	((unsigned)(NDIO_OPEN_READONLY | NDIO_OPEN_DISCARD | NDIO_OPEN_NO_LOCK |                   \
		    NDIO_OPEN_KEY_SLOT | NDIO_OPEN_NO_DISCARD | NDIO_OPEN_NO_RECONNECT |           \
		    OPEN_TOKENS | NDIO_OPEN_VOLUME_KEY | NDIO_OPEN_LEARN))
#define OPEN_TOKENS (NDIO_OPEN_TOKENS | NDIO_OPEN_ONE_TOKEN)

struct ndio_volume {
	struct volume *volume;
	struct workers *workers;
	unsigned connections;
	unsigned reconnect; /* seconds, or 0 */
	size_t copy_memory;
	_Atomic size_t copy_used;
	struct notice notice;                                         /* the program's, */
	void (*event)(void *opaque, int server, const char *message); /* likewise, or NULL */
	ssize_t (*pin)(void *opaque, const char *token, const char *why, void *pin,
		       size_t size); /* likewise */
	atomic_bool closing;         /* callbacks make no more requests, */
	atomic_uint submitting;      /* except for these */

	/* Ends requests that pinned their memory: unlocking it may block, which a worker must
	 * not. Runs from the first such request on. */
	pthread_mutex_t lock;
	struct ndio_queue *pinned;
	pthread_t unpinner;
	bool has_unpinner;
};

/* One call, while it runs. */
struct call {
	struct queue_entry entry; /* first; its event is what the caller gets */
	struct ndio_volume *owner;
	struct ndio_request *request;
	struct ndio_completion completion;
	ndio_extent_fn *extent;
	void *extent_opaque;

	/* Memory of our own for the data: what NDIO_COPY asks for, or where a read goes first
	 * that must be brought home by the thread that fetches its completion. */
	void *copy;
	size_t copy_len;
	struct bvec *caller_bv; /* the caller's memory, then */
	size_t caller_bv_count;
	bool bring_home;
};

/* ---- structs whose size the caller tells ---- */

#define STRUCT_SIZE_MAX 65536 /* bytes: what is larger wasn't set */

static int check_struct_size(size_t size)
{
	if (size < sizeof(size) || size > STRUCT_SIZE_MAX)
		return message_set(EINVAL, "struct_size isn't set");
	return 0;
}

/* Gives the caller as much of a struct as it knows. */
static int give(void *theirs, const void *ours, size_t our_size)
{
	size_t size;

	memcpy(&size, theirs, sizeof(size));
	if (check_struct_size(size) < 0)
		return -EINVAL;
	if (size > our_size)
		memset((char *)theirs + our_size, 0, size - our_size);
	memcpy((char *)theirs + sizeof(size), (const char *)ours + sizeof(size),
	       (size < our_size ? size : our_size) - sizeof(size));
	return 0;
}

/* ---- opening and closing ---- */

static void close_volume(struct ndio_volume *handle)
{
	ndio_queue_free(handle->pinned);
	volume_close(handle->volume);
	pthread_mutex_destroy(&handle->lock);
	free(handle);
}

static void tell_notice(void *opaque, const char *message)
{
	const struct ndio_volume *handle = opaque;

	callback_enter();
	handle->notice.tell(handle->notice.opaque, message);
	callback_leave();
}

static enum ndio_server server_state(enum session_state state)
{
	switch (state) {
	case SESSION_UP:
		return NDIO_SERVER_UP;
	case SESSION_GIVEN_UP:
		return NDIO_SERVER_GIVEN_UP;
	case SESSION_ENDED:
		return NDIO_SERVER_ENDED;
	default:
		return NDIO_SERVER_AWAY;
	}
}

static void tell_event(void *opaque, enum session_state state, const char *message)
{
	const struct ndio_volume *handle = opaque;

	callback_enter();
	handle->event(handle->notice.opaque, server_state(state), message);
	callback_leave();
}

/* Seconds; 0: it isn't waited for. */
static unsigned reconnect_time(const struct ndio_options *options)
{
	if (options->flags & NDIO_OPEN_NO_RECONNECT)
		return 0;
	return options->reconnect ? options->reconnect : NBD_RECONNECT;
}

/* By a key, or without. */
static bool is_unlocked(const struct ndio_options *options)
{
	return options->key || options->flags & OPEN_TOKENS;
}

static int library_ask_pin(void *opaque, const char *token, struct key *pin, struct error *err)
{
	const struct ndio_volume *handle = opaque;
	ssize_t n = key_make(pin, PIN_MAX, err);

	if (n < 0)
		return n;
	callback_enter();
	n = handle->pin(handle->notice.opaque, token, err->text, pin->data, PIN_MAX);
	callback_leave();
	if (n > PIN_MAX)
		n = -EFBIG;
	if (n < 0)
		return error_set(err, -n, "no PIN: %s", strerror(-n));
	pin->len = n;
	return 0;
}

static struct volume_options engine_options(struct ndio_volume *handle, const char *locator,
					    const struct ndio_options *options)
{
	bool nbd = locator_is_uri(locator);

	return (struct volume_options){
		.file = nbd ? NULL : locator,
		.uri = nbd ? locator : NULL,
		.connections = handle->connections,
		.answer_timeout = options->answer_timeout,
		.reconnect = handle->reconnect,
		.unflushed = options->unflushed,
		.listener = { options->event ? tell_event : NULL, handle },
		.header = options->header,
		.trust = options->trust,
		.learn = options->flags & NDIO_OPEN_LEARN,
		.unlock = is_unlocked(options),
		.pass = options->key,
		.pass_len = options->key_len,
		.volume_key = options->flags & NDIO_OPEN_VOLUME_KEY,
		.by_tokens = options->flags & OPEN_TOKENS,
		.tokens = {
			.number = options->flags & NDIO_OPEN_ONE_TOKEN ?
					  (int)min_u64(options->token, INT_MAX) :
					  LUKS_ANY_TOKEN,
			.pin = options->pin ? library_ask_pin : NULL,
			.opaque = handle,
		},
		.direct = options->direct == NDIO_DIRECT_ON  ? DIRECT_ON :
			  options->direct == NDIO_DIRECT_OFF ? DIRECT_OFF :
							       DIRECT_AUTO,
		.readonly = options->flags & NDIO_OPEN_READONLY,
		.locking = options->flags & NDIO_OPEN_NO_LOCK ? LOCK_IMAGE_OFF : LOCK_IMAGE,
		.file_size = options->file_size,
		.one_slot = options->flags & NDIO_OPEN_KEY_SLOT,
		.slot = min_u64(options->key_slot, INT_MAX),
		.max_kdf_time = options->max_kdf_time,
		.discard = options->flags & NDIO_OPEN_DISCARD,
		.no_discard = options->flags & NDIO_OPEN_NO_DISCARD,
		.notice = { options->notice ? tell_notice : NULL, handle },
	};
}

static int start_workers(struct ndio_volume *handle, bool nbd, struct error *err)
{
	const struct channel_options options = {
		.pieces = nbd ? NBD_PIECES : FILE_PIECES,
		.piece_len = nbd ? NBD_PIECE_LEN : FILE_PIECE_LEN,
	};
	int ret = workers_open(handle->volume, nbd ? handle->connections : FILE_WORKERS, &options,
			       queue_tell, &handle->workers, err);

	if (ret < 0)
		return ret;
	if (handle->volume->encrypted && !workers_are_pinned(handle->workers) &&
	    handle->notice.tell)
		tell_notice(handle, BOUNCE_UNPINNED);
	return 0;
}

static int open_engine(struct ndio_volume *handle, const char *locator,
		       const struct ndio_options *options)
{
	const struct volume_options engine = engine_options(handle, locator, options);
	struct error err = { 0 };
	int ret = volume_open(&engine, &handle->volume, &err);

	if (ret == 0)
		ret = start_workers(handle, engine.uri, &err);
	return ret < 0 ? message_set(-ret, "%s", err.text) : 0;
}

static int check_server_options(const struct ndio_options *options)
{
	if (options->connections > MAX_CONNECTIONS)
		return message_set(EINVAL, "%u connections are more than %u", options->connections,
				   MAX_CONNECTIONS);
	if (options->answer_timeout > NBD_ANSWER_TIMEOUT_MAX)
		return message_set(EINVAL, "%u seconds to answer are more than %u",
				   options->answer_timeout, NBD_ANSWER_TIMEOUT_MAX);
	if (options->reconnect > NBD_RECONNECT_MAX)
		return message_set(EINVAL, "%u seconds to come back are more than %u",
				   options->reconnect, NBD_RECONNECT_MAX);
	if (options->unflushed && options->unflushed < TARGET_UNFLUSHED_MIN)
		return message_set(EINVAL,
				   "%" PRIu64 " bytes for what isn't flushed are fewer than %u",
				   options->unflushed, TARGET_UNFLUSHED_MIN);
	return 0;
}

/* What is there of them makes sense; the others keep their defaults. */
static int read_options(const struct ndio_options *options, struct ndio_options *all)
{
	*all = (struct ndio_options){ 0 };
	if (options && check_struct_size(options->struct_size) < 0)
		return -EINVAL;
	if (options && options->struct_size % _Alignof(struct ndio_options))
		return message_set(EINVAL, "struct_size is no struct's: half a member is known");
	if (options && options->struct_size > sizeof(*all))
		return message_set(EINVAL, "the program is newer than the library: it knows more "
					   "options");
	if (options)
		memcpy(all, options, options->struct_size);
	if (all->flags & ~OPEN_FLAGS)
		return message_set(EINVAL, "there is no open flag 0x%x", all->flags & ~OPEN_FLAGS);
	if (all->direct < NDIO_DIRECT_AUTO || all->direct > NDIO_DIRECT_OFF)
		return message_set(EINVAL, "there is no way of direct I/O number %d", all->direct);
	if (all->reserved)
		return message_set(EINVAL, "the reserved option is %d, not 0", all->reserved);
	if (!all->key && all->key_len)
		return message_set(EINVAL, "a key of %zu bytes that is NULL", all->key_len);
	return check_server_options(all);
}

int ndio_open(const char *locator, const struct ndio_options *options, struct ndio_volume **volume)
{
	struct ndio_options all;
	struct ndio_volume *handle;
	struct error err;
	int ret;

	if (!volume)
		return message_set(EINVAL, "no place for the open disk");
	*volume = NULL;
	if (!locator)
		return message_set(EINVAL, "no locator");
	ret = callback_refuse("opening a disk");
	if (ret == 0)
		ret = read_options(options, &all);
	if (ret < 0)
		return ret;
	if (all.header && !is_unlocked(&all))
		return message_set(EINVAL, "%s: a detached header without a key", locator);
	if (all.trust && !is_unlocked(&all))
		return message_set(EINVAL, "%s: a trust file without a key", locator);
	if (locator_kind(locator, &err) < 0 ||
	    (all.trust && locator_check_path(all.trust, "a trust file", &err) < 0) ||
	    (all.header && locator_check_path(all.header, "a LUKS header", &err) < 0))
		return message_set(EINVAL, "%s", err.text);
	handle = calloc(1, sizeof(*handle));
	if (!handle)
		return message_set(ENOMEM, "%s: no memory", locator);
	pthread_mutex_init(&handle->lock, NULL);
	handle->connections = all.connections ? all.connections : DEFAULT_CONNECTIONS;
	handle->copy_memory = all.copy_memory ? all.copy_memory : DEFAULT_COPY_MEMORY;
	handle->notice = (struct notice){ all.notice, all.opaque };
	handle->event = all.event;
	handle->pin = all.pin;
	handle->reconnect = reconnect_time(&all);
	ret = open_engine(handle, locator, &all);
	if (ret < 0)
		close_volume(handle);
	else
		*volume = handle;
	return ret;
}

/* The target, with its connection, goes from the one volume to the other. */
static int unlock_target(struct ndio_volume *handle, const struct ndio_options *options,
			 struct error *err)
{
	struct volume *plain = handle->volume, *volume;
	struct volume_options engine = engine_options(handle, plain->target->name, options);
	int ret;

	engine.target = plain->target;
	handle->pin = options->pin;
	ret = volume_open(&engine, &volume, err);
	if (ret < 0)
		return ret;
	plain->target = NULL;
	volume_close(plain);
	handle->volume = volume;
	return 0;
}

int ndio_unlock(struct ndio_volume *volume, const struct ndio_options *options)
{
	struct ndio_options all;
	struct error err = { 0 }, again = { 0 };
	int ret = callback_refuse("unlocking a disk"), started;

	if (ret == 0)
		ret = read_options(options, &all);
	if (ret < 0)
		return ret;
	if (!volume || !is_unlocked(&all) || volume->volume->encrypted ||
	    !target_is_nbd(volume->volume->disk))
		return message_set(EINVAL,
				   "only the disk of a server that was opened without a key can "
				   "be unlocked later, and with one");
	workers_close(volume->workers, false);
	volume->workers = NULL;
	ret = unlock_target(volume, &all, &err);
	started = start_workers(volume, true, &again);
	if (started < 0)
		return message_set(-started, "%s", ret < 0 ? err.text : again.text);
	return ret < 0 ? message_set(-ret, "%s", err.text) : 0;
}

static void stop_reaped(struct queue_entry *entry, struct ndio_event *event)
{
	(void)entry;
	event->opaque = NULL;
}

static void stop_unpinner(struct ndio_volume *handle)
{
	struct queue_entry stop = { .reaped = stop_reaped };

	if (!handle->has_unpinner)
		return;
	queue_add(handle->pinned, &stop);
	pthread_join(handle->unpinner, NULL);
}

void ndio_close(struct ndio_volume *volume, enum ndio_close_how how)
{
	if (!volume || callback_refuse("closing a disk") < 0)
		return;
	/* Who hands a request over has seen the flag, or is waited for: none is left behind that no
	 * worker takes. */
	atomic_store(&volume->closing, true);
	while (atomic_load(&volume->submitting))
		sched_yield();
	workers_close(volume->workers, how == NDIO_CLOSE_CANCEL);
	stop_unpinner(volume);
	close_volume(volume);
}

/* ---- what it is ---- */

static uint32_t what_it_can(const struct ndio_volume *handle)
{
	const struct volume *volume = handle->volume;
	const struct target *target = volume->target;
	struct target_nbd_facts facts = { 0 };

	if (target_is_nbd(volume->disk))
		target_nbd_facts(volume->disk, &facts);
	return (volume->readonly ? 0 : NDIO_CAN_WRITE) | (target->can_flush ? NDIO_CAN_FLUSH : 0) |
	       (target->can_fua ? NDIO_CAN_FUA : 0) | (volume->can_trim ? NDIO_CAN_TRIM : 0) |
	       (volume->can_fast_zero ? NDIO_CAN_FAST_ZERO : 0) |
	       (volume->can_extents ? NDIO_CAN_EXTENTS : 0) |
	       (target->can_cache ? NDIO_CAN_CACHE : 0) |
	       (facts.multi_conn ? NDIO_CAN_MULTI_CONN : 0);
}

static void tell_server(const struct ndio_volume *handle, struct ndio_info *info)
{
	const struct target *target = handle->volume->disk;
	struct target_nbd_facts facts;
	struct lasting_facts lasting = { 0 };

	target_nbd_facts(target, &facts);
	info->nbd = 1;
	info->tls = facts.tls;
	info->block_minimum = facts.block_minimum;
	info->block_preferred = facts.block_preferred;
	info->block_maximum = facts.block_maximum;
	info->structured_replies = facts.structured_replies;
	info->reconnect = target_nbd_lasting(target, &lasting) ? handle->reconnect : 0;
	info->fences = facts.identity.fences;
	for (unsigned i = 0; facts.identity.has_instance && i < SESSION_ID; i++)
		snprintf(info->instance + 2 * i, 3, "%02x", facts.identity.instance[i]);
	snprintf(info->protocol, sizeof(info->protocol), "%s", facts.protocol);
	snprintf(info->tls_version, sizeof(info->tls_version), "%s", facts.tls_facts.version);
	snprintf(info->tls_cipher, sizeof(info->tls_cipher), "%s", facts.tls_facts.cipher);
	snprintf(info->tls_peer, sizeof(info->tls_peer), "%s", facts.tls_facts.peer);
}

int ndio_get_info(struct ndio_volume *volume, struct ndio_info *info)
{
	const struct volume *v;
	struct ndio_info all;

	if (!volume || !info)
		return message_set(EINVAL, "no disk, or no place for what it is");
	v = volume->volume;
	all = (struct ndio_info){
		.size = v->size,
		.block = v->block,
		.can = what_it_can(volume),
		.target_size = v->disk->size,
		.data_offset = v->luks.data_offset,
		.direct = v->target->direct,
	};

	if (v->encrypted) {
		all.luks = v->luks.version;
		all.sector = v->luks.sector;
		all.key_bits = v->luks.key_len * 8;
		memcpy(all.cipher, v->luks.cipher, sizeof(all.cipher));
	}
	if (target_is_nbd(v->disk)) {
		all.connections = volume->workers ? workers_count(volume->workers) : 0;
		tell_server(volume, &all);
	}
	return give(info, &all, sizeof(all));
}

static void stats_tell_state(const struct target *target, struct ndio_stats *stats)
{
	struct lasting_facts facts;

	if (!target_nbd_lasting(target, &facts))
		return;
	stats->server = server_state(facts.state);
	stats->away_ms = facts.lost_ms;
	stats->times_lost = facts.times_lost;
	stats->unflushed = facts.unflushed;
}

int ndio_get_stats(struct ndio_volume *volume, struct ndio_stats *stats)
{
	const struct stats *s;
	struct ndio_stats all;

	if (!volume || !stats)
		return message_set(EINVAL, "no disk, or no place for its counters");
	s = &volume->volume->stats;
	all = (struct ndio_stats){
		.reads = stat_get(s, reads),
		.writes = stat_get(s, writes),
		.others = stat_get(s, others),
		.bytes_read = stat_get(s, bytes_read),
		.bytes_written = stat_get(s, bytes_written),
		.bounced = stat_get(s, bounced),
		.zero_copy = stat_get(s, zero_copy),
		.partial = stat_get(s, partial),
		.pins = stat_get(s, pins),
		.unpins = stat_get(s, unpins),
		.in_flight = stat_get(s, in_flight),
		.errors = stat_get(s, errors),
	};
	stats_tell_state(volume->volume->disk, &all);
	return give(stats, &all, sizeof(all));
}

const char *ndio_reason(const struct ndio_volume *volume, int error)
{
	return volume ? target_reason(volume->volume->target, -error) : error_reason(-error);
}

/* ---- requests ---- */

/* What a call asks for, blocking or not. */
struct ask {
	enum op op;
	unsigned flags; /* enum ndio_flag */
	uint64_t offset, len;
	const struct iovec *iov;
	int iovcnt;
	ndio_extent_fn *extent;
	void *extent_opaque;
};

static unsigned request_flags(unsigned flags)
{
	return (flags & NDIO_FUA ? REQ_FUA : 0) | (flags & NDIO_PIN ? REQ_PIN : 0) |
	       (flags & NDIO_MAY_TRIM ? REQ_MAY_TRIM : 0) |
	       (flags & NDIO_FAST_ZERO ? REQ_FAST_ZERO : 0);
}

static int ask_refuse(const struct ndio_volume *handle, const struct ask *ask, int error,
		      const char *reason)
{
	return message_set(-error, "%s: %s at %llu: %s", handle->volume->target->name,
			   op_names[ask->op], (unsigned long long)ask->offset, reason);
}

static int failed(const struct ndio_volume *handle, const struct ask *ask, int error)
{
	bool syncs = ask->op == OP_FLUSH || (ask->flags & NDIO_FUA);
	const char *more = syncs && syncs_error(&handle->volume->syncs) ? "; " SYNCS_FAILED : "";

	return message_set(-error, "%s: %s at %llu: %s%s", handle->volume->target->name,
			   op_names[ask->op], (unsigned long long)ask->offset,
			   ndio_reason(handle, error), more);
}

/* ---- what can't be asked for ---- */

static unsigned known_flags(enum op op)
{
	switch (op) {
	case OP_READ:
		return NDIO_PIN;
	case OP_WRITE:
		return NDIO_FUA | NDIO_PIN | NDIO_COPY;
	case OP_ZERO:
		return NDIO_FUA | NDIO_MAY_TRIM | NDIO_FAST_ZERO;
	case OP_TRIM:
		return NDIO_FUA;
	default:
		return 0;
	}
}

static int check_memory(const struct ndio_volume *handle, const struct ask *ask)
{
	if (ask->iovcnt < 0)
		return ask_refuse(handle, ask, -EINVAL, "a negative number of pieces of memory");
	if (ask->iovcnt > 0 && !ask->iov)
		return ask_refuse(handle, ask, -EINVAL, "the array of memory is NULL");
	for (int i = 0; i < ask->iovcnt; i++)
		if (!ask->iov[i].iov_base && ask->iov[i].iov_len)
			return ask_refuse(handle, ask, -EFAULT, "memory at NULL");
	return 0;
}

/* Locked for as long as anybody may use it. */
static bool ask_is_registered(const struct ask *ask)
{
	for (int i = 0; i < ask->iovcnt; i++)
		if (ask->iov[i].iov_len &&
		    !pin_is_registered(ask->iov[i].iov_base, ask->iov[i].iov_len))
			return false;
	return true;
}

/* Pinning faults the memory in, and copying reads it. */
static int check_callback(const struct ndio_volume *handle, const struct ask *ask)
{
	if (!callback_is_running() || !(ask->flags & (NDIO_PIN | NDIO_COPY)) ||
	    ask_is_registered(ask))
		return 0;
	return ask_refuse(handle, ask, -EDEADLK,
			  "NDIO_PIN and NDIO_COPY of memory that isn't "
			  "registered: not in a callback, which might wait for itself");
}

static int ask_check(const struct ndio_volume *handle, const struct ask *ask)
{
	int ret;

	if (!handle)
		return message_set(EINVAL, "%s: no disk", op_names[ask->op]);
	if (!handle->workers) /* lost in ndio_unlock() */
		return ask_refuse(handle, ask, -ENOTCONN, error_reason(ENOTCONN));
	ret = check_memory(handle, ask);
	if (ret < 0)
		return ret;
	if (ask->flags & ~known_flags(ask->op))
		return ask_refuse(handle, ask, -EINVAL, "a flag that it doesn't have");
	if (ask->op == OP_EXTENTS && !ask->extent)
		return ask_refuse(handle, ask, -EINVAL, "nobody to tell them");
	return check_callback(handle, ask);
}

static int tell_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	const struct call *call = opaque;
	int ret;

	callback_enter();
	ret = call->extent(call->extent_opaque, offset, len, type);
	callback_leave();
	return ret;
}

static int call_make_request(struct call *call, const struct ask *ask)
{
	int ret = request_make(call->owner->volume, ask->op, request_flags(ask->flags), ask->offset,
			       ask->len, ask->iov, ask->iovcnt, &call->request);

	if (ret == 0) {
		call->extent = ask->extent;
		call->extent_opaque = ask->extent_opaque;
		call->request->extent = tell_extent;
		call->request->extent_opaque = call;
	}
	return ret;
}

/* ---- memory of our own ---- */

static int make_copy(struct call *call, const struct ask *ask, struct iovec *own)
{
	struct ndio_volume *handle = call->owner;
	uint64_t len;
	int ret = bvec_measure(ask->iov, ask->iovcnt, &call->caller_bv_count, &len);

	if (ret < 0)
		return ret;
	if (atomic_fetch_add(&handle->copy_used, len) + len > handle->copy_memory) {
		atomic_fetch_sub(&handle->copy_used, len);
		return -EAGAIN;
	}
	call->copy_len = len;
	call->caller_bv = malloc((call->caller_bv_count + 1) * sizeof(*call->caller_bv));
	if (!call->caller_bv || posix_memalign(&call->copy, 4096, len + 1) != 0)
		return -ENOMEM;
	bvec_snapshot(call->caller_bv, ask->iov, ask->iovcnt);
	if (ask->op == OP_WRITE) {
		struct iter it = iter_over(call->caller_bv, len);

		iter_copy_from(&it, call->copy, len);
	}
	*own = (struct iovec){ call->copy, len };
	return 0;
}

/* Is some of the memory in a shared mapping? Of registered memory that is known; the kernel is asked
 * once for all the rest. */
static bool is_shared(const struct ask *ask, struct iovec *rest)
{
	size_t count = 0;

	for (int i = 0; i < ask->iovcnt; i++) {
		const struct iovec *iov = &ask->iov[i];

		if (iov->iov_len == 0)
			continue;
		if (!pin_is_registered(iov->iov_base, iov->iov_len))
			rest[count++] = *iov;
		else if (pin_is_shared(iov->iov_base, iov->iov_len))
			return true;
	}
	return count && mapping_is_shared(rest, count);
}

/* A page of a shared file mapping faults when it is written even if it is locked. */
static bool must_bring_home(const struct ask *ask)
{
	struct iovec few[8], *rest = few;
	bool shared;

	if (ask->op != OP_READ || !(ask->flags & NDIO_PIN))
		return false;
	if (ask->iovcnt > 8)
		rest = calloc(ask->iovcnt, sizeof(*rest));
	shared = !rest || is_shared(ask, rest); /* without memory, the way that is always right */
	if (rest != few)
		free(rest);
	return shared;
}

static void bring_home(struct call *call)
{
	struct iter it;

	if (!call->bring_home || call->entry.event.error)
		return;
	it = iter_over(call->caller_bv, call->copy_len);
	iter_copy_to(&it, call->copy, call->copy_len);
}

/* It may hold plaintext. */
static void free_copy(struct call *call)
{
	if (call->copy)
		OPENSSL_cleanse(call->copy, call->copy_len);
	free(call->copy);
	call->copy = NULL;
}

static void free_call(struct call *call)
{
	free_copy(call);
	free(call->caller_bv);
	free(call);
}

/* ---- the end of an asynchronous call ---- */

static void call_reaped(struct queue_entry *entry, struct ndio_event *event)
{
	struct call *call = (struct call *)entry;

	/* Lost with its queue, by when the caller's memory may be gone. */
	if (event) {
		bring_home(call);
		*event = entry->event;
	}
	free_call(call);
}

/* Lets go of the volume, which may be closed before the completion is fetched, and tells. */
static void call_finish(struct call *call)
{
	struct ndio_completion completion = call->completion;

	request_put(call->request, REF_CALLER);
	if (call->copy)
		atomic_fetch_sub(&call->owner->copy_used, call->copy_len);
	if (!call->bring_home) /* not kept until somebody fetches the completion */
		free_copy(call);
	if (completion.queue) {
		call->entry.reaped = call_reaped;
		call->entry.touches = call->bring_home;
		queue_add_later(completion.queue, &call->entry);
	} else {
		int error = call->entry.event.error;

		free_call(call);
		callback_enter();
		completion.callback(completion.opaque, error);
		callback_leave();
	}
}

static void pinned_reaped(struct queue_entry *entry, struct ndio_event *event)
{
	event->opaque = entry;
}

static void *unpinner_main(void *opaque)
{
	struct ndio_volume *handle = opaque;
	struct ndio_event event;

	for (;;) {
		struct call *call;

		if (ndio_queue_reap(handle->pinned, &event, 1, -1) <= 0)
			continue;
		call = event.opaque;
		if (!call)
			return NULL;
		request_unpin(call->request);
		call_finish(call);
		queue_tell();
	}
}

static int start_unpinner(struct ndio_volume *handle)
{
	int ret = 0;

	pthread_mutex_lock(&handle->lock);
	if (!handle->pinned)
		ret = ndio_queue_new(&handle->pinned);
	if (ret == 0 && !handle->has_unpinner) {
		ret = -thread_start(&handle->unpinner, unpinner_main, handle);
		handle->has_unpinner = ret == 0;
	}
	pthread_mutex_unlock(&handle->lock);
	return ret;
}

/* On the worker's thread. */
static void call_done(struct ndio_request *request)
{
	struct call *call = request->opaque;

	call->entry.event = (struct ndio_event){ call->completion.opaque, request->error };
	if (request->direct_bv_unpin) {
		call->entry.reaped = pinned_reaped;
		queue_add(call->owner->pinned, &call->entry);
	} else {
		call_finish(call);
	}
}

/* ---- making calls ---- */

static int call_prepare(struct call *call, struct ask *ask, struct iovec *own)
{
	int ret = 0;

	call->bring_home = must_bring_home(ask);
	if (call->bring_home && call->completion.callback)
		return -EOPNOTSUPP;
	if (call->bring_home || (ask->op == OP_WRITE && (ask->flags & NDIO_COPY))) {
		ret = make_copy(call, ask, own);
		ask->iov = own;
		ask->iovcnt = 1;
	}
	if (ret == 0)
		ret = call_make_request(call, ask);
	return ret;
}

static void drop_call(struct call *call)
{
	if (call->copy_len)
		atomic_fetch_sub(&call->owner->copy_used, call->copy_len);
	free_call(call);
}

static int submit(struct ndio_volume *handle, struct call *call)
{
	bool closing;

	atomic_fetch_add(&handle->submitting, 1);
	closing = atomic_load(&handle->closing);
	if (!closing)
		workers_submit(handle->workers, call->request);
	atomic_fetch_sub(&handle->submitting, 1);
	if (!closing)
		return 0;
	request_put(call->request, REF_CALLER);
	drop_call(call);
	return -ESHUTDOWN;
}

static int start_call(struct ndio_volume *handle, struct ask ask,
		      const struct ndio_completion *completion)
{
	struct call *call;
	struct iovec own;
	int ret = 0;

	if (!completion || !completion->callback == !completion->queue)
		return message_set(EINVAL,
				   "a completion needs a callback or a queue, and not both");
	ret = ask_check(handle, &ask);
	if (ret < 0)
		return ret;
	if ((ask.flags & NDIO_PIN) && ask.iovcnt)
		ret = start_unpinner(handle);
	call = calloc(1, sizeof(*call));
	if (!call || ret < 0) {
		free(call);
		return failed(handle, &ask, ret < 0 ? ret : -ENOMEM);
	}
	call->owner = handle;
	call->completion = *completion;
	ret = call_prepare(call, &ask, &own);
	if (ret < 0) {
		drop_call(call);
		return failed(handle, &ask, ret);
	}
	call->request->done = call_done;
	call->request->opaque = call;
	ret = submit(handle, call);
	return ret < 0 ? failed(handle, &ask, ret) : 0;
}

static int run_call(struct ndio_volume *handle, struct ask ask)
{
	struct call call = { .owner = handle };
	struct iovec own;
	int ret = callback_refuse(op_names[ask.op]);

	if (ret == 0)
		ret = ask_check(handle, &ask);
	if (ret < 0)
		return ret;
	ask.flags &= ~NDIO_COPY; /* it waits anyway */
	ret = call_prepare(&call, &ask, &own);
	if (ret == 0) {
		ret = workers_run(handle->workers, call.request);
		call.entry.event.error = ret;
		bring_home(&call);
		request_put(call.request, REF_CALLER);
	}
	if (call.copy_len)
		atomic_fetch_sub(&handle->copy_used, call.copy_len);
	free_copy(&call);
	free(call.caller_bv);
	return ret < 0 ? failed(handle, &ask, ret) : 0;
}

static ssize_t run_data(struct ndio_volume *volume, struct ask ask)
{
	int ret = run_call(volume, ask);
	ssize_t bytes = 0;

	for (int i = 0; ret == 0 && i < ask.iovcnt; i++)
		bytes += ask.iov[i].iov_len;
	return ret < 0 ? ret : bytes;
}

#define ASK_DATA(which)                                                                            \
	((struct ask){                                                                             \
		.op = (which), .flags = flags, .offset = offset, .iov = iov, .iovcnt = iovcnt })
#define ASK_RANGE(which)                                                                           \
	((struct ask){ .op = (which), .flags = flags, .offset = offset, .len = len })

ssize_t ndio_preadv(struct ndio_volume *volume, const struct iovec *iov, int iovcnt,
		    uint64_t offset, unsigned flags)
{
	return run_data(volume, ASK_DATA(OP_READ));
}

ssize_t ndio_pwritev(struct ndio_volume *volume, const struct iovec *iov, int iovcnt,
		     uint64_t offset, unsigned flags)
{
	return run_data(volume, ASK_DATA(OP_WRITE));
}

int ndio_flush(struct ndio_volume *volume)
{
	return run_call(volume, (struct ask){ .op = OP_FLUSH });
}

int ndio_trim(struct ndio_volume *volume, uint64_t offset, uint64_t len, unsigned flags)
{
	return run_call(volume, ASK_RANGE(OP_TRIM));
}

int ndio_zero(struct ndio_volume *volume, uint64_t offset, uint64_t len, unsigned flags)
{
	return run_call(volume, ASK_RANGE(OP_ZERO));
}

int ndio_cache(struct ndio_volume *volume, uint64_t offset, uint64_t len)
{
	return run_call(volume, (struct ask){ .op = OP_CACHE, .offset = offset, .len = len });
}

static struct ask ask_extents(uint64_t offset, uint64_t len, ndio_extent_fn *extent, void *opaque)
{
	return (struct ask){
		.op = OP_EXTENTS,
		.offset = offset,
		.len = len,
		.extent = extent,
		.extent_opaque = opaque,
	};
}

int ndio_extents(struct ndio_volume *volume, uint64_t offset, uint64_t len, ndio_extent_fn *extent,
		 void *opaque)
{
	return run_call(volume, ask_extents(offset, len, extent, opaque));
}

int ndio_aio_preadv(struct ndio_volume *volume, const struct iovec *iov, int iovcnt,
		    uint64_t offset, unsigned flags, const struct ndio_completion *completion)
{
	return start_call(volume, ASK_DATA(OP_READ), completion);
}

int ndio_aio_pwritev(struct ndio_volume *volume, const struct iovec *iov, int iovcnt,
		     uint64_t offset, unsigned flags, const struct ndio_completion *completion)
{
	return start_call(volume, ASK_DATA(OP_WRITE), completion);
}

int ndio_aio_flush(struct ndio_volume *volume, const struct ndio_completion *completion)
{
	return start_call(volume, (struct ask){ .op = OP_FLUSH }, completion);
}

int ndio_aio_trim(struct ndio_volume *volume, uint64_t offset, uint64_t len, unsigned flags,
		  const struct ndio_completion *completion)
{
	return start_call(volume, ASK_RANGE(OP_TRIM), completion);
}

int ndio_aio_zero(struct ndio_volume *volume, uint64_t offset, uint64_t len, unsigned flags,
		  const struct ndio_completion *completion)
{
	return start_call(volume, ASK_RANGE(OP_ZERO), completion);
}

int ndio_aio_cache(struct ndio_volume *volume, uint64_t offset, uint64_t len,
		   const struct ndio_completion *completion)
{
	return start_call(volume, (struct ask){ .op = OP_CACHE, .offset = offset, .len = len },
			  completion);
}

int ndio_aio_extents(struct ndio_volume *volume, uint64_t offset, uint64_t len,
		     ndio_extent_fn *extent, void *extent_opaque,
		     const struct ndio_completion *completion)
{
	return start_call(volume, ask_extents(offset, len, extent, extent_opaque), completion);
}

/* ---- memory ---- */

/* Locking and unlocking wait for who faults in memory of the process. */
int ndio_region_register(const void *base, size_t len)
{
	int ret = callback_refuse("registering memory");

	if (ret < 0)
		return ret;
	if (!base && len)
		return message_set(EINVAL, "memory at NULL");
	ret = pin_register(base, len);
	return ret < 0 ? message_set(-ret, "locking %zu bytes of memory: %s", len, strerror(-ret)) :
			 0;
}

int ndio_region_unregister(const void *base, size_t len)
{
	int ret = callback_refuse("unregistering memory");

	if (ret < 0)
		return ret;
	ret = pin_unregister(base, len);
	return ret < 0 ? message_set(-ret, "no such range of memory is registered") : 0;
}

const char *ndio_version(void)
{
	return NDIO_VERSION;
}
