/* ndiotab: the table of disks to attach, /etc/ndiotab; see ndiotab(5). */
#ifndef NDIO_NDIOTAB_H
#define NDIO_NDIOTAB_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/key-file.h"

#define NDIOTAB_PATH "/etc/ndiotab"

#define NDIOTAB_USUAL UINT_MAX

/* A line. What isn't given is NULL, false or 0. The strings live in text. */
struct ndiotab_entry {
	char device[16];          /* "nbd0" */
	char *locator;            /* an absolute path or an NBD URI */
	char *key_file;           /* an absolute path; NULL: the passphrase is asked for */
	struct key_part key_part; /* which bytes of that */
	char *header;             /* an absolute path; NULL: it is in the disk */
	char *trust;              /* an absolute path, or NULL */
	char *metrics;            /* HOST:PORT or the like, or an absolute path; or NULL */
	bool read_only, discard;
	unsigned connections;    /* 1 to 64 */
	unsigned block_size;     /* bytes: 512, 1024, 2048 or 4096 */
	unsigned timeout;        /* seconds, 5 to 86400 */
	int slot;                /* of the key, 0 to 31; or LUKS_ANY_SLOT */
	char *token;             /* as unlock_take_token() takes it, or NULL */
	unsigned max_kdf_time;   /* seconds */
	unsigned answer_timeout; /* seconds, 1 to 86400 */
	unsigned reconnect;      /* seconds, 0 to 86400; NDIOTAB_USUAL where it isn't given */
	uint64_t unflushed;      /* bytes */
	unsigned line;           /* in the file, from 1 */
	char *text;
};

/* Finds the line for a device, "nbd0" or "/dev/nbd0". All lines are checked, and a mistake in
 * any of them is an error: it would only wait for the next boot. No file but this one is looked
 * at. 0, and the caller ends with ndiotab_entry_clear(); or a negative errno with a message that
 * names the file, and the line if there is one: -EINVAL a mistake, -ENODEV no line for the
 * device, -EFBIG, -ENOENT, -EACCES, ... */
int ndiotab_find(const char *path, const char *device, struct ndiotab_entry *entry,
		 struct error *err);

/* Harmless on a zeroed struct. */
void ndiotab_entry_clear(struct ndiotab_entry *entry);

#endif
