/* lasting: queues of an NBD target whose server may go away and come back: what a session decides is
 * done here.
 *
 * Each queue has a connection (a link of the session) while there is one, and holds its subrequests
 * while there is none. A thread of its own dials. How it ends is the session's affair: see there for
 * what is promised, and by whom. */
#ifndef NDIO_LASTING_H
#define NDIO_LASTING_H

#include "engine/subrequest.h"
#include "nbd/nbd-link.h"
#include "nbd/session.h"

struct lasting;

/* Who is told what has become of the server: away (SESSION_WAITING), back (UP), given up or lost for
 * good (ENDED), each with a sentence, in the thread that dials: nothing is dialled until he returns. */
struct lasting_listener {
	void (*tell)(void *opaque, enum session_state state, const char *message); /* or NULL */
	void *opaque;
};

struct lasting_options {
	struct nbd_server *server;
	const char *context;
	unsigned links;
	uint64_t max_len;   /* bytes of a write at the most: no more than lasting_max_len() */
	uint64_t secret;    /* see wire_secret() */
	unsigned reconnect; /* seconds */
	uint64_t unflushed; /* bytes */
	bool memory_ready;  /* these are taken at once */
	struct lasting_listener listener;

	struct session_identity disk; /* what was opened */

	/* What a new connection leads to. May use it. 0, or a negative errno with a message. */
	int (*identify)(void *opaque, struct nbd_link *link, struct session_identity *identity,
			struct error *err);
	void *opaque;
};

/* The longest write that a log of so many bytes takes. */
uint64_t lasting_max_len(uint64_t unflushed);

/* Takes over as many links as options say, connected under the epoch 1; also when it fails: a
 * negative errno with a message. No thread runs until there is a queue. */
int lasting_open(const struct lasting_options *options, struct nbd_link **links,
		 struct lasting **lasting, struct error *err);
void lasting_close(struct lasting *lasting); /* no queues; NULL is fine */

/* As target_ops has them. There are as many queues as links before one is used. */
struct target_queue *lasting_queue_open(struct lasting *lasting, unsigned depth, struct error *err);
void lasting_queue_close(struct target_queue *queue);
void lasting_issue(struct target_queue *queue, struct ndio_subrequest *sub);
void lasting_submit(struct target_queue *queue);
struct ndio_subrequest *lasting_poll(struct target_queue *queue, bool wait, int wake_fd);
void lasting_cancel(struct target_queue *queue);

/* From now on a server that is away is waited for some seconds more at the most. Any thread. */
void lasting_hurry(struct lasting *lasting);

/* For reports. Any thread. */
struct lasting_facts {
	enum session_state state;
	bool fences;
	int64_t lost_ms;     /* since when it is away, or 0 */
	uint64_t times_lost; /* and came back, or not yet */
	uint64_t unflushed;  /* bytes, with what is counted for each record */
};
void lasting_read_facts(struct lasting *lasting, struct lasting_facts *facts);

#endif
