#include "terminal/server-program.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM   "ndio-serve"
#define INSTALLED NDIO_LIBEXECDIR "/" PROGRAM

/* False: nobody can tell where this program is. */
static bool find_beside(char path[PATH_MAX])
{
	ssize_t len = readlink("/proc/self/exe", path, PATH_MAX - sizeof(PROGRAM));
	char *slash;

	if (len <= 0 || len == PATH_MAX - sizeof(PROGRAM))
		return false;
	path[len] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return false;
	strcpy(slash + 1, PROGRAM);
	return true;
}

int server_program_find(char path[PATH_MAX], struct error *err)
{
	if (find_beside(path)) {
		if (access(path, X_OK) == 0)
			return 0;
		if (errno != ENOENT)
			return error_set(err, errno, "%s: %s", path, strerror(errno));
	}
	snprintf(path, PATH_MAX, "%s", INSTALLED);
	if (access(path, X_OK) == 0)
		return 0;
	return error_set(err, errno, "%s: %s", path,
			 errno == ENOENT ? "the server isn't installed" : strerror(errno));
}
