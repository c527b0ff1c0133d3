#include "captive.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Is our parent the same program? Who started a server that isn't under --run may share its socket
 * with others (systemd), and then it isn't ours to shut down. */
static bool is_captive(void)
{
	char own[PATH_MAX], parent[PATH_MAX], link[64];
	ssize_t own_len = readlink("/proc/self/exe", own, sizeof(own)), len;

	snprintf(link, sizeof(link), "/proc/%d/exe", (int)getppid());
	len = readlink(link, parent, sizeof(parent));
	return own_len > 0 && len == own_len && memcmp(own, parent, len) == 0;
}

static bool is_listening(int fd)
{
	socklen_t len = sizeof(int);
	int listening;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening;
}

/* Nobody connects any more; those that already wait to be accepted are turned away. */
static void refuse(int fd)
{
	int client;

	shutdown(fd, SHUT_RDWR);
	while ((client = accept(fd, NULL, NULL)) >= 0)
		close(client);
}

void captive_refuse(void)
{
	DIR *dir = is_captive() ? opendir("/proc/self/fd") : NULL;
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (is_listening(fd))
			refuse(fd);
	}
	if (dir)
		closedir(dir);
}
