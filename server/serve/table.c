#include "table.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tab.h"
#include "base/utf8.h"
#include "locator/locator.h"
#include "luks/luks-slots.h"
#include "nbd/session-name.h"

#define MAX_FILE        (1024 * 1024) /* bytes: names may be long */
#define DESCRIPTION_MAX 1024          /* bytes */
#define CREDENTIAL      "$CREDENTIALS_DIRECTORY/"

/* What a line is made of, before it is a disk. */
struct line {
	struct disk disk;
	bool discard, no_discard, no_lock_image;
	const char *token;
	unsigned direct; /* of enum direct_mode */
	unsigned slot;
};

/* What an option needs to have an effect. */
enum need { NOTHING, A_KEY, A_KEY_FILE, A_FILE, A_URI };

#define MEMBER(name) offsetof(struct line, name)
#define DISK(name)   MEMBER(disk.name)
static const struct tab_option options[] = {
	{ "read-only", DISK(open.readonly), TAB_FLAG, 0, 0, NULL, NOTHING },
	{ "description", DISK(description), TAB_TEXT, 0, 0, NULL, NOTHING },
	{ "discard", MEMBER(discard), TAB_FLAG, 0, 0, NULL, NOTHING },
	{ "no-discard", MEMBER(no_discard), TAB_FLAG, 0, 0, NULL, NOTHING },
	{ "keyfile-offset", DISK(key_part.offset), TAB_SIZE, 0, INT64_MAX, NULL, A_KEY_FILE },
	{ "keyfile-size", DISK(key_part.size), TAB_SIZE, 1, KEY_MAX, NULL, A_KEY_FILE },
	{ "header", DISK(open.header), TAB_PATH, 0, 0, NULL, A_KEY },
	{ "trust", DISK(open.trust), TAB_PATH, 0, 0, NULL, A_KEY },
	{ "slot", MEMBER(slot), TAB_NUMBER, 0, DISK_SLOT_MAX, NULL, A_KEY },
	{ "token", MEMBER(token), TAB_TEXT, 0, 0, NULL, NOTHING },
	{ "max-kdf-time", DISK(open.max_kdf_time), TAB_NUMBER, 1, UINT_MAX, NULL, A_KEY },
	{ "direct", MEMBER(direct), TAB_WORD, 0, 0, "auto, on, off", A_FILE },
	{ "no-lock-image", MEMBER(no_lock_image), TAB_FLAG, 0, 0, NULL, A_FILE },
	{ "connections", DISK(open.connections), TAB_NUMBER, 1, DISK_CONNECTIONS_MAX, NULL, A_URI },
	{ "answer-timeout", DISK(open.answer_timeout), TAB_NUMBER, 1, NBD_ANSWER_TIMEOUT_MAX, NULL,
	  A_URI },
	{ "reconnect", DISK(open.reconnect), TAB_NUMBER, 0, NBD_RECONNECT_MAX, NULL, A_URI },
	{ "unflushed", DISK(open.unflushed), TAB_SIZE, TARGET_UNFLUSHED_MIN, INT64_MAX, NULL,
	  A_URI },
	{ "integrity-cache", DISK(open.integrity_cache), TAB_SIZE, INTEGRITY_CACHE_MIN, INT64_MAX,
	  NULL, A_KEY },
	{ "wait", DISK(open.wait), TAB_NUMBER, 0, NBD_ANSWER_TIMEOUT_MAX, NULL, A_URI },
};
#define NR_OPTIONS (sizeof(options) / sizeof(options[0]))

_Static_assert(NR_OPTIONS <= TAB_OPTIONS_MAX, "each has a bit");
_Static_assert(DIRECT_AUTO == 0 && DIRECT_ON == 1 && DIRECT_OFF == 2, "the words of direct=");

/* ---- names, and other texts ---- */

static int hex_digit(char c)
{
	return isdigit((unsigned char)c)  ? c - '0' :
	       isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 :
					    -1;
}

