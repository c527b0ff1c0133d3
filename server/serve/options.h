/* options: the command line of ndio serve. */
#ifndef NDIO_SERVE_OPTIONS_H
#define NDIO_SERVE_OPTIONS_H

#include <stdbool.h>

#include "base/listen.h"
#include "disk.h"
#include "tls/tls-server.h"

struct serve_options {
	struct disk disk; /* as each is, but for its locator, and its name if there are several */
	struct disks disks;
	int nr_locators;
	const char *table; /* a path, to be read, in place of disks; or NULL */
	const char *addresses[LISTEN_MAX];
	unsigned nr_addresses;
	const char *socket;            /* a path, or NULL */
	const char *run;               /* a command, or NULL */
	const char *pid_file;          /* or NULL */
	const char *metrics;           /* where, or NULL */
	struct tls_server_options tls; /* with neither: no TLS */
	bool tls_optional;
	int discard;      /* -1: as the header says */
	bool lock;        /* all memory */
	bool no_zero;     /* takes no requests for zeroes */
	bool background;  /* serves there; and paths are absolute */
	unsigned threads; /* of each disk; 0: as usual */
	unsigned max_connections;
};

/* -1: go on; or a status to exit with. What was wrong has been told. */
int options_take(int argc, char **argv, struct serve_options *options);

#endif
