#include "exports.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/align.h"
#include "engine/bounce.h"
#include "integrity/integrity-words.h"
#include "integrity/target-integrity.h"
#include "nbd/lasting-words.h"
#include "nbd/target-nbd.h"
#include "say.h"

#define MAX_REQUEST (32 * 1024 * 1024) /* bytes */
#define WORDS       128                /* lasting-words.h; and so has integrity-words.h */

static uint16_t export_flags(const struct volume *volume, bool no_zero)
{
	const struct target *target = volume->target;
	/* Nothing is cached here: a flush on one connection covers the writes of all. */
	uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_DF;

	flags |= volume->readonly ? NBD_FLAG_READ_ONLY : 0;
	flags |= volume->readonly || no_zero ? 0 : NBD_FLAG_SEND_WRITE_ZEROES;
	flags |= target->can_flush ? NBD_FLAG_SEND_FLUSH : 0;
	flags |= target->can_fua ? NBD_FLAG_SEND_FUA : 0;
	flags |= target->rotational ? NBD_FLAG_ROTATIONAL : 0;
	flags |= volume->can_trim && !volume->readonly ? NBD_FLAG_SEND_TRIM : 0;
	if (volume->can_fast_zero && flags & NBD_FLAG_SEND_WRITE_ZEROES)
		flags |= NBD_FLAG_SEND_FAST_ZERO;
	flags |= target->can_cache ? NBD_FLAG_SEND_CACHE : 0;
	return flags;
}

/* What is in it, the user's words, and who serves it. */
static int describe_export(struct export *export, bool no_zero, struct error *err)
{
	const struct volume *volume = export->volume;
	char luks[128] = "";

	if (volume->encrypted)
		snprintf(luks, sizeof(luks), VOLUME_DESCRIPTION "; ", volume->luks.version,
			 volume->sector);
	if (asprintf(&export->description, "%s%s%s%s%*s", luks, export->words ? export->words : "",
		     export->words ? "; " : "", export->fences.identity, 2 * WORDS, "") < 0) {
		export->description = NULL;
		return error_set(err, ENOMEM, "no memory for an export");
	}
	export->described = strlen(export->description) - 2 * WORDS;
	export->description[export->described] = '\0';
	export->facts = (struct export_facts){
		.name = export->name,
		.description = export->description,
		.size = volume->size,
		.flags = export_flags(volume, no_zero),
		.min_block = 1,
		.preferred_block = volume->block > 4096 ? volume->block : 4096,
		.max_block = MAX_REQUEST,
		.extents = volume->can_extents,
	};
	return 0;
}

static void free_export(struct export *export)
{
	if (!export)
		return;
	fences_clear(&export->fences);
	free(export->name);
	free(export->words);
	free(export->description);
	free(export);
}

int exports_add(struct exports *exports, const char *name, const char *words,
		const struct volume_options *options, struct error *err)
{
	struct export *export;
	int ret;

	if (exports->count == EXPORTS_MAX)
		return error_set(err, E2BIG, "no more than %d exports", EXPORTS_MAX);
	export = calloc(1, sizeof(*export));
	if (export) {
		export->fences = (struct fences)FENCES_INIT;
		export->name = strdup(name);
		export->words = words && *words ? strdup(words) : NULL;
	}
	if (!export || !export->name || (words && *words && !export->words))
		ret = error_set(err, ENOMEM, "no memory for an export");
	else
		ret = volume_open(options, &export->volume, err);
	if (ret < 0)
		free_export(export);
	else
		exports->all[exports->count++] = export;
	return ret;
}

static unsigned usual_threads(unsigned nr_exports)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t most = max_u64(1, min_u64(8, THREADS_USUAL / max_u64(1, nr_exports)));

	return cores < 1 ? 1 : min_u64(cores, most);
}

int exports_start(struct exports *exports, unsigned threads, struct error *err)
{
	bool pinned = true;
	int ret = 0;

	if (threads == 0)
		threads = usual_threads(exports->count);
	for (unsigned i = 0; i < exports->count && ret == 0; i++) {
		struct export *export = exports->all[i];

		ret = fences_identify(&export->fences, !target_is_nbd(export->volume->disk), err);
		if (ret == 0)
			ret = describe_export(export, exports->no_zero, err);
		if (ret == 0)
			ret = loops_open(export->volume, threads, exports->counted, &export->loops,
					 err);
		pinned = pinned &&
			 (ret < 0 || !export->volume->encrypted || loops_are_pinned(export->loops));
	}
	if (!pinned)
		say("%s", BOUNCE_UNPINNED);
	return ret;
}

struct export *exports_find(struct exports *exports, const char *name)
{
	if (!*name && exports->count == 1)
		return exports->all[0];
	for (unsigned i = 0; i < exports->count; i++)
		if (strcmp(exports->all[i]->name, name) == 0)
			return exports->all[i];
	return NULL;
}

const struct export_facts *exports_tell(struct export *export)
{
	struct target *target = export->volume->target;
	char *end = export->description + export->described;
	struct target_integrity_facts integrity;
	struct integrity_found found;
	struct lasting_facts server;

	*end = '\0';
	if (target_nbd_lasting(export->volume->disk, &server))
		lasting_say(&server, end, WORDS);
	if (!target_is_integrity(target))
		return &export->facts;
	target_integrity_facts(target, &integrity);
	found = (struct integrity_found){
		.trusted = integrity.trusted,
		.bad_blocks = integrity.bad_blocks,
		.bad_reads = integrity.bad,
		.stale_areas = integrity.stale,
	};
	integrity_say(&found, end + strlen(end), WORDS);
	return &export->facts;
}

void exports_close(struct exports *exports)
{
	/* A server that is silent or away would be waited for longer than anybody wants; and all of them
	 * beside each other. */
	for (unsigned i = 0; i < exports->count; i++)
		if (target_is_nbd(exports->all[i]->volume->disk))
			target_nbd_hurry(exports->all[i]->volume->disk);
	for (unsigned i = 0; i < exports->count; i++)
		loops_end(exports->all[i]->loops);
	for (unsigned i = 0; i < exports->count; i++) {
		struct export *export = exports->all[i];

		loops_close(export->loops);
		volume_close(export->volume);
		free_export(export);
	}
	exports->count = 0;
}
