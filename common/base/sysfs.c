#include "base/sysfs.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool sysfs_line(char *line, size_t size, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list args;
	FILE *stream;
	int len;
	bool ok;

	va_start(args, fmt);
	len = vsnprintf(path, sizeof(path), fmt, args);
	va_end(args);
	stream = len < (int)sizeof(path) ? fopen(path, "re") : NULL;
	if (!stream)
		return false;
	ok = fgets(line, size, stream);
	fclose(stream);
	if (ok)
		line[strcspn(line, "\n")] = '\0';
	return ok;
}
