/* Received bytes go through the buffer `in` where they are heads, and from there, or at once, to the
 * part that they are the data of. So while a part is being filled the buffer is empty.
 *
 *     in -> order -> part -> request ... done -> reply -> sent
 *
 * What can't go on for want of an order, a part or room in the arena is blocked: nothing more is
 * received until something was sent.
 *
 * A read is replied to part by part where the client takes chunks. Where it doesn't, one that isn't
 * longer than WHOLE_MAX is one part; a longer one runs part after part, and alone, so that no other
 * reply comes between its own parts; and if a later one fails the connection ends: its reply has begun
 * by then, and there is no other way to say so.
 *
 * A write is replied to when its data have come, also if it failed before: some clients know no reply to
 * what they are still sending.
 *
 * The fence is entered by each part when it starts, and not by an order: the data of a write may never
 * come, and nobody shall wait for them. */
#include "connection.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arena.h"
#include "base/align.h"
#include "say.h"

#define ORDERS      128
#define PARTS       128
#define ARENA       (16 * 1024 * 1024) /* bytes, of one that is alone, */
#define ARENA_LEAST (2 * 1024 * 1024)  /* and of one of many: a huge page */
#define ARENAS      (48 * 1024 * 1024) /* that they share */
#define PART_MAX    (256 * 1024)
#define LARGE_MIN   (64 * 1024) /* from here on it's worth to wake another core */
#define WHOLE_MAX   (2 * 1024 * 1024)
#define ZERO_MAX    (32 * 1024 * 1024) /* in one go, where zeroes have to be written */
#define IN_SIZE     (64 * 1024)
#define ROUND_MAX   (1024 * 1024) /* bytes received before others have their turn */
#define IOVS        64
#define EXTENTS_MAX 1024 /* told in one reply */
#define EXTENTS_LEN (EXTENTS_MAX * sizeof(struct reply_extent))
#define ENOUGH      (-E2BIG) /* extents: no more is looked for */

_Static_assert(CONNECTION_AHEAD <= IN_SIZE, "what came ahead has room");
_Static_assert(WHOLE_MAX <= ARENA_LEAST, "a part always finds room in the end");

static atomic_uint nr_connections; /* of the process */

struct reply {
	struct reply *next;
	uint8_t head[REPLY_HEAD_MAX];
	size_t head_len;
	const uint8_t *data; /* behind it */
	size_t len;
	void *span;  /* of the arena, that is given back when it was sent; or NULL */
	void *owner; /* a part or an order, idle then */
	bool of_order;
};

struct order {
	struct order *next; /* of the idle ones */
	struct connection *connection;
	struct command command;
	uint64_t split; /* bytes of which there are parts */
	bool all_split;
	bool is_whole;      /* one part */
	bool one_by_one;    /* its parts run one after the other, and nothing beside them */
	unsigned running;   /* parts */
	int error;          /* the first one, negative, or 0 */
	int64_t since;      /* when it came, a time of clock_ns(), if that is measured */
	struct reply reply; /* the last word, where the last part isn't that */
};

struct part {
	struct part *next; /* of the idle ones */
	struct order *order;
	struct ndio_request *request;
	uint8_t *data; /* a span of the arena, or NULL */
	uint64_t offset, len;
	size_t filled; /* bytes of a write that have been received */
	size_t nr_extents;
	struct reply reply;
};

struct connection {
	struct connection_options options;
	struct connection_place place;
	struct connection_links links;
	struct arena arena;

	uint8_t *in;
	size_t in_at, in_end;
	uint64_t skip;        /* bytes to come that nobody wants, */
	struct order *skips;  /* and the one that they are of, which runs as long */
	struct order *order;  /* the one that isn't all split */
	struct part *filling; /* the one that the next bytes are for */
	struct order *alone;  /* one by one: no other begins before its end */
	int64_t now;          /* when what is being taken on came, or 0: not looked at yet */
	bool blocked;         /* for want of something */
	bool may_receive;     /* the last try didn't find the socket empty */
	bool has_ended;       /* no more requests are taken on */
	bool is_broken;       /* nothing can be sent any more */

