#include "exports.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bounce.h"
#include "nbd/target-nbd.h"
#include "say.h"

#define MAX_REQUEST (32 * 1024 * 1024) /* bytes */

static uint16_t flags_of(const struct volume *volume)
{
	const struct target *target = volume->target;
	/* Nothing is cached here: a flush on one connection covers the writes of all. */
	uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_DF;

	flags |= volume->readonly ? NBD_FLAG_READ_ONLY : NBD_FLAG_SEND_WRITE_ZEROES;
	flags |= target->can_flush ? NBD_FLAG_SEND_FLUSH : 0;
	flags |= target->can_fua ? NBD_FLAG_SEND_FUA : 0;
	flags |= target->rotational ? NBD_FLAG_ROTATIONAL : 0;
	flags |= volume->can_trim && !volume->readonly ? NBD_FLAG_SEND_TRIM : 0;
	flags |= volume->can_fast_zero && !volume->readonly ? NBD_FLAG_SEND_FAST_ZERO : 0;
	flags |= target->can_cache ? NBD_FLAG_SEND_CACHE : 0;
	return flags;
}

static void describe(struct export *export, const char *identity)
{
	const struct volume *volume = export->volume;
	int len = 0;

	if (volume->encrypted)
		len = snprintf(export->description, 128, VOLUME_DESCRIPTION "; ",
			       volume->luks.version, volume->sector);
	snprintf(export->description + len, sizeof(export->description) - len, "%s", identity);
	export->facts = (struct export_facts){
		.name = export->name,
		.description = export->description,
		.size = volume->size,
		.flags = flags_of(volume),
		.min_block = 1,
		.preferred_block = volume->block > 4096 ? volume->block : 4096,
		.max_block = MAX_REQUEST,
		.extents = volume->can_extents,
	};
}

int exports_add(struct exports *exports, const char *name, const struct volume_options *options,
		struct error *err)
{
	struct export *export;
	int ret;

	if (exports->count == EXPORTS_MAX)
		return error_set(err, E2BIG, "no more than %d exports", EXPORTS_MAX);
	export = calloc(1, sizeof(*export));
	if (!export || !(export->name = strdup(name))) {
		free(export);
		return error_set(err, ENOMEM, "no memory for an export");
	}
	ret = volume_open(options, &export->volume, err);
	if (ret < 0) {
		free(export->name);
		free(export);
		return ret;
	}
	exports->all[exports->count++] = export;
	return 0;
}

int exports_start(struct exports *exports, unsigned threads, struct error *err)
{
	bool last = true, pinned = true;
	int ret;

	for (unsigned i = 0; i < exports->count; i++)
		last = last && !target_is_nbd(exports->all[i]->volume->target);
	ret = fences_identify(&exports->fences, last, err);
	for (unsigned i = 0; i < exports->count && ret == 0; i++) {
		struct export *export = exports->all[i];

		describe(export, exports->fences.identity);
		ret = loops_open(export->volume, threads, exports->counted, &export->loops, err);
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

void exports_close(struct exports *exports)
{
	for (unsigned i = 0; i < exports->count; i++) {
		struct export *export = exports->all[i];

		/* A server that is silent or away would be waited for longer than anybody wants. */
		if (target_is_nbd(export->volume->target))
			target_nbd_hurry(export->volume->target);
		loops_close(export->loops);
		volume_close(export->volume);
		free(export->name);
		free(export);
	}
	exports->count = 0;
	fences_clear(&exports->fences);
}
