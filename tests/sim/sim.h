/* sim: the session's real code between callers, a network and a server that are simulated, in one
 * thread and virtual time. All that happens follows from the seed.
 *
 *   callers (client.c) -> session.c -> links (client.c) -> network.c -> server.c -> its disk
 *                checker.c looks at what callers are told and at the disk
 *
 * Data are numbers: a block holds the number of the write that it got last, and a later write's
 * is larger. Times are ms. */
#ifndef NDIO_SIM_H
#define NDIO_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "nbd/session-bug.h"
#include "nbd/session.h"

#define BLOCK       512
#define BLOCKS      32 /* of one client, at the most */
#define CLIENTS     2
#define CALLERS     8
#define LINKS       4
#define MOST_BLOCKS 4 /* of one request */
#define NEVER       INT64_MAX

enum fault {
	FAULT_CUT,       /* a connection ends, and the client sees that */
	FAULT_SILENT,    /* it ends, and the client doesn't */
	FAULT_HOLD,      /* it ends, and the server gets what was sent on it later */
	FAULT_LINK_DOWN, /* nothing gets through for a while, then all of it */
	FAULT_FORGET,    /* the server's machine crashes, with what wasn't flushed */
	FAULT_KILL,      /* its process does: what it wrote stays */
	FAULT_LEAVE,     /* the same, but it says so before */
	FAULT_HANG,      /* it stops for a while */
	FAULT_STALL,     /* its disk does */
	FAULT_STRANGER,  /* it comes back with another disk */
	FAULTS,
};

enum count {
	COUNT_EVENTS,
	COUNT_READS,
	COUNT_WRITES,
	COUNT_ZEROES,
	COUNT_TRIMS,
	COUNT_FLUSHES,
	COUNT_FUA,
	COUNT_DONE,
	COUNT_DIALS,
	COUNT_REFUSED,
	COUNT_FENCED,
	COUNT_FENCE_WAITS,
	COUNT_LOST,
	COUNT_RECOVERED,
	COUNT_GIVEN_UP,
	COUNT_ENDED,
	COUNT_TIMEDOUT,
	COUNT_STALE,
	COUNT_IO_ERRORS,
	COUNT_REPLAYED,
	COUNT_SENT_AGAIN,
	COUNT_REVERTED,
	COUNT_LATE_COMMANDS,
	COUNT_LATE_ANSWERS,
	COUNT_FORGOTTEN,
	COUNT_TORN,
	COUNT_SILENCE,
	COUNT_OWN_FLUSHES,
	COUNT_FUA_FLUSHES,
	COUNT_PLACELESS,
	COUNT_LEAVING,
	COUNT_UNPROMISED,
	COUNT_EXCUSED,
	COUNTS
};

struct sim;
struct client;
struct conn;
struct command;

typedef void event_fn(struct sim *sim, void *what, uint64_t number);

struct event {
	int64_t at;
	uint64_t number; /* in the order of their making: which is first of the same time */
	event_fn *run;
	void *what;
	uint64_t with;
};

struct sim_options {
	unsigned clients, callers, links, ops, blocks;
	bool fences; /* and tells its instance */
	bool can_fua, can_flush;
	bool flaky;      /* errors of the disk */
	bool beyond;     /* what is held back without a fence isn't bound by the quiesce time */
	unsigned faults; /* one bit each */
	int64_t between; /* faults, on the average */
	int64_t until;   /* there are some */
	int64_t closes;  /* the client does, in the middle of it; or NEVER */
	int64_t reconnect, quiesce, answer, think;
	uint64_t unflushed;
};

/* ---- the network ---- */

/* A connection. Either end may be gone while the other doesn't know it. */
struct conn {
	struct client *client;
	unsigned link;
	uint64_t epoch;
	uint64_t dialled;    /* the epoch, as the session counts */
	uint64_t generation; /* of the server that it leads to */
	bool client_open;
	bool cut;           /* nothing gets through any more */
	int64_t ended;      /* when the client closed it, or NEVER */
	bool latest;        /* what goes to the server arrives as late as may be */
	int64_t held_until; /* what goes to the server */
	int64_t last_to_server,
		last_to_client; /* when the last message arrives: they keep their order */
	/* At the server. */
	bool server_open, welcomed, closing;
	unsigned running;
	struct conn *next; /* of the server's */
};

/* A request on its way, and its answer. */
struct command {
	struct conn *conn;
	struct session_op *op; /* of the client: only while the connection is open there */
	uint64_t epoch;
	enum op what;
	bool fua;
	unsigned start, len; /* blocks, of that client's */
	uint64_t value;
	int64_t result;
	uint64_t generation;
	bool answered;
	uint64_t values[MOST_BLOCKS]; /* of a read */
};

