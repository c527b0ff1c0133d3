#include "attach/ndiotab.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attach/attach.h"
#include "attach/kernel-device.h"
#include "base/tab.h"
#include "locator/locator.h"
#include "nbd/target-nbd.h"
#include "terminal/unlock.h"

#define MAX_FILE (64 * 1024) /* bytes; it also bounds the time that the checks take */

struct tab {
	const char *path;
	char *text; /* of the whole file, cut into strings */
	struct ndiotab_entry *entries;
	size_t nr_entries;
};

#define MEMBER(name) offsetof(struct ndiotab_entry, name)
static const struct tab_option options[] = {
	{ "read-only", MEMBER(read_only), TAB_FLAG, 0, 0, NULL, 0 },
	{ "discard", MEMBER(discard), TAB_FLAG, 0, 0, NULL, 0 },
	{ "header", MEMBER(header), TAB_PATH, 0, 0, NULL, 0 },
	{ "trust", MEMBER(trust), TAB_PATH, 0, 0, NULL, 0 },
	{ "keyfile-offset", MEMBER(key_part.offset), TAB_SIZE, 0, INT64_MAX, NULL, 0 },
	{ "keyfile-size", MEMBER(key_part.size), TAB_SIZE, 1, KEY_MAX, NULL, 0 },
	{ "connections", MEMBER(connections), TAB_NUMBER, 1, ATTACH_CONNECTIONS_MAX, NULL, 0 },
	{ "block-size", MEMBER(block_size), TAB_POWER, 512, 4096, NULL, 0 },
	{ "slot", MEMBER(slot), TAB_NUMBER, 0, UNLOCK_MAX_SLOT, NULL, 0 },
	{ "token", MEMBER(token), TAB_TEXT, 0, 0, NULL, 0 },
	{ "max-kdf-time", MEMBER(max_kdf_time), TAB_NUMBER, 1, UINT_MAX, NULL, 0 },
	{ "answer-timeout", MEMBER(answer_timeout), TAB_NUMBER, 1, NBD_ANSWER_TIMEOUT_MAX, NULL,
	  0 },
	{ "reconnect", MEMBER(reconnect), TAB_NUMBER, 0, ATTACH_RECONNECT_MAX, NULL, 0 },
	{ "unflushed", MEMBER(unflushed), TAB_SIZE, TARGET_UNFLUSHED_MIN, INT64_MAX, NULL, 0 },
	{ "metrics", MEMBER(metrics), TAB_PLACE, 0, 0, NULL, 0 },
	{ "timeout", MEMBER(timeout), TAB_NUMBER, ATTACH_TIMEOUT_MIN, ATTACH_TIMEOUT_MAX, NULL, 0 },
};
#define NR_OPTIONS (sizeof(options) / sizeof(options[0]))

/* ---- devices ---- */

/* "nbd0" and "/dev/nbd0" become "nbd0". */
static bool read_device(const char *text, char device[16])
{
	unsigned index;

	if (!kernel_device_parse(text, &index))
		return false;
	snprintf(device, 16, "nbd%u", index);
	return true;
}

static struct ndiotab_entry *find_entry(const struct tab *tab, const char *device)
{
	for (size_t i = 0; i < tab->nr_entries; i++)
		if (strcmp(tab->entries[i].device, device) == 0)
			return &tab->entries[i];
	return NULL;
}

/* ---- a line ---- */

static int parse_entry(struct ndiotab_entry *entry, char *line, struct error *why)
{
	char *device = tab_next_field(&line);
	struct unlock_options how = UNLOCK_DEFAULT;
	const char *wrong;
	char *option_list;
	int ret;

	assert(device); /* the line isn't blank */
	if (!read_device(device, entry->device))
		return error_set(why, EINVAL,
				 "\"%.100s\" is not the name of a device, such as nbd0", device);
	entry->locator = tab_next_field(&line);
	if (!entry->locator)
		return error_set(why, EINVAL, "the second field, the locator, is missing");
	if (locator_kind(entry->locator, why) < 0)
		return -EINVAL;
	if (entry->locator[0] != '/' && !locator_is_uri(entry->locator))
		return error_set(why, EINVAL,
				 "the locator, %.100s, is neither an absolute path nor "
				 "an NBD URI",
				 entry->locator);
	entry->key_file = tab_next_field(&line);
	if (!entry->key_file)
		return error_set(why, EINVAL,
				 "the third field, the key file or \"none\", is missing");
	if (strcmp(entry->key_file, "none") == 0)
		entry->key_file = NULL;
	else if (entry->key_file[0] != '/')
		return error_set(why, EINVAL,
				 "the key file, %.100s, is neither an absolute path nor "
				 "\"none\"",
				 entry->key_file);
	option_list = tab_next_field(&line);
	if (tab_next_field(&line))
		return error_set(why, EINVAL, "there are more than four fields");
	ret = tab_set_options(entry, options, NR_OPTIONS, option_list, NULL, why);
	if (ret == 0 && !entry->key_file && (entry->key_part.offset || entry->key_part.size))
		return error_set(why, EINVAL, "keyfile-offset and keyfile-size need a key file");
	wrong = ret == 0 && entry->token ? unlock_take_token(&how, entry->token) : NULL;
	return wrong ? error_set(why, EINVAL, "%s", wrong) : ret;
}

