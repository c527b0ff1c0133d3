/* Messages arrive in the order of their connection, some time later, or never. What the client
 * sent before it ended a connection may arrive long after that. */
#include "sim.h"

static int64_t delay(struct sim *sim)
{
	return sim_chance(sim, 20) ? sim_random(sim, 40) : sim_random(sim, 3);
}

/* Nothing overtakes what went the same way on this connection before, which arrives at *last. */
static void send_on(struct sim *sim, int64_t *last, event_fn *run, void *what)
{
	int64_t at = sim->now + delay(sim);

	if (at < *last)
		at = *last;
	*last = at;
	sim_at(sim, at, run, what, 0);
}

/* Without a fence the worst is what arrives as late as is just promised to be survived; or
 * later. */
static int64_t worst(struct sim *sim, const struct conn *conn)
{
	if (conn->ended == NEVER)
		return sim->now + 5;
	if (sim->options.beyond)
		return conn->ended + sim->options.quiesce + sim_random(sim, 20);
	return conn->ended + sim->options.quiesce - 8;
}

/* Is it kept back? Then it arrives later. */
static bool is_held(struct sim *sim, struct conn *conn, event_fn *run, void *what)
{
	if (conn->latest) {
		conn->held_until = worst(sim, conn);
		conn->latest = conn->ended == NEVER;
	}
	if (conn->held_until <= sim->now)
		return false;
	if (conn->last_to_server < conn->held_until)
		conn->last_to_server = conn->held_until;
	sim_at(sim, conn->held_until, run, what, 0);
	return true;
}

static void hello_arrives(struct sim *sim, void *what, uint64_t unused)
{
	struct conn *conn = what;

	(void)unused;
	if (!conn->cut && !is_held(sim, conn, hello_arrives, what))
		server_hello(sim, conn, 0);
}

static void request_arrives(struct sim *sim, void *what, uint64_t unused)
{
	struct command *command = what;

	(void)unused;
	if (!command->conn->cut && !is_held(sim, command->conn, request_arrives, what))
		server_request(sim, command, 0);
}

static void reset_arrives(struct sim *sim, void *what, uint64_t unused)
{
	struct conn *conn = what;

	(void)unused;
	if (!is_held(sim, conn, reset_arrives, what))
		server_reset(sim, conn, 0);
}

static void answer_arrives(struct sim *sim, void *what, uint64_t unused)
{
	struct command *command = what;

	(void)unused;
	if (command->conn->cut)
		return;
	if (command->conn->client_open)
		client_answered(sim, command);
	else
		sim->counts[COUNT_LATE_ANSWERS]++;
}

static void welcome_arrives(struct sim *sim, void *what, uint64_t unused)
{
	struct conn *conn = what;
	struct session_identity identity;

	(void)unused;
	if (conn->cut || !conn->client_open)
		return;
	server_identify(sim, &identity);
	if (conn->generation == sim->server.generation)
		client_welcomed(sim, conn, &identity);
}

struct conn *network_dial(struct sim *sim, struct client *client, unsigned link, uint64_t epoch)
{
	struct conn *conn = sim_alloc(sim, sizeof(*conn));

	*conn = (struct conn){
		.client = client,
		.link = link,
		.epoch = epoch,
		.client_open = true,
		.ended = NEVER,
	};
	send_on(sim, &conn->last_to_server, hello_arrives, conn);
	return conn;
}

void network_send(struct sim *sim, struct command *command)
{
	send_on(sim, &command->conn->last_to_server, request_arrives, command);
}

void network_answer(struct sim *sim, struct command *command)
{
	send_on(sim, &command->conn->last_to_client, answer_arrives, command);
}

void network_welcome(struct sim *sim, struct conn *conn)
{
	send_on(sim, &conn->last_to_client, welcome_arrives, conn);
}

void network_refuse(struct sim *sim, struct conn *conn)
{
	send_on(sim, &conn->last_to_client, client_lost, conn);
}

void network_close(struct sim *sim, struct conn *conn)
{
	conn->client_open = false;
	conn->ended = sim->now;
	send_on(sim, &conn->last_to_server, reset_arrives, conn);
}

/* ---- faults ---- */

static struct conn *pick(struct sim *sim)
{
	unsigned which = sim_random(sim, sim->options.clients * sim->options.links);
	struct client *client = &sim->client[which % sim->options.clients];

	return client->conn[which / sim->options.clients];
}

static int64_t while_(struct sim *sim)
{
	return sim_chance(sim, 500) ? sim_random(sim, 100) : sim_random(sim, 3000);
}

static void hold_back(struct conn *conn, int64_t until)
{
	/* More than the quiesce time isn't promised to be survived, see server.c. */
	if (conn->held_until < until)
		conn->held_until = until;
}

static void link_down(struct sim *sim)
{
	int64_t until = sim->now + while_(sim);

	for (struct conn *conn = sim->server.conns; conn; conn = conn->next) {
		hold_back(conn, until);
		if (conn->last_to_client < until)
			conn->last_to_client = until;
	}
}

static void hold_longest(struct sim *sim, struct conn *conn)
{
	conn->latest = true;
	for (unsigned i = 0; i < LINKS && sim_chance(sim, 500); i++)
		if (conn->client->conn[i])
			conn->client->conn[i]->latest = true;
}

static void fault_of_connection(struct sim *sim, enum fault fault)
{
	struct conn *conn = pick(sim);

	if (!conn || !conn->client_open)
		return;
	if (fault == FAULT_HOLD && !sim->options.fences && sim_chance(sim, 500))
		hold_longest(sim, conn);
	else if (fault == FAULT_HOLD)
		hold_back(conn, sim->now + while_(sim));
	else
		conn->cut = true;
	if (fault != FAULT_SILENT && !(conn->latest && sim_chance(sim, 500)))
		sim_at(sim, sim->now + delay(sim), client_lost, conn, 0);
}

void network_fault(struct sim *sim, enum fault fault)
{
	if (fault == FAULT_LINK_DOWN)
		link_down(sim);
	else
		fault_of_connection(sim, fault);
}
