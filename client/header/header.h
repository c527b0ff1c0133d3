/* header: a volume's LUKS header in a private memfd, sparse to the volume's size.
 *
 * libcryptsetup repairs headers by itself and writes when it likes: it sees only the memfd.
 * The bytes come from and go to the volume through the library, without a key, so that a local
 * and a remote volume are one path. */
#ifndef NDIO_HEADER_H
#define NDIO_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "integrity/trusted.h"
#include "library/ndio.h"
#include "luks/luks-memfd.h"

#define HEADER_UNIT 512 /* bytes: libcryptsetup's offsets, and a LUKS1 sector */

struct header {
	const char *name;           /* the locator of what holds it; the caller's */
	unsigned answer_timeout;    /* see struct ndio_options; set before it is opened */
	bool no_lock;               /* for header_open(): see NDIO_OPEN_NO_LOCK */
	uint64_t file_size;         /* for header_open(): bytes that a new file will have, or 0 */
	struct ndio_volume *volume; /* of it, opened without a key; NULL once it was given up */
	struct ndio_queue *queue;   /* of what is read and written there */
	struct ndio_info info;      /* of that */
	uint64_t size;              /* bytes of the file, device or export */
	struct luks_memfd memfd;    /* made by header_load() or by the caller */
	unsigned version;           /* 1 or 2 */
	uint64_t copy_len;          /* LUKS2: bytes of each of the two copies of the metadata */
	uint64_t len;               /* bytes from the start that hold the copies and key areas */
	uint8_t *before;            /* what the volume has there, once it was read */
	uint64_t before_len;        /* bytes of it */
	bool data_elsewhere;        /* a detached header: the data can't be behind it */
	bool first_is_stale;        /* libcryptsetup repaired this copy, in the memfd */
	bool second_is_stale;
	/* See header-seal.h. */
	struct trusted trusted;  /* the seal of what was loaded, and the trust file */
	bool breaks_seal;        /* whatever it was: it will be sealed anew */
	const char *seal_became; /* what its user is told of it when that is written; or NULL */
	void *volume_key;        /* when it is known: from secret_alloc() */
	size_t volume_key_len;   /* bytes */
};

/* Sets it up, with nothing opened. header_close() is due from here on, whatever fails. */
void header_init(struct header *header, const char *locator);
void header_close(struct header *header);

/* Closes the volume, or forgets what was read of it; the other stays. */
void header_let_go(struct header *header);
void header_forget(struct header *header);

/* Opens the volume, nothing more. 0 or a negative errno with a message that names it. */
int header_open(struct header *header, bool readonly, struct error *err);

/* Reads the metadata and loads them. -ENODATA: this isn't LUKS at all; -EINVAL: damaged; -ESTALE: not what
 * the trust file knows. */
int header_load(struct header *header, struct error *err);

/* Reads what is left: the key areas. Needed before a key is tried or set. */
int header_load_areas(struct header *header, struct error *err);

/* Reads what the volume has before end, for header_write_back(), and leaves the memfd as it is. */
int header_load_before(struct header *header, uint64_t end, struct error *err);

/* Finds version, copy_len and len of what libcryptsetup has loaded or formatted. */
int header_measure(struct header *header, struct error *err);

/* Fills buf with the volume's bytes, writes or zeroes them there, or flushes. step is what for: the
 * message is "name: step: read at 0: reason". A server that doesn't answer, or not soon enough
 * after a signal (see deferral.h), is given up: nothing more is possible with this volume then.
 * -ETIMEDOUT, -EINTR, or what reading and writing fail with. */
int header_read_bytes(struct header *header, void *buf, uint64_t len, uint64_t offset,
		      const char *step, struct error *err);
int header_write_bytes(struct header *header, const void *buf, uint64_t len, uint64_t offset,
		       const char *step, struct error *err);
int header_zero_bytes(struct header *header, uint64_t len, uint64_t offset, const char *step,
		      struct error *err);
int header_flush(struct header *header, const char *step, struct error *err);

#endif
