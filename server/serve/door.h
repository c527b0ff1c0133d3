/* door: takes connections in, shakes hands with all of them in one thread, and hands them on to the loops
 * of the exports that they ask for. */
#ifndef NDIO_DOOR_H
#define NDIO_DOOR_H

#include <stdint.h>

#include "base/listen.h"
#include "exports.h"
#include "metrics/meter.h"
#include "tls/tls-server.h"

struct door_options {
	struct exports *exports;
	const struct listener *listeners;
	unsigned nr_listeners;
	struct tls_server *tls;   /* or NULL */
	bool tls_optional;        /* a client may go without */
	unsigned max_connections; /* open at once, without those that shake hands */
	int64_t patience;         /* ms: so long a handshake may take */
	struct door_meter *meter; /* or NULL */
};

/* Until stop_fd can be read. The guests that aren't handed on by then are sent away. 0, or a negative
 * errno with a message if it can't begin. */
int door_run(const struct door_options *options, int stop_fd, struct error *err);

#endif
