/* connection: one client's, from the end of its handshake on: what it asks for becomes requests, which
 * run in the channel of the loop that has the connection, and what comes of them goes back to it.
 *
 * An order is what the client asked for, once. It runs in parts: a part is one request of the
 * engine's, over memory of the connection's arena. So what a client has under way is bounded by its
 * own arena and its own orders, however long its requests are; and one that doesn't read its replies
 * holds no more than that.
 *
 * One thread has it, the loop's. Nothing here waits. */
#ifndef NDIO_CONNECTION_H
#define NDIO_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/channel.h"
#include "engine/worker.h"
#include "metrics/meter.h"
#include "nbd/fence.h"
#include "stream.h"
#include "transmission.h"

#define PEER_NAME 96

struct connection;

/* Where it runs. */
struct connection_place {
	struct channel *channel;
	struct workers *workers; /* for large parts, so that other cores do them; or NULL */
	struct meter *meter;     /* counts what clients ask for; or NULL */
	void (*resume)(struct ndio_request *request);             /* for request->resume, */
	void *waiter;                                             /* and request->waiter */
	void (*done)(void *waiter, struct ndio_request *request); /* by a worker: hand it back, to
	                                                           * connection_done() */
	void (*touched)(void *waiter, struct connection *connection); /* go on with it soon */
};

struct connection_options {
	struct stream stream; /* taken over, also if it fails */
	struct volume *volume;
	struct transmission wire;
	struct fence_handle *fence; /* taken over likewise */
	char peer[PEER_NAME];       /* for messages */
	const uint8_t *ahead;       /* what was received behind the handshake, */
	size_t ahead_len;           /* at most CONNECTION_AHEAD bytes */
};
#define CONNECTION_AHEAD 4096

/* By any thread. 0 or -ENOMEM. */
int connection_open(const struct connection_options *options, struct connection **connection);
/* When it's over. */
void connection_close(struct connection *connection);

/* The rest by the loop's thread. */
void connection_place(struct connection *connection, const struct connection_place *place);

/* Takes in what there is to be received, and sends what there is to be sent, as far as the socket and
 * the arena allow. */
void connection_go_on(struct connection *connection);

/* A request has completed elsewhere. */
void connection_done(struct ndio_request *request);

/* Others have come: what it doesn't use of its memory is theirs. */
void connection_trim(struct connection *connection);

/* Takes on no more requests: those that run come to their end; now: nor are they replied to. */
void connection_stop(struct connection *connection, bool now);

/* What has to happen to its socket before there is something to go on with: of epoll(7). */
uint32_t connection_events(const struct connection *connection);

/* Nothing of it runs, and nothing is left to be sent or received. */
bool connection_is_over(const struct connection *connection);

int connection_fd(const struct connection *connection);

/* The loop's own. */
struct connection_links {
	struct connection *next, **link; /* of all that it has */
	struct connection *next_touched;
	bool is_touched;
	uint32_t events; /* that epoll(7) was told of */
	int64_t cut_at;  /* at the end: when its client has been waited for long enough, or 0 */
};
struct connection_links *connection_links(struct connection *connection);

#endif
