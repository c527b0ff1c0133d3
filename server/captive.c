/* captive: nbdkit --run, where one nbdkit runs a command against another one, its child.
 *
 * Who loads the plugin is remembered, before the fork; a server that can't start asks after it
 * whether its parent is that one. nbdkit's main thread, both times. */
#include "captive.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static pid_t loader;

void captive_loaded(void)
{
	loader = getpid();
}

/* Is our parent who loaded the plugin? Who started a server that isn't under --run may share its
 * socket with others (systemd), and then it isn't ours to shut down. */
static bool is_captive(void)
{
	return getppid() == loader;
}

static bool is_listening(int fd)
{
	socklen_t len = sizeof(int);
	int listening;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening;
}

/* Nobody connects any more; those that already wait to be accepted are turned away. */
static void refuse_clients(int fd)
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
			refuse_clients(fd);
	}
	if (dir)
		closedir(dir);
}