	struct reply *replies, **replies_end;
	size_t sent; /* bytes of the first of them */
	bool send_blocked;
	struct teller teller; /* of what failed */

	unsigned nr_orders; /* in use */
	struct order *idle_orders;
	struct part *idle_parts;
	struct order orders[ORDERS];
	struct part parts[PARTS];
};

/* ---- replies ---- */

static void free_order(struct order *order)
{
	struct connection *connection = order->connection;

	order->next = connection->idle_orders;
	connection->idle_orders = order;
	connection->nr_orders--;
}

static void free_part(struct part *part)
{
	struct connection *connection = part->order->connection;

	part->next = connection->idle_parts;
	connection->idle_parts = part;
}

/* It was sent, or never will be. */
static void end_reply(struct connection *connection, struct reply *reply)
{
	if (reply->span)
		arena_give(&connection->arena, reply->span);
	if (reply->of_order)
		free_order(reply->owner);
	else
		free_part(reply->owner);
}

static void add_reply(struct connection *connection, struct reply *reply)
{
	if (connection->is_broken) {
		end_reply(connection, reply);
		return;
	}
	reply->next = NULL;
	*connection->replies_end = reply;
	connection->replies_end = &reply->next;
}

/* Nothing can be sent any more. */
static void break_off(struct connection *connection)
{
	struct reply *reply, *next;

	connection->is_broken = connection->has_ended = true;
	for (reply = connection->replies; reply; reply = next) {
		next = reply->next;
		end_reply(connection, reply);
	}
	connection->replies = NULL;
	connection->replies_end = &connection->replies;
	connection->sent = 0;
}

/* ---- orders that end ---- */

static enum op op_of(const struct command *command)
{
	switch (command->type) {
	case NBD_CMD_READ:
		return OP_READ;
	case NBD_CMD_WRITE:
		return OP_WRITE;
	case NBD_CMD_FLUSH:
		return OP_FLUSH;
	case NBD_CMD_TRIM:
		return OP_TRIM;
	case NBD_CMD_CACHE:
		return OP_CACHE;
	case NBD_CMD_WRITE_ZEROES:
		return OP_ZERO;
	default:
		return OP_EXTENTS;
	}
}

/* Its reply hasn't begun. */
static void refuse_order(struct order *order, uint32_t nbd_error, const char *words)
{
	struct connection *connection = order->connection;
	struct reply *reply = &order->reply;

	*reply = (struct reply){ .owner = order, .of_order = true };
	reply->head_len = reply_error(&connection->options.wire, &order->command, nbd_error, words,
				      NULL, reply->head);
	add_reply(connection, reply);
}

static void tell_order_failure(const struct order *order)
{
	struct connection *connection = order->connection;
	const struct volume *volume = connection->options.volume;
	const char *peer = connection->options.peer;
	enum op op = op_of(&order->command);

	/* For the one a client does something else; the other is no failure. */
	if (order->error == -EOPNOTSUPP || order->error == -ESHUTDOWN)
		return;
	teller_say(&connection->teller, peer,
		   "%s: %s: %s of %" PRIu64 " bytes at %" PRIu64 ": %s%s", volume->target->name,
		   peer, op_names[op], order->command.len, order->command.offset,
		   target_reason(volume->target, -order->error),
		   (op == OP_FLUSH || (order->command.flags & NBD_CMD_FLAG_FUA)) &&
				   syncs_error(&((struct volume *)volume)->syncs) ?
			   "; " SYNCS_FAILED :
			   "");
}

static bool is_counted(const struct order *order)
{
	return order->connection->place.meter && order->command.type <= NBD_CMD_BLOCK_STATUS;
}

/* What came together has one time. */
static void count_begin(struct order *order)
{
	struct connection *connection = order->connection;

	if (!is_counted(order))
		return;
	if (!connection->now)
		connection->now = clock_ns();
	order->since = connection->now;
	meter_begin(connection->place.meter, op_of(&order->command));
}

/* What nobody waits for any more hasn't failed. */
static void count_end(const struct order *order)
{
	const struct command *command = &order->command;
	bool is_lost = order->connection->is_broken && order->error == -ECONNRESET;
	int error = command->refuse ? (int)command->refuse : is_lost ? 0 : -order->error;

	if (is_counted(order))
		meter_end(order->connection->place.meter, op_of(command), order->since,
			  is_lost ? 0 : command->len, error);
}

