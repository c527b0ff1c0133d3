#include "attach/attachment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "terminal/json.h"

#define STATE     "state.json"
#define STATE_NEW "state.json.new"
#define SOCKET    "socket"

static const char *run_dir(void)
{
	const char *dir = getenv("NDIO_RUN_DIR");

	return dir && *dir ? dir : "/run/ndio";
}

/* False: too long. */
static bool path_in(const struct attachment *attachment, const char *file, char path[PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/%s", attachment->dir, file) < PATH_MAX;
}

/* One way of writing it, since a gateway is known by its socket's path: no slash but where one is
 * needed. False: too long. */
static bool tidy(const char *dir, char path[PATH_MAX])
{
	size_t len = 0;

	for (const char *c = dir; *c && len < PATH_MAX - 1; c++)
		if (*c != '/' || (c[1] && c[1] != '/'))
			path[len++] = *c;
	path[len] = '\0';
	return len < PATH_MAX - 1;
}

int attachment_init(struct attachment *attachment, unsigned index, struct error *err)
{
	const size_t longest = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
	char dir[PATH_MAX];

	attachment->index = index;
	attachment->lock = -1;
	if (run_dir()[0] != '/')
		return error_set(err, EINVAL, "NDIO_RUN_DIR=%s is not an absolute path", run_dir());
	if (!tidy(run_dir(), dir) ||
	    snprintf(attachment->dir, PATH_MAX, "%s/nbd%u", dir, index) >= PATH_MAX ||
	    !path_in(attachment, SOCKET, attachment->socket) ||
	    strlen(attachment->socket) > longest)
		return error_set(err, ENAMETOOLONG,
				 "the path of a socket has at most %zu bytes: "
				 "%s/nbd%u/" SOCKET,
				 longest, run_dir(), index);
	return 0;
}

bool attachment_exists(const struct attachment *attachment)
{
	return access(attachment->dir, F_OK) == 0;
}

/* ---- the lock ---- */

/* Makes it, if it isn't there, and opens it. Who else may do there what mode keeps to the owner
 * could put something of his own in it. */
static int attachment_open_folder(const char *path, mode_t mode, struct error *err)
{
	struct stat st;
	int fd;

	do {
		if (mkdir(path, mode) < 0 && errno != EEXIST)
			return error_set(err, errno, "%s: %s", path, strerror(errno));
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	} while (fd < 0 && errno == ENOENT); /* another command has removed it meanwhile */
	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 077 & ~mode) == 0)
		return fd;
	close(fd);
	return error_set(err, EPERM, "%s: not a folder that only its owner may %s", path,
			 mode & 077 ? "change" : "enter");
}

static int check_run_dir(const struct attachment *attachment, struct error *err)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s", attachment->dir);
	*strrchr(path, '/') = '\0';
	fd = attachment_open_folder(path, 0755, err);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/* Who had it before may have removed it since it was opened. */
static bool is_still_there(const struct attachment *attachment, int fd)
{
	struct stat opened, there;

	return fstat(fd, &opened) == 0 && stat(attachment->dir, &there) == 0 &&
	       opened.st_ino == there.st_ino && opened.st_dev == there.st_dev;
}

int attachment_lock(struct attachment *attachment, struct error *err)
{
	int ret = check_run_dir(attachment, err);

	if (ret < 0)
		return ret;
	for (;;) {
		int fd = attachment_open_folder(attachment->dir, 0700, err);

		if (fd < 0)
			return fd;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			close(fd);
			return error_set(err, EBUSY, "nbd%u: another command is at work on it",
					 attachment->index);
		}
		if (is_still_there(attachment, fd)) {
			attachment->lock = fd;
			return 0;
		}
		close(fd);
	}
}

void attachment_unlock(struct attachment *attachment)
{
	if (attachment->lock >= 0)
		close(attachment->lock);
	attachment->lock = -1;
}

void attachment_clear(const struct attachment *attachment)
{
	static const char *const files[] = { SOCKET, STATE, STATE_NEW };

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlinkat(attachment->lock, files[i], 0);
}

