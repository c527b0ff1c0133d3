/* target-nbd: an export of an NBD server.
 *
 * Each queue is one connection; the first to be opened takes over the one that found out what
 * the export is. A server that doesn't allow several (NBD_FLAG_CAN_MULTI_CONN) gets one. What
 * a server hasn't is done without or with what it has: FUA by a flush after the write. */
#ifndef NDIO_TARGET_NBD_H
#define NDIO_TARGET_NBD_H

#include <stdbool.h>

#include "error.h"
#include "nbd-link.h"
#include "target.h"

struct target_nbd_options {
	unsigned connections; /* how many queues there may be at the most; at least 1 */
	bool readonly;
	enum tls_by tls_by;
	struct notice notice; /* told why a connection was lost, in the thread that uses it */
};

/* Connects to any URI that nbd-uri.h knows. 0, or a negative errno with a message that starts with
 * the URI. */
int target_nbd_open(const char *uri, const struct target_nbd_options *options,
		    struct target **target, struct error *err);

/* What only an NBD server has, for reports. */
struct target_nbd_facts {
	const char *protocol;  /* as libnbd names it */
	bool tls;
	struct tls_facts tls_facts; /* empty where TLS is libnbd's, which doesn't tell */
	bool structured_replies;
	bool multi_conn;
	bool can_fua;
	uint64_t block_minimum, block_preferred, block_maximum; /* bytes; 0 where it doesn't tell */
};
void target_nbd_facts(const struct target *target, struct target_nbd_facts *facts);

/* Is this target one of these? */
bool target_is_nbd(const struct target *target);

#endif