/* ---- the server and its disk ---- */

struct block {
	uint64_t cached, older, stable;
	bool lost; /* no flush writes it any more */
};

struct server {
	bool alive, stranger;
	bool leaves;         /* it ends, and answers ESHUTDOWN until then */
	uint64_t generation; /* its instance */
	int64_t hung_until, stalled_until;
	struct conn *conns;
	uint64_t newest[CLIENTS]; /* epoch of each session, 0: none */
	bool flush_fails;         /* something did, ever */
	bool told;                /* of this process */
	bool calm;
};

/* ---- clients ---- */

struct record {
	struct session_record record;
	uint64_t cost;
	bool kept, released;
	struct record *next;
};

struct caller {
	struct session_op op;
	struct client *client;
	unsigned start, len; /* blocks */
	uint64_t value;
	unsigned left; /* operations to go */
	bool busy;
	unsigned completions;
	int64_t issued;
	uint64_t floor[MOST_BLOCKS];  /* of a read: no older value than that */
	uint64_t acked[BLOCKS];       /* of a flush: what had been acknowledged */
	uint64_t values[MOST_BLOCKS]; /* what a read got */
};

/* What may be read of a block, see checker.c. */
struct seen {
	uint64_t floor, acked, newest, pending, durable, failed;
	bool loose;
};

struct client {
	struct sim *sim;
	unsigned number;
	struct session session;
	struct conn *conn[LINKS]; /* that are the session's */
	bool woken[LINKS];
	int64_t timer_at;
	struct caller caller[CALLERS];
	unsigned changing[BLOCKS]; /* changes in flight over it */
	struct seen seen[BLOCKS];
	struct record *free;
	int64_t lost_at;       /* as far as it was told */
	int64_t memory, bytes; /* of records that were kept and not released */
	bool gave_up, flushed, sync_failed, ended, finished;
	enum { PHASE_LOAD, PHASE_FLUSH, PHASE_READ, PHASE_OVER } phase;
	unsigned reading; /* of PHASE_READ: the next block */
};

struct sim {
	struct sim_options options;
	uint64_t seed, random;
	int64_t now;
	struct event *heap;
	unsigned events;
	uint64_t made;
	struct server server;
	struct block disk[CLIENTS * BLOCKS];
	struct client client[CLIENTS];
	uint64_t last_value;
	uint64_t hash;
	bool trace;
	const char *wrong; /* the first violation, or NULL */
	char why[256];
	uint64_t counts[COUNTS], faults[FAULTS];
};

/* ---- sim.c ---- */

uint64_t sim_random(struct sim *sim, uint64_t below);
bool sim_chance(struct sim *sim, unsigned of_thousand);
void sim_at(struct sim *sim, int64_t at, event_fn *run, void *what, uint64_t with);
void *sim_alloc(struct sim *sim, size_t size); /* zeroed, until the seed ends */
void sim_wrong(struct sim *sim, const char *what, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void sim_note(struct sim *sim, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_hash(struct sim *sim, uint64_t value);

/* ---- network.c ---- */

struct conn *network_dial(struct sim *sim, struct client *client, unsigned link, uint64_t epoch);
void network_send(struct sim *sim, struct command *command);
void network_answer(struct sim *sim, struct command *command);
void network_welcome(struct sim *sim, struct conn *conn);
void network_refuse(struct sim *sim, struct conn *conn);
void network_close(struct sim *sim, struct conn *conn); /* by the client: RST */
void network_fault(struct sim *sim, enum fault fault);

/* ---- server.c ---- */

void server_hello(struct sim *sim, void *conn, uint64_t unused);
void server_request(struct sim *sim, void *command, uint64_t unused);
void server_reset(struct sim *sim, void *conn, uint64_t unused);
void server_leave(struct sim *sim);
void server_crash(struct sim *sim, bool forgets, bool stranger);
void server_start(struct sim *sim, void *unused, uint64_t unused2);
void server_identify(struct sim *sim, struct session_identity *identity);
void server_calm(struct sim *sim); /* from now on it works */

/* ---- client.c ---- */

void client_start(struct client *client);
void client_stop(struct client *client);
void client_welcomed(struct sim *sim, struct conn *conn, const struct session_identity *identity);
void client_answered(struct sim *sim, struct command *command);
void client_lost(struct sim *sim, void *conn, uint64_t unused);
bool clients_finished(const struct sim *sim);

/* ---- checker.c ---- */

void check_issued(struct caller *caller);
void check_done(struct caller *caller);
void check_disk(struct sim *sim);

#endif
