/* disk: what is to be served, as the command line or a line of a table says, and how it becomes an export. */
#ifndef NDIO_DISK_H
#define NDIO_DISK_H

#include <stdbool.h>

#include "exports.h"
#include "memory/ask.h"
#include "memory/key-file.h"
#include "open.h"

#define DISK_SLOT_MAX        31
#define DISK_CONNECTIONS_MAX 64

/* Its strings are somebody else's. */
struct disk {
	const char *name;        /* the export's, of UTF-8 */
	const char *description; /* the user's words; or NULL */
	const char *locator;
	const char *key_file; /* "-": standard input; NULL: key_fd, or there is none */
	bool is_credential;   /* systemd's, and key_file is its name */
	int key_fd;           /* or -1 */
	struct asker asker;   /* of the key, in their place; without a descriptor (-1): not asked */
	struct key_part key_part;   /* which bytes of either */
	struct volume_options open; /* but for the key */
	unsigned line;              /* of the table; 0: the command line */
};

struct disks {
	const char *path; /* of the table, for messages; or NULL */
	struct disk all[EXPORTS_MAX];
	unsigned count;
	char *text; /* the table's; or NULL */
};

/* What an export's name can be. 0, or -EINVAL with a message. */
int disk_check_name(const char *name, struct error *err);

/* Puts a locator where the options want it. 0, or -EINVAL with a message. */
int disk_set_locator(struct disk *disk, const char *locator, struct error *err);

/* "any", or the number of a token. False: it is neither. */
bool disk_set_token(struct disk *disk, const char *value);

/* Opens all, each with its key, or fails for one of them: a negative errno, and a message that names its line.
 * Two of one name, or of the same bytes, and a key or header that another's clients could write to, are
 * refused first. What is to be told of a disk is by the way. */
int disks_open(const struct disks *disks, struct exports *exports, struct error *err);

/* Frees what a table has. */
void disks_clear(struct disks *disks);

#endif