int attachment_remove(struct attachment *attachment, struct error *err)
{
	int ret = 0;

	attachment_clear(attachment);
	if (rmdir(attachment->dir) < 0)
		ret = error_set(err, errno, "%s: %s", attachment->dir, strerror(errno));
	attachment_unlock(attachment);
	return ret;
}

/* ---- the facts ---- */

static void now_text(char text[32])
{
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

int attachment_save(const struct attachment *attachment, const struct attachment_facts *facts,
		    struct error *err)
{
	struct json_object *object = json_object_new_object();
	char path[PATH_MAX], path_new[PATH_MAX], since[32];
	int ret = 0;

	now_text(since);
	json_add_text(object, "locator", facts->locator);
	json_add_text(object, "since", since);
	json_add_number(object, "connections", facts->connections);
	json_add_number(object, "timeout", facts->timeout);
	json_add_number(object, "reconnect", facts->reconnect);
	json_add_number(object, "reads_before", facts->before.reads);
	json_add_number(object, "read_bytes_before", facts->before.read_bytes);
	json_add_number(object, "writes_before", facts->before.writes);
	json_add_number(object, "written_bytes_before", facts->before.written_bytes);
	if (!path_in(attachment, STATE, path) || !path_in(attachment, STATE_NEW, path_new))
		ret = error_set(err, ENAMETOOLONG, "%s: too long a path", attachment->dir);
	else if (json_object_to_file_ext(path_new, object, JSON_C_TO_STRING_PLAIN) < 0 ||
		 rename(path_new, path) < 0)
		ret = error_set(err, errno ? errno : EIO, "%s: %s", path, strerror(errno));
	json_object_put(object);
	return ret;
}

static const char *text_of(struct json_object *object, const char *name)
{
	const char *text = json_object_get_string(json_object_object_get(object, name));

	return text ? text : "";
}

static uint64_t number_of(struct json_object *object, const char *name)
{
	return json_object_get_uint64(json_object_object_get(object, name));
}

int attachment_load(const struct attachment *attachment, struct attachment_facts *facts,
		    struct error *err)
{
	struct json_object *object;
	char path[PATH_MAX];

	memset(facts, 0, sizeof(*facts));
	if (!path_in(attachment, STATE, path) || access(path, F_OK) < 0)
		return error_set(err, ENOENT, "nbd%u: nothing is known of it", attachment->index);
	object = json_object_from_file(path);
	if (!object)
		return error_set(err, EINVAL, "%s: not what was written there", path);
	facts->locator = strdup(text_of(object, "locator"));
	snprintf(facts->since, sizeof(facts->since), "%s", text_of(object, "since"));
	facts->connections = number_of(object, "connections");
	facts->timeout = number_of(object, "timeout");
	facts->reconnect = number_of(object, "reconnect");
	facts->before.reads = number_of(object, "reads_before");
	facts->before.read_bytes = number_of(object, "read_bytes_before");
	facts->before.writes = number_of(object, "writes_before");
	facts->before.written_bytes = number_of(object, "written_bytes_before");
	json_object_put(object);
	return facts->locator ? 0 : error_set(err, ENOMEM, "out of memory");
}

void attachment_facts_clear(struct attachment_facts *facts)
{
	free(facts->locator);
	facts->locator = NULL;
}

/* ---- all of them ---- */

static int compare_indices(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

int attachment_list(unsigned *indices, unsigned max, struct error *err)
{
	DIR *dir = opendir(run_dir());
	struct dirent *entry;
	unsigned count = 0;

	if (!dir && errno == ENOENT)
		return 0;
	if (!dir)
		return error_set(err, errno, "%s: %s", run_dir(), strerror(errno));
	while (count < max && (entry = readdir(dir)))
		if (kernel_device_parse(entry->d_name, &indices[count]))
			count++;
	closedir(dir);
	qsort(indices, count, sizeof(*indices), compare_indices);
	return count;
}
