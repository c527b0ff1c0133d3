/* same: do two names stand for the same bytes?
 *
 * A name leads to places: a file, a block device, an NBD export, and what these are on in turn: a
 * loop device on a file, a partition on a disk, device-mapper and md on their disks, /dev/nbdN on
 * what it is attached to. Two names share bytes if they lead to one place at the same offsets. Where
 * on its disks a device-mapper device is, isn't known: two of them that share a disk are taken for
 * different, but each is taken to share bytes with the disk itself. */
#ifndef NDIO_SAME_H
#define NDIO_SAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Where to look. NULL in place of one: this machine, with nothing known of attached devices. */
struct same_view {
	const char *sys; /* where sysfs is; NULL: /sys */

	/* The locator that /dev/nbdN is attached to; false where that isn't known. May be NULL. */
	bool (*attached)(unsigned index, char *locator, size_t size);
};

/* Some bytes of what a path or an NBD URI names. */
struct same_part {
	const char *locator; /* NULL: nothing at all */
	uint64_t offset;
	uint64_t size; /* 0: to its end */
};

/* Would what is written to one be read from the other? Of the second, the disk of its file system
 * counts too. What doesn't exist is like nothing but a file that would be made by the same name. May
 * resolve the hosts of two URIs, so it may block. */
bool same_bytes(const struct same_view *view, const struct same_part *written,
		const struct same_part *read);

/* The same of two block devices, by their numbers. */
bool same_devices(const struct same_view *view, dev_t written, dev_t read);

#endif
