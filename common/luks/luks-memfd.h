/* luks-memfd: a LUKS header in a private memfd, sparse to the volume's size: all that libcryptsetup
 * ever sees, since it repairs headers by itself and must never write to the user's image.
 *
 * Before it repairs one it looks, by libblkid, whether the disk is something else by now, and leaves
 * it then. For that to come out as on the disk itself the memfd has the disk's end, too: with its
 * beginning that is where file systems, partition tables and arrays have their signatures.
 *
 * A limit on the size of files (ulimit -f) counts for a memfd as well. It is no longer than that,
 * and what wouldn't fit raises no SIGXFSZ. */
#ifndef NDIO_LUKS_MEMFD_H
#define NDIO_LUKS_MEMFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct crypt_device;

#define LUKS_TAIL       (UINT64_C(1) << 20)   /* bytes at the end that are needed as well */
#define LUKS_HEADER_MAX (UINT64_C(160) << 20) /* LUKS2 allows key areas of 128 MiB, after 8 MiB */

#define LUKS_LABEL_MAX                                                                             \
	47 /* bytes, of LUKS2's label and subsystem: libcryptsetup cuts what is longer */

struct luks_memfd {
	const char *name;        /* of the volume, for messages; the caller's */
	uint64_t size;           /* bytes, of the volume */
	uint64_t len;            /* of the memfd: less only where a limit leaves no room */
	int fd;                  /* -1 before it is made */
	struct crypt_device *cd; /* libcryptsetup's device on it */
	char log[256];           /* the last error that libcryptsetup told, fit for a terminal */
};

/* Nothing is made yet. luks_memfd_close() is due from here on, whatever fails. */
void luks_memfd_init(struct luks_memfd *memfd, const char *name);
void luks_memfd_close(struct luks_memfd *memfd);

/* Makes it, empty, and libcryptsetup's device on it. As the others: 0, or a negative errno with a
 * message that starts with the name. */
int luks_memfd_make(struct luks_memfd *memfd, uint64_t size, struct error *err);

/* Where the end begins that is needed as well, if the volume's first from bytes are there. */
uint64_t luks_memfd_tail(const struct luks_memfd *memfd, uint64_t from);

/* Puts a part of the volume there, as far as the memfd goes. */
int luks_memfd_write(struct luks_memfd *memfd, const void *buf, uint64_t len, uint64_t offset,
		     struct error *err);

/* Loads the header. -ENODATA: this isn't LUKS at all, or no more; -EINVAL: damaged; -EFBIG: the
 * limit leaves too little room to tell. */
int luks_memfd_load(struct luks_memfd *memfd, struct error *err);

/* Where the metadata and key areas of what was loaded or formatted end, in bytes; LUKS2: and how
 * long each of the two copies of the metadata is, else 0. copy_len may be NULL. */
int luks_memfd_measure(struct luks_memfd *memfd, uint64_t *end, uint64_t *copy_len,
		       struct error *err);

/* -EFBIG: a limit cut the memfd off before end, in bytes. */
int luks_memfd_check_room(const struct luks_memfd *memfd, uint64_t end, struct error *err);

/* 1 or 2, of what was loaded or formatted. */
unsigned luks_memfd_version(const struct luks_memfd *memfd);

/* The cipher and mode of what was loaded, "aes-xts-plain64", '?' for what is unprintable. */
void luks_memfd_cipher(const struct luks_memfd *memfd, char *text, size_t size);

/* For what was loaded and makes no sense: a message that says so, and -EINVAL. */
int luks_memfd_damaged(const struct luks_memfd *memfd, struct error *err);

/* What libcryptsetup said of its own failure, or else what errno means. */
const char *luks_memfd_reason(const struct luks_memfd *memfd, int ret);

/* Do a disk's first len bytes look like a LUKS header's? */
bool luks_starts(const void *first, size_t len);

#endif
