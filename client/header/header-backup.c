#include "header/header-backup.h"

#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "luks/luks.h"
#include "terminal/deferral.h"

#define PATH_SIZE 4200

/* ---- to a file ---- */

static int sync_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int ret = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return ret;
}

/* The name is on stable storage, too. */
static int sync_folder_of(const char *path)
{
	char folder[PATH_SIZE];
	char *slash;
	int fd, ret = 0;

	snprintf(folder, sizeof(folder), "%s", path);
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
		ret = -errno;
	if (fd >= 0)
		close(fd);
	return ret;
}

static int refuse_existing(const char *path, struct error *err)
{
	struct stat st;

	if (lstat(path, &st) < 0 && errno == ENOENT)
		return 0;
	return error_set(err, EEXIST, "%s: it is there already: a backup isn't written over", path);
}

/* Under another name first, which doesn't stay whatever comes. */
static int write_by_part(struct header *header, const char *part, const char *path)
{
	int ret;

	deferral_begin();
	header->memfd.log[0] = '\0';
	ret = crypt_header_backup(header->memfd.cd, NULL, part);
	if (ret == 0)
		ret = sync_file(part);
	/* Not rename(2): whoever was faster keeps what he has written. */
	if (ret == 0 && link(part, path) < 0)
		ret = -errno;
	unlink(part);
	deferral_end();
	return ret;
}

int header_backup(struct header *header, const char *path, struct error *err)
{
	char part[PATH_SIZE];
	int ret = refuse_existing(path, err);

	if (ret < 0)
		return ret;
	if (snprintf(part, sizeof(part), "%s.%ld.part", path, (long)getpid()) >= PATH_SIZE)
		return error_set(err, ENAMETOOLONG, "%s: %s", path, strerror(ENAMETOOLONG));
	ret = write_by_part(header, part, path);
	if (ret == 0)
		ret = sync_folder_of(path);
	return ret < 0 ? error_set(err, -ret, "%s: writing the backup: %s", path,
				   luks_memfd_reason(&header->memfd, ret)) :
			 0;
}

/* ---- and back ---- */

static int load_backup_file(struct luks_memfd *memfd, uint64_t size, const char *path,
			    struct error *err)
{
	int ret;

	if (access(path, R_OK) < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	ret = luks_memfd_make(memfd, size, err);
	if (ret < 0)
		return ret;
	ret = crypt_header_restore(memfd->cd, NULL, path);
	if (ret < 0)
		return error_set(err, EINVAL, "%s: no whole backup of a LUKS header for %s: %s",
				 path, memfd->name, luks_memfd_reason(memfd, ret));
	return luks_memfd_load(memfd, err);
}

int header_load_backup(struct header *header, const char *path, enum backup_match *match,
		       struct error *err)
{
	uint8_t now[LUKS_IDENTITY_LEN], backup[LUKS_IDENTITY_LEN];
	int was = header_load(header, err);
	int ret;

	if (was == 0)
		was = luks_identify_memfd(&header->memfd, now, err);
	/* What can't be read isn't written either; a damaged header is what backups are for. */
	if (was < 0 && was != -EINVAL && was != -ENODATA)
		return was;
	luks_memfd_close(&header->memfd);
	luks_memfd_init(&header->memfd, header->name);
	ret = load_backup_file(&header->memfd, header->size, path, err);
	if (ret == 0)
		ret = luks_identify_memfd(&header->memfd, backup, err);
	if (ret < 0)
		return ret;
	*match = was < 0                               ? BACKUP_ORPHAN :
		 memcmp(now, backup, sizeof(now)) == 0 ? BACKUP_SAME :
							 BACKUP_OTHER;
	header->first_is_stale = header->second_is_stale = false;
	ret = header_measure(header, err);
	if (ret == 0 && header->len > header->size)
		ret = error_set(err, EINVAL, "%s: too small for the header in %s", header->name,
				path);
	return ret < 0 ? ret : header_load_before(header, header->len, err);
}