static void abandon(struct connection *connection);

/* All its parts have ended; told: the last of them was the last word. */
static void end_order(struct order *order, bool told)
{
	struct connection *connection = order->connection;
	const struct transmission *wire = &connection->options.wire;
	struct reply *reply = &order->reply;

	count_end(order);
	if (connection->alone == order)
		connection->alone = NULL;
	if (order->error && !connection->is_broken)
		tell_order_failure(order);
	if (told) {
		free_order(order);
	} else if (order->command.refuse) {
		refuse_order(order, order->command.refuse, order->command.why);
	} else if (!order->error) {
		*reply = (struct reply){ .owner = order, .of_order = true };
		reply->head_len = reply_done(wire, &order->command, reply->head);
		add_reply(connection, reply);
	} else if (order->one_by_one && order->split > PART_MAX) {
		free_order(order);
		abandon(connection);
	} else {
		refuse_order(order, nbd_errno(-order->error), error_reason(-order->error));
	}
}

/* ---- parts ---- */

/* A read's. */
static void reply_by_part(struct part *part, bool is_last)
{
	struct order *order = part->order;
	struct connection *connection = order->connection;
	const struct transmission *wire = &connection->options.wire;
	struct reply *reply = &part->reply;

	*reply = (struct reply){
		.owner = part, .span = part->data, .data = part->data, .len = part->len
	};
	/* One whose parts follow each other is one chunk. */
	if (!order->one_by_one)
		reply->head_len = reply_data(wire, &order->command, part->offset, part->len,
					     is_last, reply->head);
	else if (part->offset == order->command.offset)
		reply->head_len = reply_data(wire, &order->command, part->offset,
					     order->command.len, true, reply->head);
	add_reply(connection, reply);
}

static void reply_with_extents(struct part *part)
{
	struct order *order = part->order;
	struct connection *connection = order->connection;
	struct reply *reply = &part->reply;
	uint8_t *encoded = part->data + EXTENTS_LEN;

	*reply = (struct reply){ .owner = part, .span = part->data, .data = encoded };
	reply->len = reply_extents(&connection->options.wire, &order->command,
				   (struct reply_extent *)part->data, part->nr_extents, encoded,
				   REPLY_EXTENTS_SIZE(EXTENTS_MAX));
	add_reply(connection, reply);
}

static void start_part(struct part *part);

static void skip_data(struct order *order, uint64_t len)
{
	struct connection *connection = order->connection;

	connection->skip = len;
	connection->skips = order;
	order->running++;
	order->all_split = true;
}

/* They have come, or never will. */
static void end_skip(struct connection *connection)
{
	struct order *order = connection->skips;

	connection->skip = 0;
	connection->skips = NULL;
	if (--order->running == 0)
		end_order(order, false);
}

/* What isn't split off yet needn't be; a write's data come all the same. */
static void fail_order(struct order *order, int error)
{
	struct connection *connection = order->connection;

	if (!order->error)
		order->error = error;
	order->all_split = true;
	if (connection->order != order)
		return;
	connection->order = NULL;
	if (order->command.type == NBD_CMD_WRITE)
		skip_data(order, order->command.len - order->split);
}

/* Of zeroes, which need nothing of the connection's: goes on with the next of them. False: there are
 * none. */
static bool start_rest(struct part *part)
{
	struct order *order = part->order;
	uint64_t left = order->command.len - order->split;

	if (op_of(&order->command) != OP_ZERO || left == 0 || order->connection->is_broken)
		return false;
	part->offset += part->len;
	part->len = min_u64(left, ZERO_MAX);
	order->split += part->len;
	order->all_split = order->split == order->command.len;
	start_part(part);
	return true;
}

