#include "disk.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"
#include "base/utf8.h"
#include "locator/locator.h"
#include "locator/same.h"
#include "luks/luks.h"
#include "nbd/fence.h"
#include "say.h"
#include "wire.h"

/* ---- names and locators ---- */

int disk_check_name(const char *name, struct error *err)
{
	uint8_t session[SESSION_ID];
	uint64_t epoch;

	if (strlen(name) > NBD_MAX_STRING)
		return error_set(err, EINVAL, "an export's name has at most %d bytes",
				 NBD_MAX_STRING);
	if (!utf8_is_text((const uint8_t *)name, strlen(name)))
		return error_set(err, EINVAL, "the export's name, \"%.100s\", is not UTF-8", name);
	/* Nobody could ask for it. */
	if (fence_parse(name, session, &epoch))
		return error_set(err, EINVAL,
				 "the export's name, \"%.100s\", ends as that of a session does",
				 name);
	return 0;
}

int disk_set_locator(struct disk *disk, const char *locator, struct error *err)
{
	int kind = locator_kind(locator, err);

	disk->locator = locator;
	if (kind == LOCATOR_URI)
		disk->open.uri = locator;
	else
		disk->open.file = locator;
	return kind < 0 ? kind : 0;
}

bool disk_set_token(struct disk *disk, const char *value)
{
	bool is_any = strcmp(value, "any") == 0;
	uint64_t number = 0;

	if (!is_any && !parse_number(value, LUKS_MAX_TOKEN, &number))
		return false;
	disk->open.by_tokens = true;
	disk->open.tokens.number = is_any ? LUKS_ANY_TOKEN : (int)number;
	return true;
}

/* ---- what can't be served together ---- */

/* " (line 3)", or nothing. */
static const char *place_of(const struct disk *disk, char text[32])
{
	text[0] = '\0';
	if (disk->line)
		snprintf(text, 32, " (line %u)", disk->line);
	return text;
}

/* NULL: it comes from a descriptor, or can't be had. */
static const char *key_path(const struct disk *disk, char path[PATH_MAX])
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");

	if (!disk->is_credential)
		return disk->key_file && strcmp(disk->key_file, "-") != 0 ? disk->key_file : NULL;
	if (!folder || snprintf(path, PATH_MAX, "%s/%s", folder, disk->key_file) >= PATH_MAX)
		return NULL;
	return path;
}

/* Could clients of the one write to what the other is, or needs? */
static int check_writes(const struct disk *written, const struct disk *other, struct error *err)
{
	const struct same_part all = { .locator = written->locator };
	const struct same_part header = { .locator = other->open.header };
	const struct same_part disk = { .locator = other->locator };
	char text[32], path[PATH_MAX];

	if (written->open.readonly)
		return 0;
	if (same_bytes(NULL, &all, &disk))
		return error_set(err, EINVAL,
				 "%s and %s%s: the same, or one is on the other: two exports of it "
				 "would have to be read-only",
				 written->locator, other->locator, place_of(other, text));
	if (same_bytes(NULL, &all, &header))
		return error_set(err, EINVAL,
				 "%s and %s%s: the same, or one is on the other: the header "
				 "would be overwritten",
				 written->locator, header.locator, place_of(other, text));
	return open_check_key_file(&written->open, key_path(other, path), &other->key_part, err);
}

static int name_line(const struct disks *disks, const struct disk *disk, int ret, struct error *err)
{
	struct error why = *err;

	if (ret == 0 || !disk->line)
		return ret;
	return error_set(err, -ret, "%s:%u: %s", disks->path, disk->line, why.text);
}

static int check_all(const struct disks *disks, struct error *err)
{
	for (unsigned i = 0; i < disks->count; i++) {
		const struct disk *disk = &disks->all[i];
		int ret = 0;

		for (unsigned j = 0; j < disks->count && ret == 0; j++)
			if (j != i)
				ret = check_writes(disk, &disks->all[j], err);
		if (ret < 0)
			return name_line(disks, disk, ret, err);
	}
	return 0;
}

/* ---- one after the other ---- */

/* Without one there is whom to ask, or tokens alone. */
static bool has_key_file(const struct disk *disk)
{
	return disk->open.unlock && (disk->key_file || disk->key_fd >= 0);
}

static int disk_read_key(const struct disk *disk, struct key *key, struct error *err)
{
	char path[PATH_MAX], name[PATH_MAX + 16];
	const char *file = key_path(disk, path);
	bool readable = false;
	int ret;

	if (disk->is_credential && !file)
		return error_set(err, ENOENT,
				 "$CREDENTIALS_DIRECTORY isn't set: systemd sets it, for a unit "
				 "with LoadCredential=%s:PATH",
				 disk->key_file);
	secret_no_dumps();
	snprintf(name, sizeof(name), "key file %s",
		 file           ? file :
		 disk->key_file ? disk->key_file :
				  "--key-fd");
	if (file)
		ret = key_file_load(file, name, &disk->key_part, &readable, key, err);
	else
		ret = key_file_read(disk->key_file ? STDIN_FILENO : disk->key_fd, name,
				    &disk->key_part, key, err);
	if (readable)
		say("warning: %s: others may read it", name);
	if (disk->key_fd > STDERR_FILENO)
		close(disk->key_fd);
	return ret;
}

static int open_one(const struct disk *disk, const struct key *key, struct exports *exports,
		    struct error *err)
{
	const struct luks_asker asker = { .ask = ask_key, .opaque = (void *)&disk->asker };
	struct volume_options open = disk->open;
	int ret;

	open.notice = serve_notice;
	if (disk->asker.fd >= 0) {
		open.asker = &asker;
		open.tokens.pin = ask_pin;
		open.tokens.opaque = (void *)&disk->asker;
	} else if (open.unlock) {
		open.pass = key->data;
		open.pass_len = key->len;
	}
	ret = exports_add(exports, disk->name, disk->description, &open, err);
	if (disk->asker.fd >= 0) /* nothing more is asked */
		close(disk->asker.fd);
	if (ret == 0)
		open_tell_ciphertext(exports->all[exports->count - 1]->volume, &open.notice);
	return ret;
}

int disks_open(const struct disks *disks, struct exports *exports, struct error *err)
{
	struct key key = { 0 };
	int ret = check_all(disks, err);

	for (unsigned i = 0; i < disks->count && ret == 0; i++) {
		const struct disk *disk = &disks->all[i];
		char path[PATH_MAX];

		if (disk->open.unlock)
			ret = open_check_key_file(&disk->open, key_path(disk, path),
						  &disk->key_part, err);
		if (ret == 0 && has_key_file(disk) && !key.data)
			ret = disk_read_key(disk, &key, err);
		if (ret == 0)
			ret = open_one(disk, &key, exports, err);
		ret = name_line(disks, disk, ret, err);
		/* Those of the command line share theirs, which a descriptor gives but once. */
		if (disk->line)
			key_clear(&key);
	}
	key_clear(&key);
	return ret;
}

void disks_clear(struct disks *disks)
{
	free(disks->text);
	disks->text = NULL;
	disks->count = 0;
}
