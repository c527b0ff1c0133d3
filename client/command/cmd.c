#include "command/cmd.h"

#include <stdarg.h>
#include <stdio.h>

#include "terminal/say.h"

int cmd_error(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say_as("ndio", fmt, args);
	va_end(args);
	return CMD_FAILED;
}

int cmd_usage_hint(const char *self)
{
	fprintf(stderr, "Try \"%s --help\".\n", self);
	return CMD_USAGE;
}

int cmd_usage(const char *self, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say_as(self, fmt, args);
	va_end(args);
	return cmd_usage_hint(self);
}
