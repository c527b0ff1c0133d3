/* table: exports as a file has them, a line each, in the manner of ndiotab(5); see ndio-serve(8). */
#ifndef NDIO_TABLE_H
#define NDIO_TABLE_H

#include "disk.h"

/* What a table says: each line a disk, as usual but for what the line has of its own. Only the text is looked
 * at: no file that it names. Lines' strings are cut from the text, which is written to up to text[len] and
 * must stay. 0, or a negative errno and a message with path and line: -EINVAL a mistake, which may be that
 * there is no line at all. */
int table_parse(const char *path, char *text, size_t len, const struct disk *usual,
		struct disks *disks, struct error *err);

/* The same of a file, which is read whole; ends with disks_clear(), also if it fails. */
int table_read(const char *path, const struct disk *usual, struct disks *disks, struct error *err);

#endif
