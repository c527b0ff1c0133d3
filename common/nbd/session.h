/* session: what is to be done when connections to an NBD server are lost, so that no request
 * fails, nothing that was acknowledged is lost and no block goes back to what it was.
 *
 * Only decisions: no I/O, no clock, no thread, no memory of its own. It is told what happens
 * (events) and says what is to be done (acts); times come in, and one lock around every call is
 * the caller's.
 *
 * All connections of a target are one session. They have an epoch: when one of them is lost all
 * are ended, and all come again under the next epoch, or none.
 *
 *           +--------------- lost, from any of these --------------------+
 *           v                                                              |
 *    --> WAITING --all connected--> QUIESCING --> REPLAYING --> CHECKING --> UP
 *           |                           ^                          |
 *        too long                       +------- reverted ---------+
 *           v
 *       GIVEN_UP --all connected--> as above, and back if lost before UP
 *
 *       any --another disk, or what was acknowledged is gone, or closed--> ENDED
 *
 * QUIESCING and CHECKING are for servers without a fence alone. REPLAYING and CHECKING are passed
 * over by a server that is the same process as before.
 *
 *   WAITING     dials, and holds requests
 *   QUIESCING   waits until nothing that older connections left in the server can still be run
 *   REPLAYING   sends the log, in order; when all of it has landed, the changes that were in flight
 *   CHECKING    flushes, and reads back the latter
 *   UP          requests go out as they come
 *   GIVEN_UP    dials on, but requests fail with ETIMEDOUT
 *   ENDED       for good: all requests fail with session->error
 *
 * What is in flight when the connections are lost is sent again, but for trims: they are advice,
 * and taken for followed. A landing of an earlier epoch is no landing.
 *
 * The log: writes and zeroes that were acknowledged and that no flush has covered yet, in the
 * order of their acknowledgement. A flush covers those that had been acknowledged when it was
 * sent. Nobody has two changes of the same bytes in flight (the engine's rangelock), so this
 * order is right where they overlap.
 *
 * Whose log? The server's process that has all of it is the `verifier`; when another answers, or
 * one that doesn't say who it is, it gets the whole log before anything else is sent. It is the
 * verifier only when it has acknowledged all of that.
 *
 * A write with FUA isn't in the log; unless what it replaced is: sent again that would undo it.
 * So then it is, and is told to be done when a flush has covered both. Likewise what its caller has
 * no memory for: nobody but the server has it, and it is told when a flush has covered it.
 *
 * Why reads wait until the changes that were in flight have landed again: the server that is gone
 * may have run one of them and shown it to a reader, who must not see the older value now.
 *
 * After giving up a log isn't sent to another process: by then somebody else may have taken over
 * the disk. So the session ends, with ESTALE, if it isn't empty.
 *
 * What is relied upon: a server's process whose place another one takes runs nothing any more;
 * one that fences tells each flush of the error that it told to one before; what an ended
 * connection left in a server without a fence is run within options.quiesce, or never. */
#ifndef NDIO_SESSION_H
#define NDIO_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/request.h"
#include "nbd/session-name.h"

#define SESSION_LINKS    64  /* connections at the most: one bit each */
#define SESSION_HEADER   32  /* bytes */
#define SESSION_OVERHEAD 256 /* bytes that a record is taken to cost besides its data */

enum session_state {
	SESSION_WAITING,
	SESSION_QUIESCING,
	SESSION_REPLAYING,
	SESSION_CHECKING,
	SESSION_UP,
	SESSION_GIVEN_UP,
	SESSION_ENDED,
};
#define SESSION_STATES 7

struct session_options {
	unsigned links;     /* connections, 1 to SESSION_LINKS */
	uint64_t unflushed; /* bytes that the log may take, with what is in flight to it */
	int64_t reconnect;  /* ms until a lost server is given up, more than 0 */
	int64_t quiesce;    /* ms */
	uint64_t seed;      /* of the jitter */
};

