/* A server with its disk: what it wrote is cached until a flush, or until the disk pleases. A
 * request takes its time, changes block by block, and is run whether or not its connection still
 * stands.
 *
 * With a fence: opening a newer epoch of a session makes older connections of it answer
 * ESHUTDOWN, and waits until what they run has ended; an older epoch is refused. A session is
 * forgotten with its last connection. */
#include <errno.h>
#include <string.h>

#include "sim.h"

static bool is_gone(const struct sim *sim, const struct conn *conn)
{
	return !sim->server.alive || conn->generation != sim->server.generation;
}

/* A process that is stopped does all later. */
static bool is_hung(struct sim *sim, event_fn *run, void *what)
{
	if (sim->server.hung_until <= sim->now)
		return false;
	sim_at(sim, sim->server.hung_until, run, what, 0);
	return true;
}

void server_identify(struct sim *sim, struct session_identity *identity)
{
	uint64_t generation = sim->server.generation;

	*identity = (struct session_identity){
		.fences = sim->options.fences,
		.has_instance = sim->options.fences,
		.size = sim->options.clients * BLOCKS * BLOCK,
		.facts = 5,
		.can_flush = sim->options.can_flush,
		.can_fua = sim->options.can_fua,
	};
	if (sim->options.fences)
		memcpy(identity->instance, &generation, sizeof(generation));
	if (sim->server.stranger && generation % 3 == 0)
		identity->size -= BLOCK;
	else if (sim->server.stranger && generation % 3 == 1)
		identity->facts |= 2;
	else if (sim->server.stranger)
		identity->header[7] = 1;
}

/* ---- connections ---- */

static void forget_conn(struct sim *sim, struct conn *conn)
{
	struct conn **at = &sim->server.conns;
	bool others = false;

	conn->server_open = false;
	while (*at != conn)
		at = &(*at)->next;
	*at = conn->next;
	for (struct conn *each = sim->server.conns; each; each = each->next)
		others |= each->client == conn->client;
	if (!others)
		sim->server.newest[conn->client->number] = 0;
}

static bool must_wait(const struct sim *sim, const struct conn *conn)
{
	for (const struct conn *each = sim->server.conns; each; each = each->next)
		if (each->client == conn->client && each->epoch < conn->epoch && each->running > 0)
			return true;
	return false;
}

static void let_in(struct sim *sim, struct conn *conn)
{
	if (conn->welcomed || conn->closing)
		return;
	if (sim->options.fences && must_wait(sim, conn)) {
		sim->counts[COUNT_FENCE_WAITS]++;
		return;
	}
	conn->welcomed = true;
	network_welcome(sim, conn);
}

void server_hello(struct sim *sim, void *what, uint64_t unused)
{
	struct conn *conn = what;
	uint64_t *newest = &sim->server.newest[conn->client->number];

	(void)unused;
	if (is_hung(sim, server_hello, what))
		return;
	conn->generation = sim->server.generation;
	if (is_gone(sim, conn) || (sim->options.fences && conn->epoch < *newest)) {
		sim->counts[COUNT_REFUSED]++;
		network_refuse(sim, conn);
		return;
	}
	*newest = conn->epoch;
	conn->server_open = true;
	conn->next = sim->server.conns;
	sim->server.conns = conn;
	let_in(sim, conn);
}

void server_reset(struct sim *sim, void *what, uint64_t unused)
{
	struct conn *conn = what;

	(void)unused;
	if (!conn->server_open || is_gone(sim, conn) || is_hung(sim, server_reset, what))
		return;
	conn->closing = true;
	if (conn->running == 0)
		forget_conn(sim, conn);
}

/* ---- the disk ---- */

static struct block *blocks_of(struct sim *sim, const struct command *command)
{
	return &sim->disk[command->conn->client->number * BLOCKS + command->start];
}

static void change(struct block *block, const struct command *command)
{
	block->older = block->cached;
	block->cached = command->value;
	block->lost = false;
	if (command->fua)
		block->stable = block->older = block->cached;
}

static void flush(struct sim *sim)
{
	for (unsigned i = 0; i < CLIENTS * BLOCKS; i++)
		if (!sim->disk[i].lost)
			sim->disk[i].stable = sim->disk[i].older = sim->disk[i].cached;
}

/* What a flush that fails should have written is taken for written from then on. */
static void fail_flush(struct sim *sim, struct command *command)
{
	command->result = -EIO;
	sim->server.flush_fails = true;
	if (command->what != OP_FLUSH)
		return;
	sim->server.told = true;
	for (unsigned i = 0; i < CLIENTS * BLOCKS; i++)
		sim->disk[i].lost |= sim->disk[i].cached != sim->disk[i].stable;
}

static void run_part(struct sim *sim, struct command *command, unsigned from, unsigned to)
{
	struct block *block = blocks_of(sim, command);

	for (unsigned i = from; i < to; i++) {
		if (command->what == OP_READ)
			command->values[i] = block[i].cached;
		else if (command->what != OP_TRIM || !sim_chance(sim, 200))
			change(&block[i], command);
	}
}

/* Does what an ended connection left stay in the server for too long to be survived? */
static bool is_overdue(struct sim *sim, const struct conn *conn)
{
	if (sim->options.fences || conn->ended == NEVER ||
	    sim->now < conn->ended + sim->options.quiesce)
		return false;
	sim->counts[COUNT_UNPROMISED] += sim->options.beyond;
	return !sim->options.beyond;
}

/* ---- requests ---- */

