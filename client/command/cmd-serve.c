/* cmd-serve: ndio serve, see ndio-serve(8): a program of its own, ndio-serve, which this one becomes.
 * What the options are is that program's to say. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "command/cmd.h"
#include "terminal/server-program.h"

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
	char path[PATH_MAX];
	struct error err;

	(void)argc;
	if (server_program_find(path, &err) < 0)
		return cmd_error("%s", err.text);
	return cmd_error("%s: %s", path, strerror(become(path, argv)));
}