/* The character of "%20", or 0 for what isn't one. */
static char by_number(const char *text)
{
	int high = hex_digit(text[1]);
	int low = high >= 0 ? hex_digit(text[2]) : -1;

	return low >= 0 ? (char)(high << 4 | low) : '\0';
}

/* In place: what a URI has by number becomes the character. */
static int decode(char *text, struct error *why)
{
	char *to = text;

	for (const char *c = text; *c; c++)
		if (*c == '%' && !by_number(c))
			return error_set(why, EINVAL,
					 "\"%.100s\": a %% and two digits is a character, as in "
					 "a URI, and %%25 a %%",
					 text);
	for (const char *c = text; *c;) {
		size_t len = *c == '%' ? 3 : 1; /* it is written over */

		*to++ = len == 3 ? by_number(c) : *c;
		c += len;
	}
	*to = '\0';
	return 0;
}

static int set_name(struct disk *disk, char *name, struct error *why)
{
	int ret = 0;

	disk->name = strcmp(name, "\"\"") == 0 ? "" : name;
	if (*disk->name)
		ret = decode(name, why);
	return ret < 0 ? ret : disk_check_name(disk->name, why);
}

static int check_description(char *text, struct error *why)
{
	int ret = decode(text, why);

	if (ret < 0)
		return ret;
	if (strlen(text) > DESCRIPTION_MAX)
		return error_set(why, EINVAL, "a description has at most %d bytes",
				 DESCRIPTION_MAX);
	if (!utf8_is_text((const uint8_t *)text, strlen(text)))
		return error_set(why, EINVAL, "the description, \"%.100s\", is not UTF-8", text);
	/* By these words clients know a server that comes back. */
	if (strstr(text, SAYS_INSTANCE))
		return error_set(why, EINVAL, "a description can't have \"%s\" in it",
				 SAYS_INSTANCE);
	return 0;
}

/* ---- a line ---- */

static int set_locator(struct disk *disk, const char *locator, struct error *why)
{
	if (!locator)
		return error_set(why, EINVAL, "the second field, the locator, is missing");
	if (disk_set_locator(disk, locator, why) < 0)
		return -EINVAL;
	if (locator[0] != '/' && !locator_is_uri(locator))
		return error_set(why, EINVAL,
				 "the locator, %.100s, is neither an absolute path nor an NBD URI",
				 locator);
	return 0;
}

static int set_key(struct disk *disk, const char *key, struct error *why)
{
	size_t len = strlen(CREDENTIAL);

	if (!key)
		return error_set(why, EINVAL,
				 "the third field, the key file or \"none\", is missing");
	disk->open.unlock = strcmp(key, "none") != 0;
	if (!disk->open.unlock)
		return 0;
	disk->is_credential = strncmp(key, CREDENTIAL, len) == 0;
	disk->key_file = disk->is_credential ? key + len : key;
	if (disk->is_credential ? *disk->key_file && !strchr(disk->key_file, '/') : key[0] == '/')
		return 0;
	return error_set(why, EINVAL,
			 "the key file, %.100s, is neither an absolute path nor " CREDENTIAL
			 "NAME nor \"none\"",
			 key);
}

/* One that would have none is a mistake. */
static int check_effects(const struct disk *disk, uint32_t given, struct error *why)
{
	static const char *const words[] = { [A_KEY] = "a key or a token",
					     [A_KEY_FILE] = "a key file",
					     [A_FILE] = "a file or block device",
					     [A_URI] = "an NBD URI" };
	const bool has[] = {
		[NOTHING] = true,
		[A_KEY] = disk->open.unlock,
		[A_KEY_FILE] = disk->key_file,
		[A_FILE] = disk->open.file,
		[A_URI] = disk->open.uri,
	};

	for (size_t i = 0; i < NR_OPTIONS; i++)
		if (given & UINT32_C(1) << i && !has[options[i].needs])
			return error_set(why, EINVAL, "option %s needs %s", options[i].name,
					 words[options[i].needs]);
	return 0;
}

