#include "header/signature.h"

#include <blkid.h>
#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"
#include "header/edges.h"

static void add_range(struct signatures *found, uint64_t offset, uint64_t len)
{
	if (found->nr_magic < SIGNATURES_MAX)
		found->magic[found->nr_magic++] = (struct header_range){ offset, len };
}

static void add_magic(struct signatures *found, const struct edges *edges, blkid_probe probe,
		      const char *offset_name, const char *magic_name)
{
	const char *offset;
	size_t len;

	if (blkid_probe_lookup_value(probe, offset_name, &offset, NULL) == 0 &&
	    blkid_probe_lookup_value(probe, magic_name, NULL, &len) == 0)
		add_range(found, edges_offset(edges, strtoull(offset, NULL, 10)), len);
}

/* Of the words of libblkid, "crypto_LUKS" needs a translation; "ext4 (filesystem)" doesn't. */
static void name_content(struct signatures *found, blkid_probe probe, const char *type)
{
	const char *usage = NULL;

	blkid_probe_lookup_value(probe, "USAGE", &usage, NULL);
	if (strcmp(type, "crypto_LUKS") == 0)
		snprintf(found->text, sizeof(found->text), "a LUKS volume");
	else
		snprintf(found->text, sizeof(found->text), "%s (%s)", type,
			 usage ? usage : "of unknown use");
}

static void add_one(struct signatures *found, const struct edges *edges, blkid_probe probe)
{
	const char *type;

	if (blkid_probe_lookup_value(probe, "TYPE", &type, NULL) == 0) {
		found->luks |= strcmp(type, "crypto_LUKS") == 0;
		if (!found->text[0])
			name_content(found, probe, type);
		add_magic(found, edges, probe, "SBMAGIC_OFFSET", "SBMAGIC");
	} else if (blkid_probe_lookup_value(probe, "PTTYPE", &type, NULL) == 0) {
		if (!found->text[0])
			snprintf(found->text, sizeof(found->text), "a partition table (%s)", type);
		add_magic(found, edges, probe, "PTMAGIC_OFFSET", "PTMAGIC");
	}
}

static int ask_blkid(const struct edges *edges, const char *name, struct signatures *found,
		     struct error *err)
{
	blkid_probe probe = blkid_new_probe();

	if (!probe || blkid_probe_set_device(probe, edges->fd, 0, 0) < 0) {
		blkid_free_probe(probe);
		return error_set(err, ENOMEM, "%s: looking what is there: libblkid failed", name);
	}
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE |
							 BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(probe, 1);
	blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC);
	while (blkid_do_probe(probe) == 0)
		add_one(found, edges, probe);
	blkid_free_probe(probe);
	return 0;
}

/* ---- what libblkid doesn't take for valid on a disk that was shortened ---- */

static void look_for(struct signatures *found, const struct edges *edges, const char *name,
		     const void *bytes, size_t len, uint64_t offset)
{
	if (!edges_have(edges, bytes, len, offset))
		return;
	if (!found->text[0])
		snprintf(found->text, sizeof(found->text), "%s", name);
	add_range(found, offset, len);
}

/* Members of arrays of Linux' md, with metadata at the end: version 0.90, in the byte order of who made
 * it, says how large the member is; 1.0 where the metadata are. */
static void look_for_md(struct signatures *found, const struct edges *edges)
{
	static const uint8_t little[] = { 0xfc, 0x4e, 0x2b, 0xa9 },
			     big[] = { 0xa9, 0x2b, 0x4e, 0xfc };
	static const char name[] = "linux_raid_member (raid)";
	uint64_t old = round_down(edges->size, 65536) - 65536;

	look_for(found, edges, name, little, sizeof(little), old);
	look_for(found, edges, name, big, sizeof(big), old);
	look_for(found, edges, name, little, sizeof(little), round_down(edges->size, 4096) - 8192);
}

/* SNIA's format of RAID controllers says where its other header is. It is in the last sector, or before
 * 128 KiB that some controller keeps for itself. */
static void look_for_ddf(struct signatures *found, const struct edges *edges)
{
	static const uint8_t big[] = { 0xde, 0x11, 0xde, 0x11 },
			     little[] = { 0x11, 0xde, 0x11, 0xde };
	uint64_t last = round_down(edges->size, HEADER_UNIT) - HEADER_UNIT;

	for (unsigned i = 0; i < 2; i++, last -= 256 * HEADER_UNIT) {
		look_for(found, edges, "ddf_raid_member (raid)", big, sizeof(big), last);
		look_for(found, edges, "ddf_raid_member (raid)", little, sizeof(little), last);
	}
}

/* Both superblocks of nilfs2 have the size of the disk, which is less likely there by chance than its
 * magic of two bytes. */
static void look_for_nilfs2(struct signatures *found, const struct edges *edges)
{
	static const unsigned size_at = 32;
	uint64_t size = htole64(edges->size);
	uint64_t second = round_down(edges->size, HEADER_UNIT) - 8 * HEADER_UNIT;

	look_for(found, edges, "nilfs2 (filesystem)", &size, sizeof(size), 1024 + size_at);
	look_for(found, edges, "nilfs2 (filesystem)", &size, sizeof(size), second + size_at);
}

/* ---- what libblkid only knows by looking deeper than the edges ---- */

/* The boot sectors of Windows' file systems name the places where libblkid goes on looking, which may
 * be anywhere. */
static void look_for_windows(struct signatures *found, const struct edges *edges)
{
	static const char ntfs[] = "NTFS    ", bitlocker[] = "-FVE-FS-";

	look_for(found, edges, "ntfs (filesystem)", ntfs, strlen(ntfs), 3);
	look_for(found, edges, "BitLocker (crypto)", bitlocker, strlen(bitlocker), 3);
}

/* ---- all of it ---- */

int signatures_find(struct header *header, struct signatures *found, struct error *err)
{
	struct edges edges;
	int ret = edges_read(&edges, header, err);

	memset(found, 0, sizeof(*found));
	/* First, as libblkid takes such a boot sector for an MBR, then. */
	if (ret == 0 && edges.used)
		look_for_windows(found, &edges);
	if (ret == 0 && edges.used)
		ret = ask_blkid(&edges, header->name, found, err);
	if (ret == 0 && edges.used && edges_shortened(&edges)) {
		look_for_md(found, &edges);
		look_for_ddf(found, &edges);
		look_for_nilfs2(found, &edges);
	}
	found->unsure = ret == 0 && edges.used && edges_shortened(&edges) && !found->nr_magic;
	if (ret == 0 && edges.used && !found->text[0])
		snprintf(found->text, sizeof(found->text), "data that are not zero");
	edges_close(&edges);
	return ret;
}