static void end_part(struct part *part, int error)
{
	struct order *order = part->order;
	struct connection *connection = order->connection;
	bool is_last, told = false;

	if (!error && start_rest(part))
		return;
	order->running--;
	if (!error && connection->is_broken)
		error = -ECONNRESET; /* nobody hears of it */
	if (error)
		fail_order(order, error);
	is_last = order->running == 0 && order->all_split;
	if (!error && order->command.type == NBD_CMD_READ) {
		told = is_last && !order->error;
		reply_by_part(part, told);
	} else if (!error && part->nr_extents) {
		reply_with_extents(part);
		told = true;
	} else {
		if (part->data)
			arena_give(&connection->arena, part->data);
		free_part(part);
	}
	if (is_last)
		end_order(order, told);
	connection->place.touched(connection->place.waiter, connection);
}

void connection_done(struct ndio_request *request)
{
	struct part *part = request->opaque;
	int error = request->error;

	part->request = NULL;
	request_put(request, REF_CALLER);
	fence_leave(part->order->connection->options.fence);
	end_part(part, error == ENOUGH && part->nr_extents ? 0 : error);
}

static void done_by_worker(struct ndio_request *request)
{
	const struct part *part = request->opaque;
	const struct connection_place *place = &part->order->connection->place;

	place->done(place->waiter, request);
}

/* More than there is room for, or than is wanted, isn't told: the client asks again from there. */
static int part_add_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct part *part = opaque;
	struct reply_extent *extents = (struct reply_extent *)part->data;
	bool wants_one = part->order->command.flags & NBD_CMD_FLAG_REQ_ONE;

	(void)offset;
	if (part->nr_extents == EXTENTS_MAX ||
	    (wants_one && part->nr_extents > 0 && type != extents[0].flags))
		return ENOUGH;
	extents[part->nr_extents++] = (struct reply_extent){ .len = len, .flags = type };
	return 0;
}

static unsigned order_flags(const struct command *command)
{
	unsigned flags = command->flags & NBD_CMD_FLAG_FUA ? REQ_FUA : 0;

	if (command->type == NBD_CMD_WRITE_ZEROES) {
		flags |= command->flags & NBD_CMD_FLAG_NO_HOLE ? 0 : REQ_MAY_TRIM;
		flags |= command->flags & NBD_CMD_FLAG_FAST_ZERO ? REQ_FAST_ZERO : 0;
	}
	return flags;
}

/* As a request, if it isn't fenced. */
static int part_make_request(struct part *part)
{
	const struct command *command = &part->order->command;
	struct connection *connection = part->order->connection;
	const struct iovec iov = { part->data, part->len };
	int ret = fence_enter(connection->options.fence);

	if (ret < 0)
		return ret;
	ret = request_make(connection->options.volume, op_of(command), order_flags(command),
			   part->offset, part->len, &iov, 1, &part->request);
	if (ret < 0)
		fence_leave(connection->options.fence);
	return ret;
}

/* What a file does by a call that blocks, or at length, would hold up all that the loop has. And where
 * the loop's own way to the target is lost, workers may have others. */
static bool is_for_worker(const struct part *part)
{
	const struct command *command = &part->order->command;

	return !op_carries_data(op_of(command)) || command->flags & NBD_CMD_FLAG_FUA ||
	       part->len >= LARGE_MIN || !channel_is_up(part->order->connection->place.channel);
}

static void start_part(struct part *part)
{
	const struct connection_place *place = &part->order->connection->place;
	struct ndio_request *request;
	int ret = part_make_request(part);

	if (ret < 0) {
		end_part(part, ret);
		return;
	}
	request = part->request;
	request->done = connection_done;
	request->opaque = part;
	request->extent = part_add_extent;
	request->extent_opaque = part;
	if (place->workers && is_for_worker(part)) {
		request->done = done_by_worker;
		workers_submit(place->workers, request);
		return;
	}
	request->resume = place->resume;
	request->waiter = place->waiter;
	request_get(request, REF_CHANNEL);
	if (request_take_range(request))
		channel_start(place->channel, request);
}

/* Nobody is there any more: nothing else is begun. */
static void abandon(struct connection *connection)
{
	struct order *order = connection->order;
	struct part *part = connection->filling;

	break_off(connection);
	connection->may_receive = false;
	connection->filling = NULL;
	if (order) {
		order->running++; /* until the last line */
		fail_order(order, -ECONNRESET);
	}
	/* A write whose data never come. */
	if (connection->skips)
		end_skip(connection);
	if (part)
		end_part(part, -ECONNRESET);
	if (order && --order->running == 0)
		end_order(order, false);
}

