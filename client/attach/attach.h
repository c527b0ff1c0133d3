/* attach: makes a remote disk a device of the kernel's, and lets it go: the steps, and how each is
 * undone. */
#ifndef NDIO_ATTACH_H
#define NDIO_ATTACH_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "terminal/key-input.h"
#include "terminal/unlock.h"

#define ATTACH_ANY UINT_MAX /* the first device that is free */

#define ATTACH_CONNECTIONS     4
#define ATTACH_CONNECTIONS_MAX 64
#define ATTACH_TIMEOUT         90 /* seconds */
#define ATTACH_TIMEOUT_MIN     5
#define ATTACH_TIMEOUT_MAX     86400
#define ATTACH_RECONNECT       300 /* seconds */
#define ATTACH_RECONNECT_MAX   86400

struct attach_spec {
	const char *locator;
	const char *header;  /* path of a detached LUKS header, or NULL */
	const char *metrics; /* where the gateway tells statistics, or NULL */
	struct key_source key;
	struct unlock_options unlock;
	unsigned index;          /* of /dev/nbdN, or ATTACH_ANY */
	unsigned connections;    /* to the server, and of the kernel to the gateway */
	unsigned block_size;     /* bytes; 0: the volume's sector */
	unsigned timeout;        /* seconds until the kernel gives a connection up that doesn't
			       * answer, and sends what waits over the next one; besides those
			       * that the gateway waits for a server */
	unsigned answer_timeout; /* seconds until a silent server is lost; 0: the usual */
	unsigned reconnect;      /* seconds that one which is away is waited for; 0: it is lost */
	uint64_t unflushed;      /* bytes kept for its return; 0: the usual */
	bool wait_first;         /* it may also be away now */
	bool read_only, discard;
};

/* Is it a size that a device's blocks can have? */
bool attach_block_size_valid(unsigned block_size);

/* Attaches, and sets the device's number. The key may be asked for. Interrupts undo what was done.
 * 0, or a negative errno with a message that names the step; nothing is left then. */
int attach(const struct attach_spec *spec, unsigned *index, struct error *err);

/* Flushes and lets go. A device that is in use is refused with -EBUSY. With force the gateway is
 * killed first, what it held is lost, and the device goes even if it is in use. */
int detach(unsigned index, bool force, struct error *err);

#endif
