/* attachment: what is kept of each attached device, so that any later command finds it: a folder
 * named after it below /run/ndio (or $NDIO_RUN_DIR), which only root may enter, with the
 * gateway's socket and the facts as JSON. */
#ifndef NDIO_ATTACHMENT_H
#define NDIO_ATTACHMENT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "attach/kernel-device.h"
#include "base/error.h"

struct attachment {
	unsigned index; /* of /dev/nbdN */
	char dir[PATH_MAX];
	char socket[PATH_MAX]; /* fits a socket's address */
	int lock;              /* the folder's descriptor; -1 while it isn't locked */
};

struct attachment_facts {
	char *locator;  /* NULL where there are no facts */
	char since[32]; /* RFC 3339 */
	unsigned connections;
	unsigned timeout, reconnect;        /* seconds */
	struct kernel_device_counts before; /* what the kernel had counted then */
};

/* Finds its paths. -ENAMETOOLONG with a message where a socket can't have such a path; -EINVAL
 * where $NDIO_RUN_DIR isn't an absolute one. */
int attachment_init(struct attachment *attachment, unsigned index, struct error *err);

/* Makes the folder, if it isn't there, and locks it until attachment_unlock() or the end of this
 * process. -EBUSY: another command has it; -EPERM: somebody else could have put it there; ... */
int attachment_lock(struct attachment *attachment, struct error *err);
void attachment_unlock(struct attachment *attachment);

/* Is there such a folder? */
bool attachment_exists(const struct attachment *attachment);

/* Empties a locked one. */
void attachment_clear(const struct attachment *attachment);

/* Removes a locked one, and unlocks it. */
int attachment_remove(struct attachment *attachment, struct error *err);

/* Writes the facts; the time is now. */
int attachment_save(const struct attachment *attachment, const struct attachment_facts *facts,
		    struct error *err);

/* Reads them. -ENOENT: none were written, or no such folder. attachment_facts_clear() is due
 * whatever comes. */
int attachment_load(const struct attachment *attachment, struct attachment_facts *facts,
		    struct error *err);
void attachment_facts_clear(struct attachment_facts *facts);

/* The numbers of all, in their order, at most max. How many there are, or a negative errno. */
int attachment_list(unsigned *indices, unsigned max, struct error *err);

#endif