/* What a connection tells of who is behind it. */
struct session_identity {
	bool fences;       /* it ends what older epochs run before it lets in a newer one */
	bool has_instance; /* which process it is, as far as it says so */
	uint8_t instance[SESSION_ID];
	uint64_t size;  /* bytes */
	uint32_t facts; /* what it can, and is, as bits; compared alone */
	bool can_flush; /* if it can't, what it acknowledges is taken to be safe */
	bool can_fua;
	uint8_t header
		[SESSION_HEADER]; /* a hash of what makes the volume the one that it is, or zeroes */
};

struct session_list {
	struct session_op *first, *last;
};

struct session_record;

/* A request to the server. From session_issue() to its SESSION_DONE it stays in place, and its
 * data don't change. */
struct session_op {
	/* The caller's. */
	enum op op;
	unsigned flags;                /* REQ_FUA, REQ_MAY_TRIM, REQ_FAST_ZERO */
	uint64_t start, len;           /* bytes */
	void *data;                    /* the caller's own affair: only passed on */
	unsigned link;                 /* the connection that it is sent on */
	struct session_record *record; /* a place in the log, of a write or zero; else NULL. If that
					* can't be had by the time it lands, NULL as well */
	int64_t result;                /* bytes, or a negative errno: with SESSION_DONE */
	bool kept; /* likewise: the record is the session's, until SESSION_RELEASE */

	/* What SESSION_SEND says besides. */
	bool flush; /* it is a flush that is to be sent, whatever op says */
	bool compare; /* read start to start + len, compare with data (zeroes if `zero`), and land with
			 len if that is there and with 0 if something else is */
	bool zero;

	/* Private. */
	uint8_t state;
	bool internal;  /* the session's own, told to nobody */
	bool sent;      /* once at least: a server may have seen it */
	int64_t since;  /* when it was lost for the first time, or -1 */
	uint8_t losses; /* how often, as far as that matters */
	uint64_t cost;  /* reserved in the log */
	uint64_t mark;  /* of a flush: the last record that it covers */
	uint64_t sync;  /* of a flush or FUA change: its number; landed, the last one to wait for */
	struct session_op *prev, *next; /* in one of the session's lists */
	struct session_op *out;         /* in what a connection is told */
};

/* An acknowledged write. The caller makes it, with op.data of its own: a copy of the data, or the
 * memory itself handed over. It must hold them when session_landed() is called. */
struct session_record {
	struct session_op op; /* as which it is sent again */
	struct session_record *next;
	uint64_t number; /* counts up */
};

enum session_link_state {
	SESSION_LINK_DOWN,
	SESSION_LINK_DIALLING,
	SESSION_LINK_UP,
};

struct session_link {
	enum session_link_state state;
	bool end;                            /* to be told to end */
	bool alone;                          /* no queue has it, to send anything there */
	struct session_op *send, **send_end; /* to be told, in order */
	struct session_op *done, **done_end;
};

struct session {
	struct session_options options;
	enum session_state state;
	int error;      /* why it ended, negative */
	uint64_t epoch; /* counts up from 1 */
	struct session_link link[SESSION_LINKS];
	unsigned nr_up, nr_end; /* links that are up; that are to be told to end */

	bool verified;
	struct session_identity identity; /* of what was opened */
	struct session_identity seen;     /* of this epoch's */
	uint8_t verifier[SESSION_ID];     /* if verified: who has all of the log */

	struct session_list flying; /* told to be sent in this epoch, not landed */
	struct session_list again;  /* were so in an earlier one */
	struct session_list parked; /* landed while REPLAYING: the changes of those */
	struct session_list
		synced; /* flushes that landed, but others are under way: finish_syncs() */
	struct session_list held; /* never sent: until it is UP */
	struct session_list room; /* never sent: until the log has room */

	struct session_record *log, *log_last, *released;
	uint64_t last_number, syncs;
	uint64_t kept, reserved; /* bytes: of the log; for what is in flight to it */
	int flush_error;         /* a flush failed: none succeeds any more, and nothing is kept */
	bool gap;                /* something that was acknowledged isn't in the log */

