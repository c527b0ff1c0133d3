#include "header/signature.h"

#include <blkid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/align.h"

#define EDGE (UINT64_C(1) << 20) /* what is looked at, at either end */

static bool is_zero(const uint8_t *bytes, uint64_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* Copies one end into the memfd. */
static int copy_edge(struct header *header, int fd, uint64_t offset, bool *used,
		     struct error *err)
{
	uint64_t len = min_u64(EDGE, header->size - offset);
	uint8_t *edge = malloc(len + 1);
	int ret;

	if (!edge)
		return error_set(err, ENOMEM, "%s: no memory", header->name);
	ret = header_read_bytes(header, edge, len, offset, "looking what is there", err);
	if (ret == 0 && !is_zero(edge, len)) {
		*used = true;
		if (pwrite(fd, edge, len, offset) != (ssize_t)len)
			ret = error_set(err, EIO, "%s: looking what is there: %s", header->name,
					strerror(errno));
	}
	free(edge);
	return ret;
}

static void add_magic(struct signatures *found, blkid_probe probe, const char *offset_name,
		      const char *magic_name)
{
	struct header_range *range = &found->magic[found->nr_magic];
	const char *offset;
	size_t len;

	if (found->nr_magic == SIGNATURES_MAX ||
	    blkid_probe_lookup_value(probe, offset_name, &offset, NULL) < 0 ||
	    blkid_probe_lookup_value(probe, magic_name, NULL, &len) < 0)
		return;
	range->offset = strtoull(offset, NULL, 10);
	range->len = len;
	found->nr_magic++;
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

static void add_one(struct signatures *found, blkid_probe probe)
{
	const char *type;

	if (blkid_probe_lookup_value(probe, "TYPE", &type, NULL) == 0) {
		found->luks |= strcmp(type, "crypto_LUKS") == 0;
		if (!found->text[0])
			name_content(found, probe, type);
		add_magic(found, probe, "SBMAGIC_OFFSET", "SBMAGIC");
	} else if (blkid_probe_lookup_value(probe, "PTTYPE", &type, NULL) == 0) {
		if (!found->text[0])
			snprintf(found->text, sizeof(found->text), "a partition table (%s)", type);
		add_magic(found, probe, "PTMAGIC_OFFSET", "PTMAGIC");
	}
}

static int ask_blkid(struct header *header, int fd, struct signatures *found, struct error *err)
{
	blkid_probe probe = blkid_new_probe();

	if (!probe || blkid_probe_set_device(probe, fd, 0, 0) < 0) {
		blkid_free_probe(probe);
		return error_set(err, ENOMEM, "%s: looking what is there: libblkid failed",
				 header->name);
	}
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE |
						 BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(probe, 1);
	blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC);
	while (blkid_do_probe(probe) == 0)
		add_one(found, probe);
	blkid_free_probe(probe);
	return 0;
}

int signatures_find(struct header *header, struct signatures *found, struct error *err)
{
	int fd = memfd_create("ndio-edges", MFD_CLOEXEC);
	bool used = false;
	int ret = 0;

	memset(found, 0, sizeof(*found));
	if (fd < 0 || ftruncate(fd, header->size) < 0)
		ret = error_set(err, errno, "%s: looking what is there: %s", header->name,
				strerror(errno));
	if (ret == 0)
		ret = copy_edge(header, fd, 0, &used, err);
	if (ret == 0 && header->size > EDGE)
		ret = copy_edge(header, fd, header->size - EDGE, &used, err);
	if (ret == 0 && used)
		ret = ask_blkid(header, fd, found, err);
	if (ret == 0 && used && !found->text[0])
		snprintf(found->text, sizeof(found->text), "data that are not zero");
	if (fd >= 0)
		close(fd);
	return ret;
}
