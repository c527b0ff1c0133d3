#include "attach/ndiotab.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "attach/attach.h"
#include "attach/kernel-device.h"
#include "base/align.h"
#include "locator/locator.h"
#include "nbd/target-nbd.h"
#include "terminal/number.h"
#include "terminal/unlock.h"

#define MAX_FILE (64 * 1024) /* bytes; it also bounds the time that the checks take */
#define BLANKS   " \t"

struct tab {
	const char *path;
	char *text; /* of the whole file, later cut into strings */
	size_t len;
	struct ndiotab_entry *entries;
	size_t nr_entries;
};

enum option_kind { OPTION_FLAG, OPTION_PATH, OPTION_PLACE, OPTION_NUMBER, OPTION_SIZE };

#define MEMBER(name) offsetof(struct ndiotab_entry, name)
static const struct tab_option {
	const char *name;
	size_t member;
	enum option_kind kind;
	uint64_t min, max;
} options[] = {
	{ "read-only", MEMBER(read_only), OPTION_FLAG, 0, 0 },
	{ "discard", MEMBER(discard), OPTION_FLAG, 0, 0 },
	{ "header", MEMBER(header), OPTION_PATH, 0, 0 },
	{ "keyfile-offset", MEMBER(key_part.offset), OPTION_SIZE, 0, INT64_MAX },
	{ "keyfile-size", MEMBER(key_part.size), OPTION_SIZE, 1, KEY_MAX },
	{ "connections", MEMBER(connections), OPTION_NUMBER, 1, ATTACH_CONNECTIONS_MAX },
	{ "block-size", MEMBER(block_size), OPTION_NUMBER, 512, 4096 },
	{ "slot", MEMBER(slot), OPTION_NUMBER, 0, UNLOCK_MAX_SLOT },
	{ "max-kdf-time", MEMBER(max_kdf_time), OPTION_NUMBER, 1, UINT_MAX },
	{ "answer-timeout", MEMBER(answer_timeout), OPTION_NUMBER, 1, NBD_ANSWER_TIMEOUT_MAX },
	{ "reconnect", MEMBER(reconnect), OPTION_NUMBER, 0, ATTACH_RECONNECT_MAX },
	{ "unflushed", MEMBER(unflushed), OPTION_SIZE, TARGET_UNFLUSHED_MIN, INT64_MAX },
	{ "metrics", MEMBER(metrics), OPTION_PLACE, 0, 0 },
	{ "timeout", MEMBER(timeout), OPTION_NUMBER, ATTACH_TIMEOUT_MIN, ATTACH_TIMEOUT_MAX },
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

/* Or, of a place, an address. */
static int set_path(struct ndiotab_entry *entry, const struct tab_option *option, char *value,
		    struct error *why)
{
	bool is_path = option->kind == OPTION_PATH || strchr(value, '/');

	if (is_path && value[0] != '/')
		return error_set(why, EINVAL, "%s=%.100s is not an absolute path", option->name,
				 value);
	*(char **)((char *)entry + option->member) = value;
	return 0;
}

static int set_number(struct ndiotab_entry *entry, const struct tab_option *option,
		      const char *value, struct error *why)
{
	bool power = option->member == MEMBER(block_size);
	uint64_t number;

	if (!parse_number(value, option->max, &number) || number < option->min ||
	    (power && !is_aligned(number, number)))
		return error_set(why, EINVAL, "%s=%.100s is not a %s from %" PRIu64 " to %" PRIu64,
				 option->name, value, power ? "power of two" : "number",
				 option->min, option->max);
	*(unsigned *)((char *)entry + option->member) = number;
	return 0;
}

static int set_size(struct ndiotab_entry *entry, const struct tab_option *option, const char *value,
		    struct error *why)
{
	uint64_t size;

	if (!parse_size(value, &size) || size < option->min || size > option->max)
		return error_set(why, EINVAL,
				 "%s=%.100s is not a size from %" PRIu64 " to %" PRIu64 " bytes",
				 option->name, value, option->min, option->max);
	*(uint64_t *)((char *)entry + option->member) = size;
	return 0;
}

static int set_option(struct ndiotab_entry *entry, char *text, struct error *why)
{
	char *value = text, *name = strsep(&value, "=");

	for (const struct tab_option *option = options; option < options + NR_OPTIONS; option++) {
		if (strcmp(name, option->name) != 0)
			continue;
		if ((option->kind == OPTION_FLAG) != !value)
			return error_set(why, EINVAL, "option %s %s", name,
					 value ? "takes no value" : "needs a value");
		if (option->kind == OPTION_PATH || option->kind == OPTION_PLACE)
			return set_path(entry, option, value, why);
		if (option->kind == OPTION_NUMBER)
			return set_number(entry, option, value, why);
		if (option->kind == OPTION_SIZE)
			return set_size(entry, option, value, why);
		*(bool *)((char *)entry + option->member) = true;
		return 0;
	}
	return error_set(why, EINVAL, "unknown option \"%.100s\"", name);
}

static int set_options(struct ndiotab_entry *entry, char *text, struct error *why)
{
	int ret = 0;

	while (ret == 0 && text)
		ret = set_option(entry, strsep(&text, ","), why);
	return ret;
}

/* The next word, ended by a NUL; NULL if there is none. */
static char *next_field(char **line)
{
	char *field = *line + strspn(*line, BLANKS);

	*line = field + strcspn(field, BLANKS);
	if (**line)
		*(*line)++ = '\0';
	return *field ? field : NULL;
}

static int parse_line(struct ndiotab_entry *entry, char *line, struct error *why)
{
	char *device = next_field(&line);
	char *option_list;
	int ret;

	assert(device); /* the line isn't blank */
	if (!read_device(device, entry->device))
		return error_set(why, EINVAL,
				 "\"%.100s\" is not the name of a device, such as nbd0", device);
	entry->locator = next_field(&line);
	if (!entry->locator)
		return error_set(why, EINVAL, "the second field, the locator, is missing");
	if (locator_kind(entry->locator, why) < 0)
		return -EINVAL;
	if (entry->locator[0] != '/' && !locator_is_uri(entry->locator))
		return error_set(why, EINVAL,
				 "the locator, %.100s, is neither an absolute path nor "
				 "an NBD URI",
				 entry->locator);
	entry->key_file = next_field(&line);
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
	option_list = next_field(&line);
	if (next_field(&line))
		return error_set(why, EINVAL, "there are more than four fields");
	ret = set_options(entry, option_list, why);
	if (ret == 0 && !entry->key_file && (entry->key_part.offset || entry->key_part.size))
		return error_set(why, EINVAL, "keyfile-offset and keyfile-size need a key file");
	return ret;
}

/* ---- the file ---- */

/* A plain file alone: a FIFO would keep us waiting. */
static FILE *open_file(const char *path, struct error *err)
{
	struct stat st;
	FILE *file;

	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		errno = EINVAL;
		error_set(err, EINVAL, "%s: not a plain file", path);
		return NULL;
	}
	file = fopen(path, "re");
	if (!file)
		error_set(err, errno, "%s: %s", path, strerror(errno));
	return file;
}