static int set_options(struct disk *disk, char *list, struct error *why)
{
	struct line line = { .disk = *disk, .direct = disk->open.direct, .slot = UINT_MAX };
	uint32_t given = 0;
	int ret = tab_set_options(&line, options, NR_OPTIONS, list, &given, why);

	if (ret == 0 && line.token && !disk_set_token(disk, line.token))
		ret = error_set(why, EINVAL, "token=%.100s: not a number from 0 to 31, or any",
				line.token);
	if (ret == 0) {
		line.disk.open.by_tokens = disk->open.by_tokens;
		line.disk.open.tokens = disk->open.tokens;
		line.disk.open.unlock = disk->open.unlock |= disk->open.by_tokens;
		ret = check_effects(disk, given, why);
	}
	if (ret == 0 && line.discard && line.no_discard)
		ret = error_set(why, EINVAL, "discard or no-discard, not both");
	if (ret == 0 && line.disk.description)
		ret = check_description((char *)line.disk.description, why);
	if (ret < 0)
		return ret;
	*disk = line.disk;
	disk->open.direct = line.direct;
	disk->open.one_slot = line.slot != UINT_MAX;
	disk->open.slot = line.slot != UINT_MAX ? (int)line.slot : LUKS_ANY_SLOT;
	if (line.discard || line.no_discard) {
		disk->open.discard = line.discard;
		disk->open.no_discard = line.no_discard;
	}
	if (line.no_lock_image)
		disk->open.locking = LOCK_IMAGE_OFF;
	return 0;
}

static int parse_line(struct disk *disk, char *line, struct error *why)
{
	char *name = tab_next_field(&line);
	char *list;
	int ret;

	assert(name); /* the line isn't blank */
	ret = set_name(disk, name, why);
	if (ret == 0)
		ret = set_locator(disk, tab_next_field(&line), why);
	if (ret == 0)
		ret = set_key(disk, tab_next_field(&line), why);
	if (ret < 0)
		return ret;
	list = tab_next_field(&line);
	if (tab_next_field(&line))
		return error_set(why, EINVAL, "there are more than four fields");
	return set_options(disk, list, why);
}

/* ---- all of them ---- */

struct taker {
	const struct disk *usual;
	struct disks *disks;
};

static int add_line(void *opaque, char *line, unsigned number, struct error *why)
{
	const struct taker *taker = opaque;
	struct disks *disks = taker->disks;
	struct disk *disk = &disks->all[disks->count];
	int ret;

	if (disks->count == EXPORTS_MAX)
		return error_set(why, EINVAL, "no more than %d exports", EXPORTS_MAX);
	*disk = *taker->usual;
	disk->line = number;
	ret = parse_line(disk, line, why);
	for (unsigned i = 0; i < disks->count && ret == 0; i++)
		if (strcmp(disks->all[i].name, disk->name) == 0)
			ret = error_set(why, EINVAL, "line %u is for the name \"%.100s\" already",
					disks->all[i].line, disk->name);
	disks->count += ret == 0;
	return ret;
}

int table_parse(const char *path, char *text, size_t len, const struct disk *usual,
		struct disks *disks, struct error *err)
{
	struct taker taker = { .usual = usual, .disks = disks };
	int ret;

	disks->path = path;
	disks->count = 0;
	ret = tab_take_lines(path, text, len, add_line, &taker, err);
	if (ret == 0 && disks->count == 0)
		ret = error_set(err, EINVAL, "%s: no line has an export", path);
	return ret;
}

int table_read(const char *path, const struct disk *usual, struct disks *disks, struct error *err)
{
	size_t len;
	int ret = tab_read(path, MAX_FILE, &disks->text, &len, err);

	return ret < 0 ? ret : table_parse(path, disks->text, len, usual, disks, err);
}
