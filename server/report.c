/* report: what the plugin tells its user.
 *
 * An error is nbdkit_error's, which knows where it goes: to stderr, or to nbdkit's log. A notice
 * goes there too once nbdkit has forked, when nobody is at stderr any more; until then there is
 * somebody at the terminal, and nbdkit has no call for what isn't an error.
 *
 * The only state turns once, in after_fork, before there is a second thread of ours. */
#include "report.h"

#include <stdbool.h>
#include <stdio.h>

static bool forked; /* or as good as, in the foreground */

static void report_tell(void *opaque, const char *message)
{
	(void)opaque;
	if (forked)
		nbdkit_error("%s", message);
	else
		fprintf(stderr, "nbdkit: ndio: %s\n", message);
}

const struct notice report_notice = { .tell = report_tell };

void report_forked(void)
{
	forked = true;
}
