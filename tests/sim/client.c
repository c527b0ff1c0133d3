/* What sits on a session: links, each with a thread of its own (so they learn of what there is to
 * do some time later), a thread that dials, and callers, each with one request at a time. Callers
 * don't change what another is changing: that is the engine's promise to a session. */
#include <errno.h>
#include <stddef.h>

#include "sim.h"

#define FIRST_BLOCK(client) ((client)->number * BLOCKS)

static void turn(struct client *client);
static void caller_goes(struct sim *sim, void *what, uint64_t unused);

/* ---- records ---- */

static struct record *record_take(struct client *client)
{
	struct record *record = client->free;

	if (record)
		client->free = record->next;
	else
		record = sim_alloc(client->sim, sizeof(*record));
	*record = (struct record){ .cost = 0 };
	return record;
}

static void record_free(struct client *client, struct record *record)
{
	record->next = client->free;
	client->free = record;
}

static struct record *to_record(struct session_record *record)
{
	return (struct record *)((char *)record - offsetof(struct record, record));
}

static uint64_t bytes_of(const struct session_op *op)
{
	return op->op == OP_WRITE ? op->len : 0;
}

/* Counted here, not as the session counts; but not what it has given back. */
static void check_memory(struct client *client)
{
	int64_t bytes = client->bytes;

	for (struct session_record *each = client->session.released; each; each = each->next)
		bytes -= bytes_of(&each->op);
	if (bytes > (int64_t)client->session.options.unflushed ||
	    client->session.kept + client->session.reserved > client->session.options.unflushed)
		sim_wrong(client->sim, "memory", "the log takes more than it may");
}

/* Of which may be told first: that it is kept, or that it is released. */
static void record_moves(struct client *client, struct record *record, bool kept)
{
	record->kept |= kept;
	record->released |= !kept;
	if (record->kept && record->released)
		record_free(client, record);
}

/* ---- links ---- */

static unsigned pages_of(const struct client *client, uint64_t start)
{
	return start / BLOCK - FIRST_BLOCK(client);
}

static void silence(struct sim *sim, void *what, uint64_t unused)
{
	struct command *command = what;

	(void)unused;
	if (command->answered || !command->conn->client_open)
		return;
	sim->counts[COUNT_SILENCE]++;
	client_lost(sim, command->conn, 0);
}

static void send_it(struct client *client, unsigned link, struct session_op *op)
{
	struct sim *sim = client->sim;
	struct command *command = sim_alloc(sim, sizeof(*command));

	*command = (struct command){
		.conn = client->conn[link],
		.op = op,
		.epoch = client->session.epoch,
		.what = op->flush ? OP_FLUSH : op->op,
		.fua = (op->flags & REQ_FUA) && sim->options.can_fua,
		.start = op->op == OP_FLUSH ? 0 : pages_of(client, op->start),
		.len = op->len / BLOCK,
		.value = (uintptr_t)op->data,
	};
	sim->counts[COUNT_OWN_FLUSHES] += op == &client->session.own;
	sim->counts[COUNT_FUA_FLUSHES] += op->flush && op->record && sim->options.can_fua;
	sim_note(sim, "client %u link %u epoch %lu sends %d at %u+%u value %lu%s", client->number,
		 link, (unsigned long)command->epoch, command->what, command->start, command->len,
		 (unsigned long)command->value, op->internal ? " (the session's)" : "");
	if (!command->conn || !command->conn->client_open) {
		sim_wrong(sim, "no connection", "told to send where there is none");
		return;
	}
	network_send(sim, command);
	sim_at(sim, sim->now + sim->options.answer, silence, command, 0);
}

static void complete(struct client *client, struct session_op *op)
{
	struct caller *caller = (struct caller *)((char *)op - offsetof(struct caller, op));
	struct sim *sim = client->sim;
	bool changes = op->op == OP_WRITE || op->op == OP_ZERO || op->op == OP_TRIM;

	sim_note(sim, "client %u caller %d: done %d at %u+%u value %lu: %ld", client->number,
		 (int)(caller - client->caller), op->op, caller->start, caller->len,
		 (unsigned long)caller->value, (long)op->result);
	sim_hash(sim, op->result);
	sim->counts[COUNT_DONE]++;
	check_done(caller);
	if (caller->completions > 1)
		return;
	for (unsigned i = 0; changes && i < caller->len; i++)
		client->changing[caller->start + i]--;
	if (op->record && op->kept)
		record_moves(client, to_record(op->record), true);
	else if (op->record)
		record_free(client, to_record(op->record));
	if (op->record && op->kept)
		client->memory++, client->bytes += bytes_of(op);
	caller->busy = false;
	client->flushed |= client->phase == PHASE_FLUSH && op->result >= 0;
	sim_at(sim, sim->now + sim_random(sim, op->result < 0 ? 800 : sim->options.think),
	       caller_goes, caller, 0);
}

