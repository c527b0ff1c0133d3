/* Tables of exports. */
#include "base/utf8.h"
#include "fuzz.h"
#include "luks/luks-slots.h"
#include "serve/table.h"
#include "serve/wire.h"

static const struct disk usual = {
	.open = { .connections = 4, .slot = LUKS_ANY_SLOT, .locking = LOCK_IMAGE },
	.name = "",
	.key_fd = -1,
};

/* Text that ends in the table's own. */
static void check_string(const struct disks *disks, size_t len, const char *string)
{
	uintptr_t at = (uintptr_t)string, text = (uintptr_t)disks->text;

	fuzz_check(at >= text && at <= text + len);
	fuzz_check(at + strlen(string) <= text + len);
}

static void check_disk(const struct disks *disks, size_t len, const struct disk *disk)
{
	fuzz_check(strlen(disk->name) <= NBD_MAX_STRING);
	fuzz_check(utf8_is_text((const uint8_t *)disk->name, strlen(disk->name)));
	if (*disk->name)
		check_string(disks, len, disk->name);
	check_string(disks, len, disk->locator);
	fuzz_check(!disk->open.file != !disk->open.uri);
	fuzz_check(disk->open.unlock == (disk->key_file || disk->open.by_tokens));
	if (disk->key_file)
		check_string(disks, len, disk->key_file);
	if (disk->description) {
		check_string(disks, len, disk->description);
		fuzz_check(utf8_is_text((const uint8_t *)disk->description,
					strlen(disk->description)));
	}
	fuzz_check(disk->open.slot >= LUKS_ANY_SLOT && disk->open.slot <= DISK_SLOT_MAX);
	fuzz_check(disk->open.connections >= 1 && disk->open.connections <= DISK_CONNECTIONS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct disks disks;
	struct error err = { 0 };
	int ret;

	disks.text = fuzz_string(data, size);
	ret = table_parse("table", disks.text, size, &usual, &disks, &err);
	fuzz_check(ret == 0 || (ret < 0 && strncmp(err.text, "table:", 6) == 0));
	fuzz_check(disks.count <= EXPORTS_MAX && (ret < 0 || disks.count > 0));
	for (unsigned i = 0; i < disks.count; i++) {
		check_disk(&disks, size, &disks.all[i]);
		for (unsigned j = 0; j < i; j++)
			fuzz_check(strcmp(disks.all[i].name, disks.all[j].name) != 0);
	}
	disks_clear(&disks);
	return 0;
}