/* ---- the file ---- */

static int add_entry(void *opaque, char *line, unsigned number, struct error *why)
{
	struct tab *tab = opaque;
	struct ndiotab_entry entry = {
		.line = number,
		.slot = LUKS_ANY_SLOT,
		.reconnect = NDIOTAB_USUAL,
	};
	struct ndiotab_entry *other, *entries;
	int ret = parse_entry(&entry, line, why);

	if (ret < 0)
		return ret;
	other = find_entry(tab, entry.device);
	if (other)
		return error_set(why, EINVAL, "line %u is for %s already", other->line,
				 entry.device);
	entries = reallocarray(tab->entries, tab->nr_entries + 1, sizeof(entry));
	if (!entries)
		return error_set(why, ENOMEM, "out of memory");
	entries[tab->nr_entries++] = entry;
	tab->entries = entries;
	return 0;
}

/* The line for the device that this one is on, if there is one. */
static struct ndiotab_entry *entry_below(const struct tab *tab, const struct ndiotab_entry *entry)
{
	char disk[32], device[16];

	/* Of a partition, the disk: /dev/nbd0p1. */
	snprintf(disk, sizeof(disk), "%.*s", (int)strcspn(entry->locator, "p"), entry->locator);
	return read_device(disk, device) ? find_entry(tab, device) : NULL;
}

/* Is the device, in the end, on itself? */
static bool is_loop(const struct tab *tab, const struct ndiotab_entry *entry)
{
	const struct ndiotab_entry *at = entry_below(tab, entry);

	for (size_t i = 0; at && at != entry && i < tab->nr_entries; i++)
		at = entry_below(tab, at);
	return at == entry;
}

static int check_loops(const struct tab *tab, struct error *err)
{
	for (size_t i = 0; i < tab->nr_entries; i++) {
		const struct ndiotab_entry *e = &tab->entries[i];

		if (is_loop(tab, e))
			return error_set(err, EINVAL,
					 "%s:%u: a loop: %s is on %s, and so on itself", tab->path,
					 e->line, e->device, e->locator);
	}
	return 0;
}

static int read_tab(struct tab *tab, struct error *err)
{
	size_t len;
	int ret = tab_read(tab->path, MAX_FILE, &tab->text, &len, err);

	if (ret == 0)
		ret = tab_take_lines(tab->path, tab->text, len, add_entry, tab, err);
	if (ret == 0)
		ret = check_loops(tab, err);
	return ret;
}

int ndiotab_find(const char *path, const char *device, struct ndiotab_entry *entry,
		 struct error *err)
{
	struct tab tab = { .path = path };
	struct ndiotab_entry *found = NULL;
	char name[16];
	int ret;

	*entry = (struct ndiotab_entry){ 0 };
	if (!read_device(device, name))
		return error_set(err, EINVAL, "%.100s: not the name of a device, such as nbd0",
				 device);
	ret = read_tab(&tab, err);
	if (ret == 0) {
		found = find_entry(&tab, name);
		if (!found)
			ret = error_set(err, ENODEV, "%s: no line for %s", path, name);
	}
	if (found) {
		*entry = *found;
		entry->text = tab.text;
		tab.text = NULL;
	}
	free(tab.entries);
	free(tab.text);
	return ret;
}

void ndiotab_entry_clear(struct ndiotab_entry *entry)
{
	free(entry->text);
	*entry = (struct ndiotab_entry){ 0 };
}
