#include "locator/same.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/sysfs.h"
#include "locator/locator.h"
#include "locator/same-export.h"

#define MAX_PLACES 128 /* of one name: an array of many disks with room to spare */
#define UNIT       512 /* bytes, in which sysfs counts */

enum place_kind {
	PLACE_FILE,   /* dev, ino */
	PLACE_DEVICE, /* dev */
	PLACE_EXPORT, /* text: its URI */
	PLACE_ABSENT, /* dev and ino of the folder, text: the name in it */
};

struct place {
	enum place_kind kind;
	dev_t dev;
	ino_t ino;
	char *text;
	uint64_t start, end; /* bytes */
	bool vague;          /* somewhere there, but not all of it */
};

struct places {
	const struct same_view *view;
	bool with_disks; /* of the file systems that files are on */
	struct place at[MAX_PLACES];
	unsigned count;
};

/* ---- the list ---- */

static bool is_same_place(const struct place *a, const struct place *b)
{
	if (a->kind != b->kind)
		return false;
	switch (a->kind) {
	case PLACE_DEVICE:
		return a->dev == b->dev;
	case PLACE_EXPORT:
		return same_export(a->text, b->text);
	case PLACE_ABSENT:
		return a->dev == b->dev && a->ino == b->ino && strcmp(a->text, b->text) == 0;
	default:
		return a->dev == b->dev && a->ino == b->ino;
	}
}

/* Once each, so that a circle ends. */
static void places_add(struct places *places, const struct place *place, const char *text)
{
	struct place *next = &places->at[places->count];

	if (places->count == MAX_PLACES || place->start >= place->end)
		return;
	*next = *place;
	next->text = text ? strdup(text) : NULL;
	if (text && !next->text)
		return;
	for (unsigned i = 0; i < places->count; i++)
		if (places->at[i].start == next->start && places->at[i].end == next->end &&
		    is_same_place(&places->at[i], next)) {
			free(next->text);
			return;
		}
	places->count++;
}

static void places_forget(struct places *places)
{
	for (unsigned i = 0; i < places->count; i++)
		free(places->at[i].text);
}

/* Bytes of the child begin at offset of what it is on, and are so many at the most. */
static struct place place_below(const struct place *child, uint64_t offset, uint64_t len)
{
	struct place place = { .vague = child->vague };
	uint64_t end = child->end < len ? child->end : len;

	if (__builtin_add_overflow(child->start, offset, &place.start))
		place.start = UINT64_MAX;
	if (__builtin_add_overflow(end, offset, &place.end))
		place.end = UINT64_MAX;
	return place;
}

/* ---- names ---- */

static void add_absent(struct places *places, struct place place, const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, slash - path + 1) : strdup(".");
	struct stat st;

	if (folder && stat(folder, &st) == 0) {
		place.kind = PLACE_ABSENT;
		place.dev = st.st_dev;
		place.ino = st.st_ino;
		places_add(places, &place, slash ? slash + 1 : path);
	}
	free(folder);
}

static void add_path(struct places *places, struct place place, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0) {
		if (errno == ENOENT)
			add_absent(places, place, path);
		return;
	}
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return;
	place.kind = S_ISBLK(st.st_mode) ? PLACE_DEVICE : PLACE_FILE;
	place.dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
	place.ino = S_ISBLK(st.st_mode) ? 0 : st.st_ino;
	places_add(places, &place, NULL);
}

static void add_locator(struct places *places, struct place place, const char *locator)
{
	if (locator_is_uri(locator)) {
		place.kind = PLACE_EXPORT;
		places_add(places, &place, locator);
	} else {
		add_path(places, place, locator);
	}
}

/* ---- sysfs ---- */

static const char *sys(const struct places *places)
{
	return places->view && places->view->sys ? places->view->sys : "/sys";
}

/* The path of something in a device's folder. */
static void sys_path(const struct places *places, dev_t dev, const char *file, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/dev/block/%u:%u/%s", sys(places), major(dev), minor(dev),
		 file);
}

/* The first line of such a file. */
static bool sys_text(const struct places *places, dev_t dev, const char *file, char text[PATH_MAX])
{
	return sysfs_line(text, PATH_MAX, "%s/dev/block/%u:%u/%s", sys(places), major(dev),
			  minor(dev), file);
}

static uint64_t sys_number(const struct places *places, dev_t dev, const char *file)
{
	char text[PATH_MAX];

	return sys_text(places, dev, file, text) ? strtoull(text, NULL, 10) : 0;
}

static bool sys_device(const struct places *places, dev_t dev, const char *file, dev_t *found)
{
	char text[PATH_MAX];
	unsigned maj, min;

	if (!sys_text(places, dev, file, text) || sscanf(text, "%u:%u", &maj, &min) != 2)
		return false;
	*found = makedev(maj, min);
	return true;
}

/* "loop0", as the kernel calls it. */
static bool sys_name(const struct places *places, dev_t dev, char name[NAME_MAX + 1])
{
	char path[PATH_MAX], real[PATH_MAX];

	sys_path(places, dev, "", path);
	if (!realpath(path, real))
		return false;
	snprintf(name, NAME_MAX + 1, "%.*s", NAME_MAX, strrchr(real, '/') + 1);
	return true;
}

/* ---- what is below a device ---- */

/* Its disk. */
static void below_partition(struct places *places, const struct place *part)
{
	struct place disk = place_below(part, sys_number(places, part->dev, "start") * UNIT,
					sys_number(places, part->dev, "size") * UNIT);

	disk.kind = PLACE_DEVICE;
	if (sys_number(places, part->dev, "partition") &&
	    sys_device(places, part->dev, "../dev", &disk.dev))
		places_add(places, &disk, NULL);
}

