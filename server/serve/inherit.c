#include "inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

static int inherit(int fd, struct listener *listener, struct error *err)
{
	if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0)
		return error_set(err, EINVAL, "descriptor %d isn't a socket to listen on", fd);
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_set(err, errno, "descriptor %d: %s", fd, strerror(errno));
	*listener = (struct listener){ .fd = fd };
	if (sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) > 0)
		snprintf(listener->name, sizeof(listener->name), "a Unix socket");
	else
		listen_name(listener);
	return 0;
}

int listen_inherited(struct listener *listeners, size_t max, struct error *err)
{
	int count = sd_listen_fds(1), ret = 0;

	if (count > (int)max)
		return error_set(err, E2BIG, "no more than %zu sockets", max);
	for (int i = 0; i < count && ret == 0; i++)
		ret = inherit(SD_LISTEN_FDS_START + i, &listeners[i], err);
	return ret < 0 ? ret : count > 0 ? count : 0;
}