static int read_file(struct tab *tab, struct error *err)
{
	FILE *file = open_file(tab->path, err);
	int ret = 0;

	if (!file)
		return -errno;
	tab->text = malloc(MAX_FILE + 1);
	if (tab->text)
		tab->len = fread(tab->text, 1, MAX_FILE + 1, file);
	if (!tab->text || ferror(file))
		ret = error_set(err, errno, "%s: %s", tab->path, strerror(errno));
	else if (tab->len > MAX_FILE)
		ret = error_set(err, EFBIG, "%s: it has more than %d bytes", tab->path, MAX_FILE);
	else
		tab->text[tab->len] = '\0';
	fclose(file);
	return ret;
}

static int add_line(struct tab *tab, char *line, unsigned number, struct error *why)
{
	struct ndiotab_entry entry = {
		.line = number,
		.slot = LUKS_ANY_SLOT,
		.reconnect = NDIOTAB_USUAL,
	};
	struct ndiotab_entry *other, *entries;
	int ret = parse_line(&entry, line, why);

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

/* Lines as editors of other systems end them are fine. NULs aren't: strings end there. */
static int check_text(char *line, size_t len, struct error *why)
{
	if (len > 0 && line[len - 1] == '\r')
		line[--len] = '\0';
	for (size_t i = 0; i < len; i++)
		if (iscntrl((unsigned char)line[i]) && line[i] != '\t')
			return error_set(why, EINVAL, "character %zu is not text (0x%02x)", i + 1,
					 (unsigned char)line[i]);
	return 0;
}

static int add_lines(struct tab *tab, struct error *err)
{
	char *end = tab->text + tab->len, *line_end;
	unsigned number = 1;
	struct error why;
	int ret;

	for (char *line = tab->text; line < end; line = line_end + 1, number++) {
		line_end = memchr(line, '\n', end - line);
		if (!line_end)
			line_end = end;
		*line_end = '\0';
		ret = check_text(line, line_end - line, &why);
		line += strspn(line, BLANKS);
		if (ret == 0 && *line && *line != '#')
			ret = add_line(tab, line, number, &why);
		if (ret < 0)
			return error_set(err, -ret, "%s:%u: %s", tab->path, number, why.text);
	}
	return 0;
}

/* The line for the device that this one is on, if there is one. */
static struct ndiotab_entry *below(const struct tab *tab, const struct ndiotab_entry *entry)
{
	char disk[32], device[16];

	/* Of a partition, the disk: /dev/nbd0p1. */
	snprintf(disk, sizeof(disk), "%.*s", (int)strcspn(entry->locator, "p"), entry->locator);
	return read_device(disk, device) ? find_entry(tab, device) : NULL;
}

/* Is the device, in the end, on itself? */
static bool is_loop(const struct tab *tab, const struct ndiotab_entry *entry)
{
	const struct ndiotab_entry *at = below(tab, entry);

	for (size_t i = 0; at && at != entry && i < tab->nr_entries; i++)
		at = below(tab, at);
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
	int ret = read_file(tab, err);

	if (ret == 0)
		ret = add_lines(tab, err);
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