/* The thread of a link. */
static void link_runs(struct client *client, unsigned link)
{
	struct session_record *record;
	struct session_op *op;

	for (;;) {
		switch (session_next(&client->session, link, &op, &record, client->sim->now)) {
		case SESSION_NOTHING:
			return;
		case SESSION_END:
			sim_note(client->sim, "client %u link %u ends", client->number, link);
			network_close(client->sim, client->conn[link]);
			break;
		case SESSION_DONE:
			complete(client, op);
			break;
		case SESSION_RELEASE:
			client->memory--, client->bytes -= bytes_of(&record->op);
			record_moves(client, to_record(record), false);
			break;
		case SESSION_SEND:
			send_it(client, link, op);
			break;
		}
	}
}

static void wakes(struct sim *sim, void *what, uint64_t link)
{
	struct client *client = what;

	(void)sim;
	client->woken[link] = false;
	link_runs(client, link);
	turn(client);
}

/* ---- dialling ---- */

static void dial_takes_too_long(struct sim *sim, void *what, uint64_t unused)
{
	struct conn *conn = what;

	(void)unused;
	if (conn->client_open && conn->client->conn[conn->link] != conn)
		client_lost(sim, conn, 0);
}

static void dial(struct client *client, unsigned link)
{
	struct sim *sim = client->sim;
	uint64_t epoch = HAS_BUG(BUG_NO_FENCE) ? 1 : client->session.epoch;
	struct conn *conn = network_dial(sim, client, link, epoch);

	conn->epoch = epoch;
	conn->dialled = client->session.epoch;
	sim->counts[COUNT_DIALS]++;
	sim_note(sim, "client %u link %u dials in epoch %lu", client->number, link,
		 (unsigned long)client->session.epoch);
	sim_at(sim, sim->now + sim->options.answer, dial_takes_too_long, conn, 0);
}

void client_welcomed(struct sim *sim, struct conn *conn, const struct session_identity *identity)
{
	struct client *client = conn->client;
	struct conn *before = client->conn[conn->link];

	client->conn[conn->link] = conn;
	if (!session_connected(&client->session, conn->link, conn->dialled, identity, sim->now)) {
		client->conn[conn->link] = before;
		network_close(sim, conn);
	}
	link_runs(client, conn->link);
	turn(client);
}

void client_lost(struct sim *sim, void *what, uint64_t unused)
{
	struct conn *conn = what;
	struct client *client = conn->client;

	(void)unused;
	if (!conn->client_open)
		return;
	if (client->conn[conn->link] != conn)
		network_close(sim, conn);
	sim_note(sim, "client %u link %u lost", client->number, conn->link);
	session_lost(&client->session, conn->link, conn->dialled, sim->now);
	link_runs(client, conn->link);
	turn(client);
}

/* Whoever has its record's memory says that there is none. */
static void perhaps_without_place(struct client *client, const struct command *command)
{
	struct session_op *op = command->op;
	struct sim *sim = client->sim;

	if (command->epoch != client->session.epoch || command->result < 0 || op->internal ||
	    command->what == OP_FLUSH || !op->record || op->kept ||
	    !session_wants_copy(&client->session, op) || !sim_chance(sim, 20))
		return;
	sim->counts[COUNT_PLACELESS]++;
	record_free(client, to_record(op->record));
	op->record = NULL;
}

void client_answered(struct sim *sim, struct command *command)
{
	struct client *client = command->conn->client;
	struct session_op *op = command->op;
	struct caller *caller = (struct caller *)((char *)op - offsetof(struct caller, op));
	int64_t result = command->result;

	command->answered = true;
	for (unsigned i = 0; result >= 0 && command->what == OP_READ && i < command->len; i++) {
		if (!op->internal)
			caller->values[i] = command->values[i];
		else if (command->values[i] != command->value)
			result = 0;
	}
	perhaps_without_place(client, command);
	session_landed(&client->session, op, command->epoch, result, sim->now);
	link_runs(client, command->conn->link);
	turn(client);
}