/* ---- orders that begin ---- */

/* Bytes: whole huge pages. */
static size_t arena_share(void)
{
	return max_u64(ARENA_LEAST,
		       min_u64(ARENA, round_down(ARENAS / nr_connections, ARENA_LEAST)));
}

/* The next part of the order: with memory for len bytes. NULL: blocked. */
static struct part *take_part(struct connection *connection, uint64_t len, size_t memory)
{
	struct order *order = connection->order;
	struct part *part = connection->idle_parts;
	uint8_t *data = NULL;

	connection->arena.limit = arena_share() / ARENA_PAGE;
	if (part && memory)
		data = arena_take(&connection->arena, memory);
	if (!part || (memory && !data)) {
		connection->blocked = true;
		return NULL;
	}
	connection->idle_parts = part->next;
	part->order = order;
	part->data = data;
	part->offset = order->command.offset + order->split;
	part->len = len;
	part->filled = 0;
	part->nr_extents = 0;
	order->split += len;
	order->running++;
	order->all_split = order->split == order->command.len;
	if (order->all_split || op_of(&order->command) == OP_ZERO)
		connection->order = NULL; /* zeroes go on by themselves */
	return part;
}

static void start_filled(struct connection *connection, struct part *part)
{
	connection->filling = NULL;
	start_part(part);
}

/* From the buffer; the rest is received to its place. */
static void fill_part(struct connection *connection, struct part *part)
{
	size_t n = min_u64(part->len, connection->in_end - connection->in_at);

	memcpy(part->data, connection->in + connection->in_at, n);
	connection->in_at += n;
	part->filled = n;
	connection->filling = part;
	if (n == part->len)
		start_filled(connection, part);
}

/* The next part of the order; NULL: blocked. */
static struct part *split_off(struct connection *connection)
{
	const struct order *order = connection->order;
	const struct volume *volume = connection->options.volume;
	uint64_t left = order->command.len - order->split;

	switch (op_of(&order->command)) {
	case OP_READ:
	case OP_WRITE:
		left = order->is_whole ? left : min_u64(left, PART_MAX);
		return take_part(connection, left, left);
	case OP_ZERO:
		if (volume->encrypted || !volume->target->can_zero)
			left = min_u64(left, ZERO_MAX);
		return take_part(connection, left, 0);
	case OP_EXTENTS:
		return take_part(connection, left, EXTENTS_LEN + REPLY_EXTENTS_SIZE(EXTENTS_MAX));
	default:
		return take_part(connection, left, 0);
	}
}

/* True: some of it went on, or it is split. */
static bool split_order(struct connection *connection)
{
	const struct order *order = connection->order;
	struct part *part;

	/* The end of what is before it goes on. */
	if (order->one_by_one && (order->running || connection->nr_orders > 1)) {
		connection->blocked = true;
		return false;
	}
	part = split_off(connection);
	if (!part)
		return false;
	if (order->command.type == NBD_CMD_WRITE)
		fill_part(connection, part);
	else
		start_part(part);
	return true;
}

static void begin_order(struct connection *connection, struct order *order)
{
	const struct command *command = &order->command;
	bool one_chunk = command->type == NBD_CMD_READ && (!connection->options.wire.structured ||
							   (command->flags & NBD_CMD_FLAG_DF));

	order->is_whole = one_chunk && command->len <= WHOLE_MAX;
	order->one_by_one = one_chunk && command->len > WHOLE_MAX;
	if (command->refuse && command->payload) {
		skip_data(order, command->payload);
		return;
	}
	if (command->refuse) {
		count_end(order);
		refuse_order(order, command->refuse, command->why);
		return;
	}
	if (order->one_by_one)
		connection->alone = order;
	connection->order = order;
}

