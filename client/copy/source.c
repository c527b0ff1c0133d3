#include "copy/source.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <openssl/crypto.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/align.h"
#include "locator/locator.h"
#include "luks/luks-memfd.h"
#include "terminal/partition-table.h"
#include "terminal/say.h"

#define FIRST 8192 /* bytes, see partition_table_sector() */

/* Of the blocks that a client of the destination will see; 0: who knows? */
static unsigned sector_of(const struct endpoint *destination)
{
	int fd, size = 0;

	if (destination->encrypted)
		return destination->sector;
	if (!destination->volume || locator_is_uri(destination->name))
		return 0;
	fd = open(destination->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || ioctl(fd, BLKSSZGET, &size) < 0)
		size = 0;
	if (fd >= 0)
		close(fd);
	return size;
}

void source_tell(const struct endpoint *source, const struct endpoint *destination,
		 const void *first, size_t len)
{
	unsigned table = partition_table_sector(first, len, source->size);
	unsigned sector = table ? sector_of(destination) : 0;

	if (!source->encrypted && luks_starts(first, len))
		say_error("%s: a LUKS volume; without a key it is copied as it is, encrypted",
			  source->name);
	if (!sector || table == sector)
		return;
	if (destination->encrypted)
		say_error(
			"warning: %s has a partition table for sectors of %u bytes, and %s has %u: "
			"its partitions are only found after ndio attach --block-size %u; or make "
			"it by ndio format --sector-size %u",
			source->name, table, destination->name, sector, table, table);
	else
		say_error(
			"warning: %s has a partition table for sectors of %u bytes, and %s has %u: "
			"its partitions won't be found there",
			source->name, table, destination->name, sector);
}

void source_look(struct endpoint *source, const struct endpoint *destination)
{
	uint8_t first[FIRST];
	uint64_t len = min_u64(sizeof(first), source->size);
	const struct iovec iov = { first, len };

	/* What can't be read is the copy's to tell of. */
	if (!source->volume || len == 0 || ndio_preadv(source->volume, &iov, 1, 0, 0) < 0)
		return;
	source_tell(source, destination, first, len);
	OPENSSL_cleanse(first, len);
}
