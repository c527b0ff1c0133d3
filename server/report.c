/* report: what the plugin tells its user.
 *
 * An error is nbdkit_error's, which knows where it goes: to stderr, or to nbdkit's log. A notice
 * goes there too once nbdkit has forked; until then it goes to stderr under another name, since
 * nbdkit has no call for it.
 *
 * The only state turns once, in after_fork, before there is a second thread of ours. */
#include "report.h"

#include <stdbool.h>
#include <stdio.h>

#include <nbdkit-plugin.h>

static bool forked; /* or as good as, in the foreground */

/* Before nbdkit goes into the background there is somebody at the terminal. Afterwards nobody is at
 * stderr, but nbdkit's errors go where its log goes (syslog, mostly). */
void notice(void *opaque, const char *message)
{
	(void)opaque;
	if (forked)
		nbdkit_error("%s", message);
	else
		fprintf(stderr, "nbdkit: ndio: %s\n", message);
}

void report_forked(void)
{
	forked = true;
}
