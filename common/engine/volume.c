#include "engine/volume.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/cipher.h"

struct volume *volume_new(void)
{
	struct volume *volume = calloc(1, sizeof(*volume));

	if (!volume)
		return NULL;
	volume->cipher_ops = &cipher_plain;
	range_lock_init(&volume->ranges);
	request_cache_init(&volume->requests);
	return volume;
}

bool volume_reads_tear(const struct volume *volume)
{
	return volume->tag_len ||
	       (volume->encrypted &&
		volume->target->atomic < cipher_granule(volume->luks.cipher, volume->luks.sector));
}

void volume_close(struct volume *volume)
{
	if (!volume)
		return;
	assert(stat_get(&volume->stats, in_flight) == 0);
	luks_clear(&volume->luks);
	if (volume->target)
		volume->target->ops->close(volume->target);
	request_cache_destroy(&volume->requests);
	range_lock_destroy(&volume->ranges);
	syncs_destroy(&volume->syncs);
	free(volume);
}
