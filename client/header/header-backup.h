/* header-backup: a header in a file, and back: what cryptsetup luksHeaderBackup writes and
 * luksHeaderRestore takes. libcryptsetup makes and reads these; of a disk it sees the memfd alone. */
#ifndef NDIO_HEADER_BACKUP_H
#define NDIO_HEADER_BACKUP_H

#include <stdbool.h>

#include "base/error.h"
#include "header/header.h"

/* Makes the file, which may not be there yet, of what was loaded, with its key areas. It is on stable
 * storage and whole, or there is none. 0, or a negative errno with a message. */
int header_backup(struct header *header, const char *path, struct error *err);

/* How a backup goes with the disk that it is restored to. */
enum backup_match {
	BACKUP_SAME, /* it is this volume's, whatever has become of its key slots since */
	BACKUP_OTHER, /* of another volume, or of this one before it got another volume key, or size */
	BACKUP_ORPHAN, /* there is no LUKS header on the disk that could tell */
};

/* Puts the file's header into the memfd in place of what is there, for header_write_back(). The volume is
 * open, and nothing loaded yet. -EINVAL with a message: no whole backup. */
int header_load_backup(struct header *header, const char *path, enum backup_match *match,
		       struct error *err);

#endif
