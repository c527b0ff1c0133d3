#include "metrics/text-file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool write_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno != EINTR)
			return false;
		text += n > 0 ? n : 0;
		len -= n > 0 ? n : 0;
	}
	return true;
}

int text_file_write(const char *path, const char *text, size_t len, struct error *err)
{
	char other[PATH_MAX];
	int fd, error;
	bool written;

	if (snprintf(other, sizeof(other), "%s.new", path) >= (int)sizeof(other))
		return error_set(err, ENAMETOOLONG, "%s: %s", path, strerror(ENAMETOOLONG));
	/* One that was left behind; or somebody else's, perhaps a link to where it shouldn't go. */
	unlink(other);
	fd = open(other, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_set(err, errno, "%s: %s", other, strerror(errno));
	written = fchmod(fd, 0644) == 0 && write_all(fd, text, len);
	error = errno;
	if (close(fd) < 0 && written) {
		written = false;
		error = errno;
	}
	if (written && rename(other, path) == 0)
		return 0;
	error = written ? errno : error;
	unlink(other);
	return error_set(err, error, "%s: %s", path, strerror(error));
}