/* ---- time ---- */

static void timer(struct sim *sim, void *what, uint64_t at)
{
	struct client *client = what;

	if (client->timer_at == (int64_t)at)
		client->timer_at = NEVER;
	session_time(&client->session, sim->now);
	turn(client);
}

static void hear_news(struct client *client)
{
	struct sim *sim = client->sim;
	enum session_state state;

	if (!session_news(&client->session, &state))
		return;
	sim_note(sim, "client %u: state %d", client->number, state);
	sim_hash(sim, state);
	sim->counts[COUNT_LOST] += state == SESSION_WAITING && client->session.times_lost > 0;
	sim->counts[COUNT_RECOVERED] += state == SESSION_UP;
	sim->counts[COUNT_GIVEN_UP] += state == SESSION_GIVEN_UP;
	sim->counts[COUNT_ENDED] += state == SESSION_ENDED && !client->finished;
	if (state == SESSION_WAITING)
		client->lost_at = sim->now;
	if (state == SESSION_GIVEN_UP && sim->now - client->lost_at < sim->options.reconnect)
		sim_wrong(sim, "impatient", "client %u gave up after %lld ms", client->number,
			  (long long)(sim->now - client->lost_at));
	client->gave_up |= state == SESSION_GIVEN_UP;
	client->ended |= state == SESSION_ENDED;
}

/* A thread that has something else to do. */
static int64_t how_late(struct sim *sim)
{
	return sim_random(sim, sim_chance(sim, sim->options.fences ? 5 : 40) ? 300 :
			       sim_chance(sim, 50)                           ? 20 :
									       2);
}

/* What follows from an event, whichever it was. */
static void turn(struct client *client)
{
	struct session *session = &client->session;
	struct sim *sim = client->sim;
	uint64_t busy = session_busy(session);
	int64_t at;
	unsigned link;

	hear_news(client);
	check_memory(client);
	for (link = 0; link < sim->options.links; link++) {
		if (!(busy >> link & 1) || client->woken[link])
			continue;
		client->woken[link] = true;
		sim_at(sim, sim->now + how_late(sim), wakes, client, link);
	}
	while (session_dial(session, &link, sim->now))
		dial(client, link);
	at = session_wake_at(session);
	if (at < client->timer_at) {
		client->timer_at = at;
		sim_at(sim, at > sim->now ? at : sim->now, timer, client, at);
	}
}

/* ---- callers ---- */

static bool is_changing(const struct client *client, const struct caller *caller)
{
	for (unsigned i = 0; i < caller->len; i++)
		if (client->changing[caller->start + i])
			return true;
	return false;
}

static void issue(struct caller *caller, enum op what, unsigned flags)
{
	struct client *client = caller->client;
	struct sim *sim = client->sim;
	bool changes = what == OP_WRITE || what == OP_ZERO || what == OP_TRIM;
	bool has_record = what == OP_WRITE || what == OP_ZERO;

	caller->value = changes ? ++sim->last_value : 0;
	caller->busy = true;
	caller->completions = 0;
	caller->issued = sim->now;
	caller->op = (struct session_op){
		.op = what,
		.flags = flags,
		.start = what == OP_FLUSH ? 0 :
					    (uint64_t)(FIRST_BLOCK(client) + caller->start) * BLOCK,
		.len = what == OP_FLUSH ? 0 : (uint64_t)caller->len * BLOCK,
		.data = (void *)(uintptr_t)caller->value,
		.link = (caller - client->caller) % sim->options.links,
		.record = has_record ? &record_take(client)->record : NULL,
	};
	if (has_record)
		caller->op.record->op.data = caller->op.data;
	for (unsigned i = 0; changes && i < caller->len; i++)
		client->changing[caller->start + i]++;
	sim->counts[COUNT_READS] += what == OP_READ;
	sim->counts[COUNT_WRITES] += what == OP_WRITE;
	sim->counts[COUNT_ZEROES] += what == OP_ZERO;
	sim->counts[COUNT_TRIMS] += what == OP_TRIM;
	sim->counts[COUNT_FLUSHES] += what == OP_FLUSH;
	sim->counts[COUNT_FUA] += (flags & REQ_FUA) != 0;
	check_issued(caller);
	sim_note(sim, "client %u caller %d: issues %d at %u+%u value %lu%s", client->number,
		 (int)(caller - client->caller), what, caller->start, caller->len,
		 (unsigned long)caller->value, flags & REQ_FUA ? " FUA" : "");
	session_issue(&client->session, &caller->op, sim->now);
	link_runs(client, caller->op.link);
	turn(client);
}

