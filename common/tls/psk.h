/* psk: pre-shared keys of TLS, in the file that nbdkit, libnbd and psktool share: USER:HEX in
 * each line. Empty lines, and those that start with #, are passed over. */
#ifndef NDIO_PSK_H
#define NDIO_PSK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PSK_KEY_MIN  16  /* bytes; less can be guessed from one handshake */
#define PSK_KEY_MAX  64  /* bytes, psktool's limit */
#define PSK_USER_MAX 255 /* bytes */
#define PSK_FILE_MAX (64 * 1024)

struct psk {
	char *user;
	uint8_t *key; /* from secret_alloc(), PSK_KEY_MAX bytes of which key_len are used */
	size_t key_len;
};

/* Reads the key of a user from an open file; path is for messages. -ENOENT, if it has none: then
 * every line was looked at. -EINVAL, with the line's number, if one makes no sense; -EFBIG; ...
 * End with psk_clear(), also when it failed. */
int psk_read(int fd, const char *path, const char *user, struct psk *psk, struct error *err);

/* Opens the file for that, and refuses one that others may read (key-file.h): -EACCES. user may be NULL: the
 * name of the user that this process runs as. */
int psk_find(const char *path, const char *user, struct psk *psk, struct error *err);

/* Cleanses and frees. Harmless on a zeroed struct. */
void psk_clear(struct psk *psk);

#endif
