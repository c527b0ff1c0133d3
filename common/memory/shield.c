#include "memory/shield.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "memory/pin.h"

/* Memory that the kernel allocates for this process then never waits for writeback, and what it
 * writes isn't throttled as others' writes are. */
static int become_flusher(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		return -errno;
	return prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1 ? 0 : -ENOTSUP;
}

static int hide_from_oom_killer(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	int ret = fd >= 0 && dprintf(fd, "-1000") > 0 ? 0 : -errno;

	if (fd >= 0)
		close(fd);
	return ret;
}

int shield_raise(const char *option, const struct notice *notice, struct error *err)
{
	int ret;

	/* MCL_ONFAULT locks what is used and not whole stacks and arenas. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		return error_set(err, errno,
				 "%s: can't lock the server's memory: %s (the locked-memory limit, "
				 "ulimit -l, must be unlimited)",
				 option, strerror(errno));
	pin_all_is_locked();
	ret = become_flusher();
	if (ret < 0)
		notice_tell(notice, "%s: the server can't become an I/O flusher: %s", option,
			    strerror(-ret));
	ret = hide_from_oom_killer();
	if (ret < 0)
		notice_tell(notice, "%s: the server can't hide from the OOM killer: %s", option,
			    strerror(-ret));
	return 0;
}
