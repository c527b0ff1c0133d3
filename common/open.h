/* open: what a locator, and a key's content, becomes a volume by. The only place that knows every
 * kind of target, and LUKS beside the cipher. */
#ifndef NDIO_OPEN_H
#define NDIO_OPEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/notice.h"
#include "engine/volume.h"
#include "file/target-file.h"
#include "luks/luks-tokens.h"
#include "memory/key-file.h"
#include "nbd/target-nbd.h"

#define INTEGRITY_CACHE_MIN (1024 * 1024)

struct volume_options {
	const char *file; /* path of the target; or else */
	const char *uri;  /* an NBD server's export */
	struct target
		*target;      /* that, open already and without queues: it becomes the volume's, but
				* not if opening fails; or NULL */
	unsigned connections; /* to it at the most, if it allows several; at least 1 */
	unsigned answer_timeout; /* seconds until a silent server is lost; 0: the usual */
	unsigned reconnect;      /* seconds that one which is away is waited for; 0: it is lost */
	uint64_t unflushed;      /* bytes kept for its return; 0: the usual. See target-nbd */
	bool memory_ready;       /* likewise */
	unsigned wait;           /* seconds that one which isn't there yet is waited for */
	struct lasting_listener listener; /* of its loss and return, with reconnect */
	const char *header;               /* path of a detached LUKS header, or NULL */
	const char
		*trust;   /* path of a trust file, or NULL; with unlock. It is held until the volume
			    * is closed if it has a part in reading, else while it is opened */
	bool unlock;      /* as LUKS, with pass; otherwise the bytes are served as they are */
	const void *pass; /* passphrase or a key file's content; only used in volume_open() */
	size_t pass_len;
	bool volume_key;                /* pass is the volume key itself */
	const struct luks_asker *asker; /* or NULL; in their place */
	struct luks_tokens tokens;      /* tried before these; its wait is answer_timeout's */
	bool by_tokens;                 /* are they? */
	bool one_slot;                  /* only key slot number slot is tried */
	int slot;
	unsigned max_kdf_time; /* seconds, or 0: see struct luks_pass */
	enum direct_mode direct;
	bool readonly;              /* a target that can't be written is read-only anyway */
	bool learn;                 /* and all the same, what is seen goes into the trust file */
	enum image_locking locking; /* of a file that is opened for writing */
	uint64_t file_size; /* bytes: a file that can be written is taken to be at least so long */
	bool discard;    /* pass trims of an encrypted volume through, as its header may say too: */
	bool no_discard; /* whatever it says, don't */
	uint64_t
		integrity_cache; /* bytes of tags kept in memory, INTEGRITY_CACHE_MIN or more; 0: the
				   * usual */
	struct notice notice;    /* of a server: also later, in the threads that use it */
};

/* Opens and unlocks. Blocks; with a key it takes as long as the key slot's derivation. 0, or a
 * negative errno with a message. The volume is the caller's, for volume_close(). It may cross a fork
 * if pin_after_fork() is called in the child, since the key is locked memory. */
int volume_open(const struct volume_options *options, struct volume **volume, struct error *err);

/* For servers. May the key's file be read where the disk is written? The first write of a client would be to
 * the key: -EINVAL with a message. file may be NULL. May resolve hosts, so it may block. */
int open_check_key_file(const struct volume_options *options, const char *file,
			const struct key_part *part, struct error *err);

/* Who has forgotten the key would wonder what the clients see: tells of a LUKS volume that was opened without
 * one. What can't be read is theirs to find out. */
void open_tell_ciphertext(const struct volume *volume, const struct notice *notice);

#endif
