/* partition-table: for which size of sectors was a disk's partition table made? A GPT lies in the
 * second sector, and counts in sectors, as an MBR does. UEFI specification 2.10, chapter 5. */
#ifndef NDIO_PARTITION_TABLE_H
#define NDIO_PARTITION_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* first: the disk's first len bytes, 8192 or as many as it has; size: the disk's, or UINT64_MAX if it
 * isn't known. 512 or 4096; 0: there is no table, or it can't be told. */
unsigned partition_table_sector(const void *first, size_t len, uint64_t size);

#endif