/* False: blocked, more bytes are needed, or there will be none. */
static bool begin_next(struct connection *connection)
{
	const struct transmission *wire = &connection->options.wire;
	size_t head = transmission_request_size(wire);
	struct order *order = connection->idle_orders;
	struct command command;
	int ret;

	if (connection->has_ended || connection->in_end - connection->in_at < head)
		return false;
	if (!order || connection->alone) {
		connection->blocked = true;
		return false;
	}
	ret = transmission_parse(wire, connection->in + connection->in_at, &command);
	if (ret < 0) {
		teller_say(&connection->teller, connection->options.peer,
			   "%s: %s: its connection is ended", connection->options.peer,
			   ret == -EMSGSIZE ? "a request of it carries far more than it may" :
					      "what it sends is not NBD");
		abandon(connection);
		return false;
	}
	connection->in_at += head;
	if (command.type == NBD_CMD_DISC) {
		connection->has_ended = true;
		return false;
	}
	connection->idle_orders = order->next;
	connection->nr_orders++;
	order->command = command;
	order->split = 0;
	order->all_split = false;
	order->running = 0;
	order->error = 0;
	count_begin(order);
	begin_order(connection, order);
	return true;
}

static bool skip(struct connection *connection)
{
	size_t n = min_u64(connection->skip, connection->in_end - connection->in_at);

	connection->skip -= n;
	connection->in_at += n;
	if (connection->skip > 0)
		return false;
	end_skip(connection);
	return true;
}

/* Whatever the buffer has. */
static void take_on(struct connection *connection)
{
	bool goes_on = true;

	connection->blocked = false;
	connection->now = 0;
	while (goes_on && !connection->is_broken && !connection->filling) {
		if (connection->skip)
			goes_on = skip(connection);
		else if (connection->order)
			goes_on = split_order(connection);
		else
			goes_on = begin_next(connection);
	}
	if (connection->in_at == connection->in_end)
		connection->in_at = connection->in_end = 0;
}

/* ---- the socket ---- */

/* The client sends no more. It may still be listening. */
static void end_of_stream(struct connection *connection)
{
	const struct order *order = connection->order;

	connection->has_ended = true;
	connection->may_receive = false;
	if (connection->filling || connection->skips ||
	    (order && order->command.type == NBD_CMD_WRITE))
		abandon(connection);
}

/* Bytes; 0: there are none now, or no more. */
static size_t connection_receive(struct connection *connection)
{
	struct part *part = connection->filling;
	struct iovec iov[2];
	size_t asked = 0;
	unsigned count = 0;
	ssize_t n;

	if (connection->in_at > 0) {
		memmove(connection->in, connection->in + connection->in_at,
			connection->in_end - connection->in_at);
		connection->in_end -= connection->in_at;
		connection->in_at = 0;
	}
	if (part)
		iov[count++] =
			(struct iovec){ part->data + part->filled, part->len - part->filled };
	if (connection->in_end < IN_SIZE)
		iov[count++] = (struct iovec){ connection->in + connection->in_end,
					       IN_SIZE - connection->in_end };
	for (unsigned i = 0; i < count; i++)
		asked += iov[i].iov_len;
	n = stream_receive(&connection->options.stream, iov, count);
	connection->may_receive = (size_t)n == asked || connection->options.stream.ssl;
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			end_of_stream(connection);
		connection->may_receive = n < 0 && errno == EINTR;
		return 0;
	}
	if (part) {
		size_t filled = min_u64(n, part->len - part->filled);

		part->filled += filled;
		connection->in_end += n - filled;
		if (part->filled == part->len)
			start_filled(connection, part);
	} else {
		connection->in_end += n;
	}
	return n;
}

static bool wants_bytes(const struct connection *connection)
{
	if (connection->is_broken || (connection->has_ended && !connection->filling &&
				      !connection->order && !connection->skip))
		return false;
	return connection->filling || !connection->blocked;
}

/* Moves on over what was sent. */
static void count_sent(struct connection *connection, size_t n)
{
	struct reply *reply;

	connection->sent += n;
	while ((reply = connection->replies) && connection->sent >= reply->head_len + reply->len) {
		connection->sent -= reply->head_len + reply->len;
		connection->replies = reply->next;
		if (!connection->replies)
			connection->replies_end = &connection->replies;
		end_reply(connection, reply);
	}
}

