#include "base/program-find.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* False where the name doesn't fit, or there is no such program: a folder isn't one. */
static bool is_there(const char *dir, size_t len, const char *name, char path[PATH_MAX])
{
	int n = snprintf(path, PATH_MAX, "%.*s/%s", (int)len, dir, name);
	struct stat st;

	return n < PATH_MAX && access(path, X_OK) == 0 && stat(path, &st) == 0 &&
	       S_ISREG(st.st_mode);
}

int program_find(const char *name, const char *package, char path[PATH_MAX], struct error *err)
{
	const char *places[] = { secure_getenv("PATH"), "/usr/sbin:/sbin" };

	for (size_t i = 0; i < 2; i++)
		for (const char *dir = places[i]; dir && *dir; dir += *dir == ':') {
			size_t len = strcspn(dir, ":");

			if (len > 0 && is_there(dir, len, name, path))
				return 0;
			dir += len;
		}
	return error_set(err, ENOENT, "%s isn't installed: apt-get install %s", name, package);
}
