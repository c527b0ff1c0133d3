/* cmd-serve: ndio serve, see ndio-serve(8): a program of its own, ndio-serve, which this one becomes.
 *
 * The two ends share no code but the engine's, and who only uses a disk needn't have a server. What the
 * options are is that program's to say. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command/cmd.h"

#define PROGRAM   "ndio-serve"
#define INSTALLED NDIO_LIBEXECDIR "/" PROGRAM

/* Beside this program, where `make` leaves it. False: nobody can tell where this program is. */
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

/* Becomes it; comes back if that fails, with its errno. */
static int become(const char *path, char **argv)
{
	/* It begins with what this program was given. */
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	execv(path, argv);
	return errno;
}

int cmd_serve(int argc, char **argv)
{
	char beside[PATH_MAX] = "";
	int error = ENOENT;

	(void)argc;
	if (find_beside(beside))
		error = become(beside, argv);
	if (error != ENOENT)
		return cmd_error("%s: %s", beside, strerror(error));
	error = become(INSTALLED, argv);
	if (error != ENOENT)
		return cmd_error("%s: %s", INSTALLED, strerror(error));
	return cmd_error("%s: the server isn't installed", INSTALLED);
}
