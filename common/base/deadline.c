#include "base/deadline.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>

#include "base/clock.h"

#define STOP_MS 100 /* how often it is looked whether to stop */

int deadline_left(const struct deadline *deadline)
{
	int64_t left = deadline->at - clock_ms();
	int most = deadline->stop ? STOP_MS : INT_MAX;

	if (deadline->stop && atomic_load(deadline->stop))
		return -ECANCELED;
	if (left <= 0)
		return -ETIMEDOUT;
	return left < most ? left : most;
}

int deadline_wait(int fd, short events, const struct deadline *deadline)
{
	struct pollfd poll_fd = { .fd = fd, .events = events };
	int left, ret = 0;

	while (ret == 0) {
		left = deadline_left(deadline);
		if (left < 0)
			return left;
		ret = poll(&poll_fd, 1, left);
		if (ret < 0)
			ret = errno == EINTR ? 0 : -errno;
	}
	return ret < 0 ? ret : 0;
}
