/* The two processes have a pipe: a byte from the new one says that it serves, and its end that it doesn't. */
#include "background.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "say.h"

static int ready_fd = -1;

/* What the caller has given us is the new process's alone: a key's socket must end when that closes it. */
static _Noreturn void background_wait(pid_t pid, int fd)
{
	char byte;
	ssize_t n;
	int status;

	close_range(STDERR_FILENO + 1, fd - 1, 0);
	close_range(fd + 1, ~0U, 0);
	do
		n = read(fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(EXIT_SUCCESS);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			_exit(EXIT_FAILURE);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int background_begin(struct error *err)
{
	pid_t caller = getpid(), pid;
	int ends[2];

	/* They are for the process that it started. */
	if (sd_listen_fds(0) > 0)
		return error_set(err, EINVAL, "--background: systemd has opened sockets");
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(err, errno, "--background: no pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		return error_set(err, errno, "--background: no process: %s", strerror(errno));
	close(ends[pid > 0]);
	if (pid > 0)
		background_wait(pid, ends[0]);
	ready_fd = ends[1];
	if (prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) < 0)
		return error_set(err, errno, "--background: %s", strerror(errno));
	if (getppid() != caller)
		_exit(EXIT_FAILURE);
	unsetenv("NOTIFY_SOCKET"); /* the caller's own, whose end says enough */
	return 0;
}

int background_ready(struct error *err)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	ssize_t n;

	if (null < 0)
		return error_set(err, errno, "/dev/null: %s", strerror(errno));
	if (setsid() < 0 || chdir("/") < 0)
		return error_set(err, errno, "--background: %s", strerror(errno));
	say_to_log();
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	close(null);
	/* If it has ended by now it can't be told. */
	prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
	n = write(ready_fd, "", 1);
	close(ready_fd);
	return n == 1 ? 0 : error_set(err, ESRCH, "--background: who started it is gone");
}
