#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void say(const char *fmt, ...)
{
	char line[1024];
	va_list args;
	int len, start = snprintf(line, sizeof(line), "ndio serve: ");

	va_start(args, fmt);
	len = vsnprintf(line + start, sizeof(line) - start - 1, fmt, args);
	va_end(args);
	len = len > (int)sizeof(line) - start - 2 ? (int)sizeof(line) - start - 2 : len;
	line[start + len] = '\n';
	(void)!write(STDERR_FILENO, line, start + len + 1);
}
