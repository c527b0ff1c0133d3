#include "read-only.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_flag(const char *arg)
{
	static const char before[] =
		"fnosvV"; /* flags without a value, to be written in one with -r */
	size_t len = strlen(arg);

	if (arg[0] == '-' && arg[1] != '-')
		return arg[1 + strspn(arg + 1, before)] == 'r';
	/* getopt_long(3) takes what is left off at the end. */
	return len > strlen("--re") &&
	       (strncmp("--readonly", arg, len) == 0 || strncmp("--read-only", arg, len) == 0);
}

bool read_only_looks_so(void)
{
	FILE *f = fopen("/proc/self/cmdline", "re");
	char *arg = NULL;
	size_t size = 0;
	bool found = false;

	while (f && !found && getdelim(&arg, &size, '\0', f) > 0 && strcmp(arg, "--") != 0)
		found = is_flag(arg);
	free(arg);
	if (f)
		fclose(f);
	return found;
}
