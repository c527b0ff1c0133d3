#include "terminal/device-users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/sysfs.h"

static bool is_device(const char *path, dev_t device)
{
	struct stat st;

	return path[0] == '/' && stat(path, &st) == 0 && S_ISBLK(st.st_mode) &&
	       st.st_rdev == device;
}

/* By its source: what btrfs has mounted has a device number of its own. */
static bool find_mount(dev_t device, const char *name, char *text, size_t size)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *mount;
	bool found = false;

	while (mounts && !found && (mount = getmntent(mounts))) {
		found = is_device(mount->mnt_fsname, device);
		if (found)
			snprintf(text, size, "%s is mounted on %s", name, mount->mnt_dir);
	}
	if (mounts)
		endmntent(mounts);
	return found;
}

static bool find_swap(dev_t device, const char *name, char *text, size_t size)
{
	FILE *swaps = fopen("/proc/swaps", "re");
	char line[PATH_MAX];
	bool found = false;

	while (swaps && !found && fgets(line, sizeof(line), swaps)) {
		line[strcspn(line, " \t\n")] = '\0';
		found = is_device(line, device);
		if (found)
			snprintf(text, size, "%s is swap", name);
	}
	if (swaps)
		fclose(swaps);
	return found;
}

/* What was made of it by device-mapper (LVM, dm-crypt), md, bcache, ... */
static bool find_holder(const char *folder, const char *name, char *text, size_t size)
{
	char path[PATH_MAX], called[256];
	struct dirent *entry;
	bool found = false;
	DIR *holders;

	snprintf(path, sizeof(path), "%s/holders", folder);
	holders = opendir(path);
	while (holders && !found && (entry = readdir(holders))) {
		found = entry->d_name[0] != '.';
		if (!found)
			continue;
		if (sysfs_line(called, sizeof(called), "%s/holders/%s/dm/name", folder,
			       entry->d_name))
			snprintf(text, size, "%s (%s) is made of %s", entry->d_name, called, name);
		else
			snprintf(text, size, "%s is made of %s", entry->d_name, name);
	}
	if (holders)
		closedir(holders);
	return found;
}

/* folder is the device's, or its partition's, in sysfs. */
static bool find_user(const char *folder, const char *name, char *text, size_t size)
{
	unsigned major, minor;
	char number[32];

	if (find_holder(folder, name, text, size))
		return true;
	if (!sysfs_line(number, sizeof(number), "%s/dev", folder) ||
	    sscanf(number, "%u:%u", &major, &minor) != 2)
		return false;
	return find_mount(makedev(major, minor), name, text, size) ||
	       find_swap(makedev(major, minor), name, text, size);
}

static bool find_user_of_partition(const char *disk, char *text, size_t size)
{
	char folder[PATH_MAX], number[16];
	struct dirent *entry;
	bool found = false;
	DIR *entries = opendir(disk);

	while (entries && !found && (entry = readdir(entries)))
		found = entry->d_name[0] != '.' &&
			snprintf(folder, sizeof(folder), "%s/%s", disk, entry->d_name) <
				(int)sizeof(folder) &&
			sysfs_line(number, sizeof(number), "%s/partition", folder) &&
			find_user(folder, entry->d_name, text, size);
	if (entries)
		closedir(entries);
	return found;
}

const char *device_users(dev_t device, char *text, size_t size)
{
	char path[64], *folder;
	bool found;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(device), minor(device));
	folder = realpath(path, NULL);
	found = folder && (find_user(folder, strrchr(folder, '/') + 1, text, size) ||
			   find_user_of_partition(folder, text, size));
	free(folder);
	if (!found)
		snprintf(text, size,
			 "by whom isn't to be seen from here: is it mounted in another "
			 "namespace?");
	return text;
}

int device_claim(const char *path, struct error *err)
{
	int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	int reason = errno;
	char text[256];
	struct stat st;

	if (fd >= 0)
		return fd;
	if (reason == EBUSY && stat(path, &st) == 0)
		return error_set(err, EBUSY, "%s is in use: %s", path,
				 device_users(st.st_rdev, text, sizeof(text)));
	return error_set(err, reason, "%s: %s", path, strerror(reason));
}
