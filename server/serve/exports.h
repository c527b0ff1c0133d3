/* exports: what is served: a volume each, by name, with what its clients are told of it, and the loops
 * that serve them. */
#ifndef NDIO_EXPORTS_H
#define NDIO_EXPORTS_H

#include "loop.h"
#include "nbd/fence.h"
#include "open.h"
#include "transmission.h"

#define EXPORTS_MAX   64
#define THREADS_USUAL 32

struct export
{
	char *name;
	struct volume *volume;
	struct loops *loops;
	struct export_facts facts;
	char *words;       /* the user's own; or NULL */
	char *description; /* with those */
	size_t described; /* bytes of it; behind them is how its server is, if that is waited for */
	struct fences fences;
};

struct exports {
	struct export *all[EXPORTS_MAX];
	unsigned count;
	bool counted; /* what their clients ask for is */
	bool no_zero; /* none takes requests for zeroes */
};

/* Opens the volume and adds it; words are for its description, and may be NULL. 0, or a negative errno with a
 * message. */
int exports_add(struct exports *exports, const char *name, const char *words,
		const struct volume_options *options, struct error *err);

/* Starts the loops of all, with so many threads each at the most. 0: a core one, but so that there are no
 * more than THREADS_USUAL in all, or one of each. */
int exports_start(struct exports *exports, unsigned threads, struct error *err);

/* Of this name. Without one: the one whose name is empty, or the only one. NULL: there is none. */
struct export *exports_find(struct exports *exports, const char *name);

/* What a client is told of it now. One thread at a time. */
const struct export_facts *exports_tell(struct export *export);

/* The clients come to their end, and all is closed. */
void exports_close(struct exports *exports);

#endif