static void issue_any(struct caller *caller)
{
	struct sim *sim = caller->client->sim;
	bool can_flush = sim->options.can_flush;
	unsigned which = sim_random(sim, 100), flags;
	enum op what = which < 35 ? OP_READ :
		       which < 72 ? OP_WRITE :
		       which < 80 ? OP_ZERO :
		       which < 88 ? OP_TRIM :
				    OP_FLUSH;

	caller->len = 1 + sim_random(sim, MOST_BLOCKS);
	caller->start = sim_random(sim, sim->options.blocks - caller->len + 1);
	if (what == OP_FLUSH && !can_flush)
		what = OP_READ;
	if (what != OP_READ && what != OP_FLUSH && is_changing(caller->client, caller))
		what = OP_READ;
	flags = what != OP_READ && what != OP_FLUSH && can_flush && sim_chance(sim, 200) ? REQ_FUA :
											   0;
	caller->left--;
	issue(caller, what, flags);
}

static bool all_idle(const struct client *client)
{
	for (unsigned i = 0; i < client->sim->options.callers; i++)
		if (client->caller[i].busy || (client->caller[i].left && !client->ended))
			return false;
	return true;
}

static void check_end(struct client *client)
{
	struct sim *sim = client->sim;

	client->phase = PHASE_OVER;
	client->finished = true;
	if (client->flushed && client->session.kept != 0)
		sim_wrong(sim, "memory", "the log isn't empty after a flush");
}

/* After the load: what has been written is flushed, and read. */
static void end_phases(struct client *client)
{
	struct caller *caller = &client->caller[0];

	if (!all_idle(client) || client->finished)
		return;
	if (client->phase == PHASE_LOAD) {
		client->phase = PHASE_FLUSH;
		if (client->sim->options.can_flush) {
			issue(caller, OP_FLUSH, 0);
			return;
		}
	}
	if (client->reading >= client->sim->options.blocks || client->ended) {
		check_end(client);
		return;
	}
	client->phase = PHASE_READ;
	caller->start = client->reading;
	caller->len = client->sim->options.blocks - client->reading;
	if (caller->len > MOST_BLOCKS)
		caller->len = MOST_BLOCKS;
	client->reading += caller->len;
	issue(caller, OP_READ, 0);
}

static void caller_goes(struct sim *sim, void *what, uint64_t unused)
{
	struct caller *caller = what;

	(void)sim;
	(void)unused;
	if (caller->busy)
		return;
	if (caller->left && !caller->client->ended)
		issue_any(caller);
	else
		end_phases(caller->client);
}

void client_start(struct client *client)
{
	struct sim *sim = client->sim;
	const struct session_options options = {
		.links = sim->options.links,
		.unflushed = sim->options.unflushed,
		.reconnect = sim->options.reconnect,
		.quiesce = sim->options.quiesce,
		.seed = sim_random(sim, UINT64_MAX),
	};

	struct session_identity disk;

	client->timer_at = NEVER;
	server_identify(sim, &disk);
	session_init(&client->session, &options, &disk, sim->now);
	for (unsigned i = 0; i < sim->options.callers; i++) {
		client->caller[i].client = client;
		client->caller[i].left = sim->options.ops;
		sim_at(sim, sim_random(sim, 10), caller_goes, &client->caller[i], 0);
	}
	turn(client);
}

/* Closed, whatever it is doing: then everybody has been told, and all memory is given back. */
void client_stop(struct client *client)
{
	struct sim *sim = client->sim;

	client->finished = true;
	session_end(&client->session, -ECANCELED, sim->now);
	for (unsigned link = 0; link < sim->options.links; link++)
		link_runs(client, link);
	turn(client);
	for (unsigned i = 0; i < sim->options.callers; i++)
		if (client->caller[i].busy)
			sim_wrong(sim, "lost", "client %u caller %u was never told", client->number,
				  i);
	if (client->memory != 0 || client->session.kept != 0 || client->session.reserved != 0)
		sim_wrong(sim, "memory", "%lld records were never released",
			  (long long)client->memory);
}

bool clients_finished(const struct sim *sim)
{
	for (unsigned i = 0; i < sim->options.clients; i++)
		if (!sim->client[i].finished)
			return false;
	return true;
}