	struct session_record *cursor; /* what is to be replayed next */
	unsigned replaying;            /* in flight, of that */
	bool redone;                   /* the changes that were in flight have been sent again */
	bool check;                    /* and are to be read back */
	struct session_op own;         /* the flush that makes room */
	struct session_op probe;       /* what CHECKING has in flight */
	struct session_op *probed;     /* whom it is about, or NULL: the flush before */

	int64_t lost_at, up_at, dial_at;
	int64_t doubt_until;    /* what was left in flight may be run until then: by any server */
	int64_t unfenced_until; /* by one that didn't fence */
	bool doubted;           /* these aren't final: connections are to be told to end */
	int64_t quiet_at;
	unsigned attempts;
	uint64_t random;

	enum session_state told;
	bool answers; /* something has come back since the connections were made */
	uint64_t times_lost, replayed, sent_again, reverted; /* for reports */
};

/* In WAITING: the first connections are dialled as later ones are. disk is what was opened: with it
 * they are compared (but not who serves it). now is in ms, and never goes back. */
void session_init(struct session *session, const struct session_options *options,
		  const struct session_identity *disk, int64_t now);

/* The bytes that one write may have, so that the log never waits for itself. */
uint64_t session_max_len(const struct session *session);

/* ---- events ---- */

/* A request. Its result comes with SESSION_DONE, once, whatever happens. */
void session_issue(struct session *session, struct session_op *op, int64_t now);

/* A change that landed well and is about to be told: may the log want it? Then op->record is to be one
 * that holds a copy of the data by then, or NULL. Stays true or false for as long as the epoch lasts. */
bool session_wants_copy(const struct session *session, const struct session_op *op);

/* A record whose memory is the caller's again, or NULL: for who needs that sooner than session_next()
 * says so. */
struct session_record *session_released(struct session *session);

/* What the server answered on a connection of this epoch: bytes, or a negative errno. ESHUTDOWN
 * is a lost connection. Ignored if the epoch is over: then the op is told again. */
void session_landed(struct session *session, struct session_op *op, uint64_t epoch, int64_t result,
		    int64_t now);

/* A connection that was to be dialled stands. False: close it. */
bool session_connected(struct session *session, unsigned link, uint64_t epoch,
		       const struct session_identity *identity, int64_t now);

/* A connection is lost, or couldn't be made. */
void session_lost(struct session *session, unsigned link, uint64_t epoch, int64_t now);

/* It has a queue, as all have at first; or not: what is sent again is sent by others. */
void session_leave_alone(struct session *session, unsigned link, bool alone);

/* For good: a certificate was refused, or nobody wants it any more. error is negative. */
void session_end(struct session *session, int error, int64_t now);

/* Time has passed: due when session_wake_at() is reached, INT64_MAX being never. */
void session_time(struct session *session, int64_t now);
int64_t session_wake_at(const struct session *session);

/* ---- acts ---- */

/* Should a connection be dialled now? True: *link, under session->epoch. Any thread, not only
 * that of the link. */
bool session_dial(struct session *session, unsigned *link, int64_t now);

enum session_act {
	SESSION_NOTHING,
	SESSION_END,     /* reset the connection; nothing that was sent on it lands any more */
	SESSION_DONE,    /* *op: complete it */
	SESSION_RELEASE, /* *record: its memory is the caller's again */
	SESSION_SEND,    /* *op, on this connection */
};

/* What this connection's thread has to do next; asked until it is nothing. */
enum session_act session_next(struct session *session, unsigned link, struct session_op **op,
			      struct session_record **record, int64_t now);

/* The connections that have something to do, one bit each: whose threads to wake. */
uint64_t session_busy(const struct session *session);

/* Has it come up, been lost, given up or ended since this was told last? Then *state is UP, WAITING,
 * GIVEN_UP or ENDED. It has been UP at first. A server that lets connections in and answers nothing
 * more isn't UP while it is asked something, nor WAITING anew when these are lost. */
bool session_has_news(const struct session *session);
bool session_news(struct session *session, enum session_state *state);

/* Asserts the invariants. Takes time: for tests. */
void session_validate(const struct session *session);

#endif
