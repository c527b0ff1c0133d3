#include "terminal/overwrite.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "locator/locator.h"
#include "terminal/device-users.h"
#include "terminal/key-input.h"

int overwrite_ask(const char *name, const char *what, const char *option, struct error *err)
{
	char question[1024];
	int ret;

	snprintf(question, sizeof(question),
		 "%s holds %s, which would be lost. "
		 "Type YES to go on:",
		 name, what);
	ret = terminal_confirm(question);
	if (ret == 1)
		return 0;
	if (ret == 0)
		return error_set(err, ECANCELED, "%s: left as it is", name);
	return error_set(err, EEXIST,
			 "%s: it holds %s; without a terminal to ask at, %s is "
			 "needed to destroy that",
			 name, what, option);
}

int overwrite_check_claims(const char *locator, struct error *err)
{
	struct stat st;
	int fd;

	if (locator_is_uri(locator) || stat(locator, &st) < 0 || !S_ISBLK(st.st_mode))
		return 0;
	fd = device_claim(locator, err);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}
