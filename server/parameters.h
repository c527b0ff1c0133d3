/* parameters: what the user asks of the plugin, KEY=VALUE each. */
#ifndef NDIO_PARAMETERS_H
#define NDIO_PARAMETERS_H

#include <stdbool.h>

#include "open.h"
#include "memory/key-file.h"
#include "memory/secret.h"

struct parameters {
	char *file, *header;
	const char *uri;
	unsigned connections;
	unsigned answer; /* seconds; 0: the usual */
	enum direct_mode direct;
	bool pin, lock, lock_image;
	int discard; /* 0 or 1; or -1: as the header says */
	int slot;    /* the key slot that is tried, or LUKS_ANY_SLOT */
	unsigned max_kdf_time; /* seconds, or 0: the default */
	bool have_key;
	const char *keyfile; /* not yet read, or NULL */
	const char *passphrase_file; /* of passphrase=+FILE, or NULL */
	int ask;     /* the socket of a program that asks for the passphrase, or -1 */
	struct key_part keyfile_part;
	struct key pass;
};

/* Written before the fork, by nbdkit's main thread alone. */
extern struct parameters config;

/* Takes one. 0, or -1 with a message told. */
int parameters_take(const char *key, const char *value);

/* All were given: do they go together? Reads the key file. 0, or -1 with a message told. */
int parameters_complete(void);

void parameters_clear(void);

extern const char parameters_help[];

#endif
