/* volume: an open target plus, if there is a key, its LUKS geometry and cipher. */
#ifndef NDIO_VOLUME_H
#define NDIO_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/align.h"
#include "base/error.h"
#include "luks/luks.h"
#include "engine/rangelock.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "engine/syncs.h"
#include "file/target-file.h"
#include "nbd/target-nbd.h"
#include "engine/target.h"

struct volume_options {
	const char *file;   /* path of the target; or else */
	const char *uri;    /* an NBD server's export */
	struct target *target; /* that, open already and without queues: it becomes the volume's, but
				* not if opening fails; or NULL */
	unsigned connections; /* to it at the most, if it allows several; at least 1 */
	enum tls_by tls_by; /* for URIs of nbds */
	unsigned answer_timeout; /* seconds until a silent server is lost; 0: the usual */
	const char *header; /* path of a detached LUKS header, or NULL */
	bool unlock;        /* as LUKS, with pass; otherwise the bytes are served as they are */
	const void *pass;   /* passphrase or a key file's content; only used in volume_open() */
	size_t pass_len;
	bool one_slot;      /* only key slot number slot is tried */
	int slot;
	unsigned max_kdf_time; /* seconds, or 0: see struct luks_pass */
	enum direct_mode direct;
	bool readonly;      /* a target that can't be written is read-only anyway */
	enum image_locking locking; /* of a file that is opened for writing */
	uint64_t file_size; /* bytes: a file that can be written is taken to be at least so long */
	bool discard;       /* pass trims of an encrypted volume through, as its header may say too: */
	bool no_discard;    /* whatever it says, don't */
	struct notice notice; /* of a server: also later, in the threads that use it */
};

/* What a server tells of one that it decrypts: the LUKS version, and the cipher's sectors. */
#define VOLUME_DESCRIPTION "LUKS%u, sectors of %u bytes"

struct volume {
	struct target *target;
	bool encrypted;
	struct luks luks;
	unsigned sector;      /* of the cipher; the target's alignment without one */
	unsigned block;       /* what is read, changed and written whole: the larger of both */
	uint64_t data_offset; /* bytes, of the volume's first byte on the target */
	uint64_t size;        /* bytes, whole blocks */
	bool readonly;
	bool can_trim, can_fast_zero, can_extents, can_cache;
	bool reads_tear; /* see volume_reads_tear() */

	/* Written by each request, on every core; what is above only read. */
	uint8_t apart[CACHE_LINE];
	struct range_lock ranges;
	uint8_t apart_too[CACHE_LINE];
	struct request_cache requests;
	uint8_t apart_as_well[CACHE_LINE];
	struct stats stats;
	struct syncs syncs;
};

/* Opens and unlocks. Blocks; with a key it takes as long as the key slot's derivation. NULL
 * with a message, and *errnum the positive errno. The result may cross a fork if
 * pin_after_fork() is called in the child, since the key is locked memory. */
struct volume *volume_open(const struct volume_options *options, int *errnum, struct error *err);

/* Could a read that races a partial write of its neighbour in the same block see the neighbour's
 * change half done, and so decrypt bytes wrongly that nobody writes? Not where the disk replaces
 * as much at once as hangs together in the cipher; direct I/O does so for whole sectors of it. */
bool volume_reads_tear(const struct volume *volume);

/* Every channel is closed and every request freed. NULL is fine. */
void volume_close(struct volume *volume);

#endif
