/* nbd-wire: subrequests as commands of libnbd, over one connection at a time.
 *
 * For one thread at a time; libnbd calls back in that thread, inside of wire_issue() or of a look
 * at the link. What has landed is nobody's but the caller's: libnbd has forgotten it. */
#ifndef NDIO_NBD_WIRE_H
#define NDIO_NBD_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/subrequest.h"
#include "nbd/nbd-group.h"
#include "nbd/nbd-link.h"

#define NBD_CONTEXT LIBNBD_CONTEXT_BASE_ALLOCATION

struct nbd_wire {
	struct nbd_link *link;    /* the owner's */
	uint64_t secret;          /* the target's, see wire_secret() */
	bool can_fua;             /* else a flush follows a write that is to be FUA */
	struct nbd_group *group;  /* told of commands, */
	struct nbd_member member; /* as this one; or NULL */
	unsigned in_flight;
	struct landed landed;
	struct ndio_subrequest *again; /* landed, but something has to follow on the wire */
	bool starved;                  /* there was no memory for a command */
};

/* What no server can guess: by it the chunks of a read are proved to be the whole. */
uint64_t wire_secret(void);

/* Sends a subrequest as target_ops.issue() has it, with progress set: a read's `arrived` is 0, and
 * of extents `told` bytes are left out. False: it couldn't be sent, and landed at once; perhaps
 * the connection is lost. What failed with the connection lands with an error too, which need not
 * be the server's. */
bool wire_issue(struct nbd_wire *wire, struct ndio_subrequest *sub);

/* After each look: sends what has to follow. */
void wire_go_on(struct nbd_wire *wire);

#endif
