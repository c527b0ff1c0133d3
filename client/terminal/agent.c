#include "terminal/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "terminal/program.h"

static void agent_run_child(const char *path, const char *prompt, int output)
{
	signal(SIGPIPE, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (dup2(output, STDOUT_FILENO) >= 0)
		execl(path, path, "-n", "--id=ndio", "--timeout=0", prompt, NULL);
	_exit(127);
}

int agent_start(struct agent *agent, const char *prompt, struct error *err)
{
	char path[PATH_MAX];
	int ends[2];
	int ret = program_find("systemd-ask-password", "systemd", path, err);

	if (ret < 0)
		return ret;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(err, errno, "asking for a passphrase: %s", strerror(errno));
	agent->pid = fork();
	if (agent->pid == 0)
		agent_run_child(path, prompt, ends[1]);
	ret = agent->pid < 0 ? error_set(err, errno, "can't start %s: %s", path, strerror(errno)) :
			       0;
	close(ends[1]);
	if (ret < 0)
		close(ends[0]);
	else
		agent->fd = ends[0];
	return ret;
}

int agent_end(struct agent *agent, struct error *err)
{
	int status;

	close(agent->fd);
	if (!err)
		kill(agent->pid, SIGTERM);
	while (waitpid(agent->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return error_set(err, ENODATA, "no passphrase was typed (systemd-ask-password)");
}
