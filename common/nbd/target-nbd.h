/* target-nbd: an export of an NBD server.
 *
 * Each queue is one connection: queues take over those that were opened before, and leave them
 * behind for the next. A server that doesn't allow several (NBD_FLAG_CAN_MULTI_CONN) gets one.
 *
 * With reconnect, all are a session (see session.h) that outlives its server (see lasting.h). Without
 * it, a connection that is lost is dialled again while others are up (see nbd-group); what was in
 * flight on it has failed. What a server hasn't is done without or with what it has: FUA by a flush after the
 * write. */
#ifndef NDIO_TARGET_NBD_H
#define NDIO_TARGET_NBD_H

#include <stdbool.h>

#include "base/error.h"
#include "base/notice.h"
#include "engine/target.h"
#include "nbd/lasting.h"
#include "nbd/nbd-group.h"

#define NBD_RECONNECT        60 /* seconds, where nothing else is asked for */
#define NBD_RECONNECT_MAX    86400
#define TARGET_UNFLUSHED     (64 * 1024 * 1024)
#define TARGET_UNFLUSHED_MIN (1024 * 1024)

struct target_nbd_options {
	unsigned connections; /* how many queues there may be at the most; at least 1 */
	bool readonly;
	unsigned answer_timeout; /* seconds; 0: NBD_ANSWER_TIMEOUT */
	unsigned reconnect; /* seconds that a server which is away is waited for; 0: it is lost */
	uint64_t unflushed; /* bytes kept for that, TARGET_UNFLUSHED_MIN or more; 0: the usual */
	bool memory_ready;  /* they are taken at once, and not as they are used */
	unsigned wait;      /* seconds that one which isn't there yet is waited for */
	struct lasting_listener listener; /* with reconnect */
	struct notice notice; /* told why a connection was lost, in the thread that uses it */
};

/* Connects to any URI that nbd-uri.h knows, once. 0, or a negative errno with a message that starts
 * with the URI. */
int target_nbd_open(const char *uri, const struct target_nbd_options *options,
		    struct target **target, struct error *err);

/* Makes the other connections. A server that lets in fewer gets fewer, and that is told: there is
 * one. From then on target->max_queues is how many there are. Before queues are opened. */
int target_nbd_connect(struct target *target, struct error *err);

/* What makes the disk the one that it is, in TARGET_NBD_IDENTITY bytes, besides what its server says of
 * it: asked for with each further connection. target is another than the one that was opened, which
 * leads over that connection alone and can only be read. 0, or a negative errno with a message: then the
 * connection can't be used. */
#define TARGET_NBD_IDENTITY SESSION_HEADER
typedef int target_nbd_identify_fn(void *opaque, struct target *target, uint8_t *identity,
				   struct error *err);

/* ours is that of the disk that was opened; a connection to another is none. Before queues are opened.
 * opaque outlives the target. */
void target_nbd_set_identity(struct target *target, const uint8_t ours[TARGET_NBD_IDENTITY],
			     target_nbd_identify_fn *identify, void *opaque);

/* From now on the server is lost when it owes an answer for some seconds: whoever uses it wants to
 * end. Any thread. */
void target_nbd_hurry(struct target *target);

/* Of one with reconnect, how it is getting on: false for others, and before there are queues. Any
 * thread. */
bool target_nbd_lasting(const struct target *target, struct lasting_facts *facts);

/* What only an NBD server has, for reports. */
struct target_nbd_facts {
	int64_t size;         /* bytes */
	const char *protocol; /* as libnbd names it */
	bool tls;
	struct tls_facts tls_facts; /* empty without */
	struct nbd_identity identity;
	bool structured_replies;
	bool readonly, rotational, multi_conn;
	bool can_flush, can_fua, can_trim, can_zero, can_fast_zero, can_extents, can_cache;
	uint64_t block_minimum, block_preferred, block_maximum; /* bytes; 0 where it doesn't tell */
};
void target_nbd_facts(const struct target *target, struct target_nbd_facts *facts);

/* Is this target one of these? */
bool target_is_nbd(const struct target *target);

#endif
