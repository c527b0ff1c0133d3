/* Each block is an atomic register, written by one at a time: a read gets the last acknowledged
 * value or the one being written, and none older than what a read before it has got. A flush that
 * succeeds, or a write with FUA, means that the disk has what had been acknowledged when it was
 * asked for, from then on. After a trim anything may be read until the next write is
 * acknowledged; a write that failed may have come to pass or not, and is promised nothing. */
#include <errno.h>

#include "sim.h"

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void check_issued(struct caller *caller)
{
	const struct session_op *op = &caller->op;

	for (unsigned i = 0; op->op == OP_FLUSH && i < BLOCKS; i++)
		caller->acked[i] = caller->client->seen[i].acked;
	for (unsigned i = 0; op->op != OP_FLUSH && i < caller->len; i++) {
		struct seen *seen = &caller->client->seen[caller->start + i];

		caller->floor[i] = seen->floor;
		if (op->op == OP_READ)
			continue;
		seen->newest = seen->pending = caller->value;
		if (op->op != OP_TRIM)
			continue;
		seen->loose = true;
		seen->floor = seen->acked = seen->durable = 0;
	}
}

/* Its failure is on its way to a caller, who may be told after others: it is promised nothing any more. */
static bool has_failed(const struct client *client, unsigned block)
{
	uint64_t at = (uint64_t)(client->number * BLOCKS + block) * BLOCK;

	for (unsigned i = 0; i < client->sim->options.links; i++)
		for (const struct session_op *op = client->session.link[i].done; op; op = op->out)
			if (op->result < 0 && op->op != OP_READ && op->op != OP_FLUSH &&
			    op->start <= at && at < op->start + op->len)
				return true;
	return false;
}

static void read_done(struct caller *caller, unsigned i, struct seen *seen)
{
	uint64_t value = caller->values[i], floor = least(caller->floor[i], seen->floor);

	if (value < floor && has_failed(caller->client, caller->start + i))
		floor = least(floor, seen->acked);

	sim_hash(caller->client->sim, value);
	if (value < floor || value > seen->newest)
		sim_wrong(caller->client->sim, "reverted",
			  "client %u block %u read as %lu, after it was %lu (newest %lu)",
			  caller->client->number, caller->start + i, (unsigned long)value,
			  (unsigned long)floor, (unsigned long)seen->newest);
	if (value > seen->floor && (value <= seen->acked || value == seen->pending) && !seen->loose)
		seen->floor = value;
}

static void change_failed(struct seen *seen)
{
	seen->pending = 0;
	seen->floor = least(seen->floor, seen->acked);
}

static bool is_sync(const struct caller *caller)
{
	return caller->op.op == OP_FLUSH || (caller->op.flags & REQ_FUA);
}

/* Where flushes fail, the error may have been told to another that was under way: the engine has
 * one's success wait for those, and none succeed after it (syncs.h). Here it just promises
 * nothing. */
static bool is_promise(const struct caller *caller)
{
	const struct caller *all = caller->client->caller;

	if (caller->client->sync_failed)
		return false;
	for (unsigned i = 0; i < CALLERS; i++)
		if (&all[i] != caller && all[i].busy && is_sync(&all[i]))
			return !caller->client->sim->options.flaky;
	return true;
}

static void change_done(struct caller *caller, struct seen *seen)
{
	seen->pending = 0;
	if (caller->op.op == OP_TRIM)
		return;
	seen->loose = false;
	seen->acked = seen->floor = caller->value;
	if ((caller->op.flags & REQ_FUA) && is_promise(caller))
		seen->durable = caller->value;
}

static void flush_done(struct caller *caller)
{
	if (!is_promise(caller))
		return;
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct seen *seen = &caller->client->seen[i];

		/* A trim since then has reset it. */
		if (caller->acked[i] > seen->durable && caller->acked[i] <= seen->acked)
			seen->durable = caller->acked[i];
	}
}

/* Which errors may a caller see? */
static void check_error(struct caller *caller, int error)
{
	struct client *client = caller->client;
	struct sim *sim = client->sim;

	sim->counts[COUNT_TIMEDOUT] += error == -ETIMEDOUT;
	sim->counts[COUNT_STALE] += error == -ESTALE;
	sim->counts[COUNT_IO_ERRORS] += error == -EIO;
	if (error == -ETIMEDOUT &&
	    (client->gave_up || client->session.state == SESSION_GIVEN_UP ||
	     (caller->op.losses >= 4 && sim->now - caller->issued >= sim->options.reconnect)))
		return;
	if (error == -ESTALE &&
	    (client->gave_up || sim->server.stranger || client->session.flush_error))
		return;
	if (error == -ECANCELED && client->session.error == -ECANCELED)
		return;
	if (error == -EIO && sim->server.flush_fails)
		return;
	sim_wrong(sim, "error", "client %u: %d without a reason", client->number, error);
}

void check_done(struct caller *caller)
{
	const struct session_op *op = &caller->op;

	if (++caller->completions != 1)
		sim_wrong(caller->client->sim, "twice", "an operation was completed %u times",
			  caller->completions);
	caller->client->sync_failed |= op->result == -EIO && is_sync(caller);
	if (op->result < 0)
		check_error(caller, op->result);
	else if (op->op == OP_FLUSH)
		flush_done(caller);
	for (unsigned i = 0; op->op != OP_FLUSH && i < caller->len; i++) {
		struct seen *seen = &caller->client->seen[caller->start + i];

		if (op->op == OP_READ && op->result >= 0)
			read_done(caller, i, seen);
		else if (op->op != OP_READ && op->result >= 0)
			change_done(caller, seen);
		else if (op->op != OP_READ)
			change_failed(seen);
	}
	check_disk(caller->client->sim);
}

/* Is all there that was said to be safe? */
void check_disk(struct sim *sim)
{
	if (!sim->options.can_flush || sim->server.stranger)
		return;
	for (unsigned c = 0; c < sim->options.clients; c++)
		for (unsigned i = 0; i < sim->options.blocks; i++)
			if (sim->disk[c * BLOCKS + i].stable < sim->client[c].seen[i].durable)
				sim_wrong(sim, "not durable",
					  "client %u block %u is %lu on the disk, and %lu was safe",
					  c, i, (unsigned long)sim->disk[c * BLOCKS + i].stable,
					  (unsigned long)sim->client[c].seen[i].durable);
}
