/* gateway: the private server (ndio-serve) between the kernel and a remote disk: it runs in the
 * background, on a Unix socket, and is known by our user and that socket's path alone. */
#ifndef NDIO_GATEWAY_H
#define NDIO_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "integrity/integrity-words.h"
#include "nbd/lasting.h"
#include "terminal/key-try.h"
#include "terminal/unlock.h"

/* Asks for the passphrase, once the header was checked: key_try() with this try. 0, or a negative
 * errno with a message. */
typedef int gateway_ask_fn(void *opaque, key_try_fn *try, void *try_opaque, struct error *err);

struct gateway_spec {
	const char *socket;    /* path, in a folder that only root may enter */
	const char *locator;   /* of the disk: a path or an NBD URI */
	const char *header;    /* path of a detached LUKS header, or NULL */
	const char *metrics;   /* where it tells statistics, as ndio serve takes it, or NULL */
	const struct key *key; /* or NULL: it is asked for */
	gateway_ask_fn *ask;
	void *ask_opaque;
	struct unlock_options unlock;
	unsigned connections;
	unsigned answer_timeout; /* seconds, or 0 */
	unsigned reconnect;      /* likewise */
	uint64_t unflushed;      /* bytes, or 0 */
	unsigned wait;           /* seconds for a server that isn't there yet */
	bool read_only, discard;
};

/* Starts it and returns once it has unlocked the disk and answers. 0, or a negative errno with
 * the reason that it gave; nothing runs then. */
int gateway_start(const struct gateway_spec *spec, struct error *err);

/* Its process, or 0. */
pid_t gateway_find(const char *socket);

/* Makes it end, and waits until it has. It may finish what it does, unless it is killed. 0 also
 * where none ran; -EBUSY with a message if it doesn't end. */
int gateway_stop(const char *socket, bool kill, struct error *err);

enum gateway_health {
	GATEWAY_WELL,
	GATEWAY_GONE,    /* there is no such process */
	GATEWAY_SILENT,  /* it, or the server behind it, doesn't answer in time */
	GATEWAY_FAILING, /* it answers with an error */
	GATEWAY_DAMAGED, /* it works, but what was read isn't what was written there */
};

struct gateway_facts {
	bool has_server;             /* that it waits for when that is away: */
	struct lasting_facts server; /* how that is */
	bool has_integrity;          /* the disk: */
	struct integrity_found found;
};

/* What it says of its server and its disk: nothing, where it doesn't say so in time. How the gateway itself
 * is, as far as that shows. Waits for at most ms milliseconds; an interrupt (interrupt.h) ends the
 * wait: GATEWAY_SILENT. */
enum gateway_health gateway_look(const char *socket, unsigned ms, struct gateway_facts *facts);

/* Reads the first block through it. facts: what it said before, zeroes if it has just started; where it has found
 * damage by that, what it says now. Waits twice as long as above, at most. */
enum gateway_health gateway_check(const char *socket, unsigned ms, struct gateway_facts *facts);

/* The sector of the disk's cipher, in bytes, as a gateway that is well tells it. 0 or a negative errno
 * with a message. */
int gateway_sector(const char *socket, unsigned *sector, struct error *err);

#endif
