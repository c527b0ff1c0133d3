/* key-file: what is in a file with a secret, and who else may read it. */
#ifndef NDIO_KEY_FILE_H
#define NDIO_KEY_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/secret.h"

#define KEY_MAX (8 * 1024 * 1024) /* bytes, cryptsetup's limit for a key file */

/* Which of its bytes are the key. */
struct key_part {
	uint64_t offset; /* so many bytes are passed over */
	uint64_t size;   /* bytes, at most KEY_MAX; 0: all until its end */
};

/* Reads a key from a file, a pipe or a device, from where the descriptor stands, and not a byte
 * more than part says. name starts each message: "key file PATH". 0, or a negative errno: -EFBIG
 * more than KEY_MAX, -ENODATA less than part asks for, ... The caller ends with key_clear(). */
int key_file_read(int fd, const char *name, const struct key_part *part, struct key *key,
		  struct error *err);

/* One rule for files that hold nothing but secrets (pre-shared keys, private keys). Nobody but the
 * owner may read or change it; but one that isn't this user's own, or was given to another group
 * than this user's, may be read by its group: that is how systemd, Kubernetes and Debian's ssl-cert
 * hand secrets to a service. 0, or -EACCES with a message. */
int key_file_check(int fd, const char *path, struct error *err);

/* Reads one from a file. It may be any file, such as a photograph; but one that others may change, in a
 * folder that they get at, is refused: they could choose the key. *readable tells whether they may
 * read it. Otherwise as key_file_read(). */
int key_file_load(const char *path, const char *name, const struct key_part *part, bool *readable,
		  struct key *key, struct error *err);

#endif
