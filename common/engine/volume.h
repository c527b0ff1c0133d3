/* volume: an open target plus, if there is a key, its LUKS geometry and cipher: what every request
 * passes. open.h makes one out of names. */
#ifndef NDIO_VOLUME_H
#define NDIO_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/align.h"
#include "engine/cipher.h"
#include "engine/rangelock.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "engine/syncs.h"
#include "engine/target.h"
#include "luks/luks.h"

/* What a server tells of one that it decrypts: the LUKS version, and the cipher's sectors. */
#define VOLUME_DESCRIPTION "LUKS%u, sectors of %u bytes"

struct volume {
	struct target *target;
	struct target *disk; /* what that stands on, or the same */
	bool encrypted;
	struct luks luks;
	const struct cipher_ops *cipher_ops;
	unsigned tag_len; /* bytes, of each sector's tag, which the target keeps; 0: it has none */
	unsigned sector;  /* of the cipher; the target's alignment without one */
	unsigned block;   /* what is read, changed and written whole: the larger of both */
	uint64_t data_offset; /* bytes, of the volume's first byte on the target */
	uint64_t size;        /* bytes, whole blocks */
	bool readonly;
	bool can_trim, can_fast_zero, can_extents;
	bool reads_tear; /* see volume_reads_tear() */

	/* Written by each request, on every core; what is above only read. */
	uint8_t apart[CACHE_LINE];
	struct range_lock ranges;
	uint8_t apart_too[CACHE_LINE];
	struct request_cache requests;
	uint8_t apart_as_well[CACHE_LINE];
	struct stats stats;
	struct syncs syncs;
};

/* A volume of nothing yet; NULL: no memory. */
struct volume *volume_new(void);

/* Could a read that races a partial write of its neighbour in the same block see the neighbour's
 * change half done, and so decrypt bytes wrongly that nobody writes? Not where the disk replaces
 * as much at once as hangs together in the cipher; direct I/O does so for whole sectors of it. What has
 * a tag always tears. */
bool volume_reads_tear(const struct volume *volume);

/* Of the tags of some sectors, from that of the sector on that is at bytes behind the first; NULL
 * stays NULL. */
static inline uint8_t *volume_tag(const struct volume *volume, uint8_t *tags, uint64_t at)
{
	return tags ? tags + at / volume->sector * volume->tag_len : NULL;
}

/* Every channel is closed and every request freed. NULL is fine. */
void volume_close(struct volume *volume);

#endif
