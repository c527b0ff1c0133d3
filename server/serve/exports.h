/* exports: what is served: a volume each, by name, with what its clients are told of it, and the loops
 * that serve them. */
#ifndef NDIO_EXPORTS_H
#define NDIO_EXPORTS_H

#include "loop.h"
#include "nbd/fence.h"
#include "open.h"
#include "transmission.h"

#define EXPORTS_MAX 64

struct export
{
	char *name;
	struct volume *volume;
	struct loops *loops;
	struct export_facts facts;
	char description[384];
};

struct exports {
	struct export *all[EXPORTS_MAX];
	unsigned count;
	struct fences fences;
	bool counted; /* what their clients ask for is */
};

/* Opens the volume and adds it. 0, or a negative errno with a message. */
int exports_add(struct exports *exports, const char *name, const struct volume_options *options,
		struct error *err);

/* Starts the loops of all, with so many threads each at the most. */
int exports_start(struct exports *exports, unsigned threads, struct error *err);

/* Of this name; without one: the only one. NULL: there is none. */
struct export *exports_find(struct exports *exports, const char *name);

/* The clients come to their end, and all is closed. */
void exports_close(struct exports *exports);

#endif