static void end_request(struct sim *sim, struct command *command)
{
	struct conn *conn = command->conn, *next;

	conn->running--;
	network_answer(sim, command);
	if (conn->closing && conn->running == 0)
		forget_conn(sim, conn);
	for (struct conn *each = sim->server.conns; each; each = next) {
		next = each->next;
		let_in(sim, each);
	}
}

static void second_part(struct sim *sim, void *what, uint64_t unused)
{
	struct command *command = what;
	bool is_data = command->what == OP_READ || command->what == OP_WRITE ||
		       command->what == OP_ZERO || command->what == OP_TRIM;

	(void)unused;
	if (is_gone(sim, command->conn)) {
		sim->counts[COUNT_TORN]++;
		return;
	}
	if (is_hung(sim, second_part, what))
		return;
	if (is_data && command->result >= 0 && !is_overdue(sim, command->conn))
		run_part(sim, command, command->len / 2, command->len);
	end_request(sim, command);
}

/* A server with a fence is ours, and tells of it each time. */
static bool must_fail(struct sim *sim, const struct command *command)
{
	bool syncs = command->what == OP_FLUSH || command->fua;

	if (sim->options.fences && sim->server.told && syncs)
		return true;
	if (sim->options.flaky && syncs && command->conn->ended != NEVER && sim_chance(sim, 500))
		return true;
	return sim->options.flaky && !sim->server.calm && command->what != OP_READ &&
	       sim_chance(sim, syncs ? 80 : 3);
}

static void first_part(struct sim *sim, void *what, uint64_t unused)
{
	struct command *command = what;

	(void)unused;
	if (is_gone(sim, command->conn) || is_hung(sim, first_part, what))
		return;
	if (command->conn->ended != NEVER)
		sim->counts[COUNT_LATE_COMMANDS]++;
	command->result = (uint64_t)command->len * BLOCK;
	if (is_overdue(sim, command->conn))
		command->result = 0;
	else if (must_fail(sim, command))
		fail_flush(sim, command);
	else if (command->what == OP_FLUSH)
		command->result = 0, flush(sim);
	else
		run_part(sim, command, 0, command->len / 2);
	sim_at(sim, sim->now + sim_random(sim, command->what == OP_FLUSH ? 6 : 3), second_part,
	       command, 0);
}

void server_request(struct sim *sim, void *what, uint64_t unused)
{
	struct command *command = what;
	struct conn *conn = command->conn;
	int64_t at = sim->now + sim_random(sim, sim_chance(sim, 50) ? 30 : 3);

	(void)unused;
	if (is_gone(sim, conn) || !conn->server_open || conn->closing ||
	    is_hung(sim, server_request, what))
		return;
	if (sim->server.stranger) {
		sim_wrong(sim, "stranger", "another disk was sent a request");
		return;
	}
	if (sim->server.leaves ||
	    (sim->options.fences && conn->epoch < sim->server.newest[conn->client->number])) {
		sim->counts[COUNT_FENCED] += !sim->server.leaves;
		sim->counts[COUNT_LEAVING] += sim->server.leaves;
		command->result = -ESHUTDOWN;
		network_answer(sim, command);
		return;
	}
	if (sim->server.stalled_until > at)
		at = sim->server.stalled_until;
	conn->running++;
	sim_at(sim, at, first_part, command, 0);
}

/* ---- faults ---- */

static void lose_cache(struct sim *sim)
{
	for (unsigned i = 0; i < CLIENTS * BLOCKS; i++) {
		struct block *block = &sim->disk[i];
		unsigned which = sim_random(sim, 4);

		sim->counts[COUNT_FORGOTTEN] += block->cached != block->stable && which < 3;
		block->cached = which < 2  ? block->stable :
				which == 2 ? block->older :
					     block->cached;
		block->stable = block->older = block->cached;
		block->lost = false;
	}
}

void server_crash(struct sim *sim, bool forgets, bool stranger)
{
	struct conn *next;

	if (!sim->server.alive)
		return;
	sim->server.alive = false;
	sim->server.stranger = stranger;
	for (struct conn *conn = sim->server.conns; conn; conn = next) {
		next = conn->next;
		conn->server_open = false;
		if (sim_chance(sim, 900))
			network_refuse(sim, conn);
	}
	sim->server.conns = NULL;
	memset(sim->server.newest, 0, sizeof(sim->server.newest));
	if (forgets)
		lose_cache(sim);
	sim_at(sim, sim->now + sim_random(sim, sim_chance(sim, 500) ? 50 : 2000), server_start,
	       NULL, 0);
}

static void leaves_now(struct sim *sim, void *unused, uint64_t generation)
{
	(void)unused;
	if (sim->server.generation == generation)
		server_crash(sim, false, false);
}

void server_leave(struct sim *sim)
{
	sim->server.leaves = sim->server.alive;
	sim_at(sim, sim->now + sim_random(sim, 50), leaves_now, NULL, sim->server.generation);
}

void server_start(struct sim *sim, void *unused, uint64_t unused2)
{
	(void)unused;
	(void)unused2;
	if (sim->server.alive)
		return;
	sim->server.alive = true;
	sim->server.generation++;
	sim->server.told = sim->server.leaves = false;
	sim->server.hung_until = sim->server.stalled_until = 0;
	sim_note(sim, "server starts as %lu", (unsigned long)sim->server.generation);
}

void server_calm(struct sim *sim)
{
	sim->server.hung_until = sim->server.stalled_until = 0;
	sim->server.calm = true;
}