static size_t gather_replies(const struct connection *connection, struct iovec iov[IOVS])
{
	size_t count = 0, passed = connection->sent;

	for (struct reply *reply = connection->replies; reply && count + 2 <= IOVS;
	     reply = reply->next) {
		const struct iovec pieces[2] = { { reply->head, reply->head_len },
						 { (void *)reply->data, reply->len } };

		for (int i = 0; i < 2; i++) {
			size_t cut = min_u64(passed, pieces[i].iov_len);

			passed -= cut;
			if (cut < pieces[i].iov_len)
				iov[count++] = (struct iovec){ (uint8_t *)pieces[i].iov_base + cut,
							       pieces[i].iov_len - cut };
		}
	}
	return count;
}

/* True: some reply has gone, and what it held is free. */
static bool send_replies(struct connection *connection)
{
	const struct reply *first = connection->replies;
	struct iovec iov[IOVS];

	connection->send_blocked = false;
	while (connection->replies) {
		ssize_t n = stream_send(&connection->options.stream, iov,
					gather_replies(connection, iov));

		if (n >= 0) {
			count_sent(connection, n);
		} else if (errno == EAGAIN) {
			connection->send_blocked = true;
			break;
		} else if (errno != EINTR) {
			abandon(connection);
		}
	}
	return first && connection->replies != first;
}

void connection_go_on(struct connection *connection)
{
	size_t received = 0, n;

	connection->may_receive = true;
	for (;;) {
		take_on(connection);
		if (send_replies(connection) && connection->blocked)
			continue;
		if (!wants_bytes(connection) || !connection->may_receive)
			return;
		if (received >= ROUND_MAX) {
			/* What TLS has of it already, epoll knows nothing of. */
			connection->place.touched(connection->place.waiter, connection);
			return;
		}
		n = connection_receive(connection);
		if (n == 0)
			return;
		received += n;
	}
}

/* ---- from its beginning to its end ---- */

int connection_open(const struct connection_options *options, struct connection **result)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	uint8_t *in = malloc(IN_SIZE);
	struct stream stream = options->stream;

	assert(options->ahead_len <= CONNECTION_AHEAD);
	if (!connection || !in || arena_init(&connection->arena, ARENA) < 0) {
		free(connection);
		free(in);
		fence_close(options->fence);
		stream_close(&stream, false);
		return -ENOMEM;
	}
	atomic_fetch_add(&nr_connections, 1);
	connection->options = *options;
	connection->in = in;
	connection->in_end = options->ahead_len;
	memcpy(in, options->ahead, options->ahead_len);
	connection->replies_end = &connection->replies;
	for (int i = 0; i < ORDERS; i++) {
		connection->orders[i].connection = connection;
		connection->orders[i].next = connection->idle_orders;
		connection->idle_orders = &connection->orders[i];
	}
	for (int i = 0; i < PARTS; i++) {
		connection->parts[i].next = connection->idle_parts;
		connection->idle_parts = &connection->parts[i];
	}
	*result = connection;
	return 0;
}

void connection_close(struct connection *connection)
{
	assert(connection->nr_orders == 0);
	atomic_fetch_sub(&nr_connections, 1);
	teller_go_on(&connection->teller, connection->options.peer, true);
	arena_destroy(&connection->arena);
	OPENSSL_cleanse(connection->in, IN_SIZE);
	free(connection->in);
	fence_close(connection->options.fence);
	stream_close(&connection->options.stream, !connection->is_broken);
	free(connection);
}

void connection_place(struct connection *connection, const struct connection_place *place)
{
	connection->place = *place;
}

void connection_trim(struct connection *connection)
{
	connection->arena.limit = arena_share() / ARENA_PAGE;
	arena_trim(&connection->arena);
}

void connection_stop(struct connection *connection, bool now)
{
	connection->has_ended = true;
	if (now)
		abandon(connection);
}

uint32_t connection_events(const struct connection *connection)
{
	return (wants_bytes(connection) ? (uint32_t)EPOLLIN : 0) |
	       (connection->send_blocked ? (uint32_t)EPOLLOUT : 0);
}

bool connection_is_over(const struct connection *connection)
{
	return connection->has_ended && connection->nr_orders == 0 && !connection->replies;
}

int connection_fd(const struct connection *connection)
{
	return connection->options.stream.fd;
}

struct connection_links *connection_links(struct connection *connection)
{
	return &connection->links;
}