/* The file's name in sysfs is what it was once, in somebody's view; the driver knows the file. */
static bool ask_loop(const struct places *places, dev_t dev, struct loop_info64 *info)
{
	char name[NAME_MAX + 1], path[NAME_MAX + 8];
	struct stat st;
	bool known;
	int fd;

	if ((places->view && places->view->sys) || !sys_name(places, dev, name))
		return false;
	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	known = fd >= 0 && fstat(fd, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == dev &&
		ioctl(fd, LOOP_GET_STATUS64, info) == 0;
	if (fd >= 0)
		close(fd);
	return known;
}

static void below_loop(struct places *places, const struct place *loop)
{
	uint64_t offset = sys_number(places, loop->dev, "loop/offset");
	uint64_t len = sys_number(places, loop->dev, "loop/sizelimit");
	struct place backing = place_below(loop, offset, len ? len : UINT64_MAX);
	struct loop_info64 info;
	char path[PATH_MAX];

	if (!sys_text(places, loop->dev, "loop/backing_file", path))
		return;
	if (!ask_loop(places, loop->dev, &info)) {
		add_path(places, backing, path);
		return;
	}
	/* Older kernels tell the file's own device for what isn't one. */
	backing.kind =
		info.lo_rdevice && info.lo_rdevice != info.lo_device ? PLACE_DEVICE : PLACE_FILE;
	backing.dev = backing.kind == PLACE_DEVICE ? info.lo_rdevice : info.lo_device;
	backing.ino = backing.kind == PLACE_DEVICE ? 0 : info.lo_inode;
	places_add(places, &backing, NULL);
}

/* Of device-mapper, md, bcache: somewhere on these. */
static void below_slaves(struct places *places, const struct place *device)
{
	char path[PATH_MAX], file[NAME_MAX + 16];
	struct place slave = { .kind = PLACE_DEVICE, .end = UINT64_MAX, .vague = true };
	struct dirent *entry;
	DIR *dir;

	sys_path(places, device->dev, "slaves", path);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		snprintf(file, sizeof(file), "slaves/%s/dev", entry->d_name);
		if (entry->d_name[0] != '.' && sys_device(places, device->dev, file, &slave.dev))
			places_add(places, &slave, NULL);
	}
	if (dir)
		closedir(dir);
}

/* What it is attached to has a LUKS header or whatever at its start: anywhere is as good. */
static void below_nbd(struct places *places, const struct place *device)
{
	const struct place all = { .end = UINT64_MAX, .vague = device->vague };
	char name[NAME_MAX + 1], locator[PATH_MAX];
	unsigned index;
	int len = 0;

	if (places->view && places->view->attached && sys_name(places, device->dev, name) &&
	    sscanf(name, "nbd%u%n", &index, &len) == 1 && name[len] == '\0' &&
	    places->view->attached(index, locator, sizeof(locator)))
		add_locator(places, all, locator);
}

/* A file system that isn't on one device has a number that is none's. */
static void below_file(struct places *places, const struct place *file)
{
	struct place disk = {
		.kind = PLACE_DEVICE, .dev = file->dev, .end = UINT64_MAX, .vague = true
	};
	char text[PATH_MAX];

	if (places->with_disks && sys_text(places, file->dev, "size", text))
		places_add(places, &disk, NULL);
}

static void add_all_below(struct places *places)
{
	for (unsigned i = 0; i < places->count; i++) {
		const struct place place = places->at[i];

		if (place.kind == PLACE_FILE)
			below_file(places, &place);
		if (place.kind != PLACE_DEVICE)
			continue;
		below_partition(places, &place);
		below_loop(places, &place);
		below_slaves(places, &place);
		below_nbd(places, &place);
	}
}

/* ---- both ---- */

static bool share_bytes(const struct place *a, const struct place *b)
{
	return !(a->vague && b->vague) && a->start < b->end && b->start < a->end &&
	       is_same_place(a, b);
}

static bool places_compare(struct places *written, struct places *read)
{
	bool same = false;

	add_all_below(written);
	add_all_below(read);
	for (unsigned i = 0; i < written->count && !same; i++)
		for (unsigned j = 0; j < read->count && !same; j++)
			same = share_bytes(&written->at[i], &read->at[j]);
	places_forget(written);
	places_forget(read);
	return same;
}

static void add_part(struct places *places, const struct same_part *part)
{
	struct place place = { .start = part->offset };

	if (!part->size || __builtin_add_overflow(part->offset, part->size, &place.end))
		place.end = UINT64_MAX;
	add_locator(places, place, part->locator);
}

bool same_bytes(const struct same_view *view, const struct same_part *written,
		const struct same_part *read)
{
	struct places a = { .view = view }, b = { .view = view, .with_disks = true };

	if (!written->locator || !read->locator)
		return false;
	add_part(&a, written);
	add_part(&b, read);
	return places_compare(&a, &b);
}

bool same_devices(const struct same_view *view, dev_t written, dev_t read)
{
	struct places a = { .view = view }, b = { .view = view, .with_disks = true };
	const struct place first = { .kind = PLACE_DEVICE, .dev = written, .end = UINT64_MAX };
	const struct place second = { .kind = PLACE_DEVICE, .dev = read, .end = UINT64_MAX };

	places_add(&a, &first, NULL);
	places_add(&b, &second, NULL);
	return places_compare(&a, &b);
}
