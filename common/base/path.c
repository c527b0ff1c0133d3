#include "base/path.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char *path_absolute(const char *path)
{
	char here[PATH_MAX], *all;

	if (path[0] == '/')
		return strdup(path);
	return getcwd(here, sizeof(here)) && asprintf(&all, "%s/%s", here, path) >= 0 ? all : NULL;
}
