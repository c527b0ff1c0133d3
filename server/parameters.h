/* parameters: what the user asks of the plugin, KEY=VALUE each. */
#ifndef NDIO_PARAMETERS_H
#define NDIO_PARAMETERS_H

#include "memory/key-file.h"
#include "open.h"

/* A switch is 0 or 1. */
struct config {
	struct volume_options open; /* but what is known only when all were given */
	int pin, lock, lock_image;
	int discard;                            /* or -1: as the header says */
	const char *passphrase, *keyfile, *ask; /* at most one of them, as it was given */
	const char *metrics;                    /* where, or NULL */
	struct key_part keyfile_part;
};

/* Written before the fork, by nbdkit's main thread alone. */
extern struct config config;

/* nbdkit's config, config_complete and config_help. */
int parameters_take(const char *name, const char *value);
int parameters_complete(void);
extern const char parameters_help[];

/* Frees what they hold. */
void parameters_clear(void);

#endif
