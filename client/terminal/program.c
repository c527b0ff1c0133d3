#include "terminal/program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "terminal/interrupt.h"

#define INTERRUPT_MS 100  /* how often it is looked whether one came */
#define GRACE_MS     1000 /* for a program that was told to end */

/* What it leaves in the background outlives our caller: Ctrl-C and the end of a terminal must not
 * reach it, and it must not keep open (and so locked, or unended) what our caller has given us. */
static void program_run_child(const char *const argv[], int fd, int output, pid_t parent)
{
	int null = open("/dev/null", O_RDONLY);

	signal(SIGPIPE, SIG_DFL);
	umask(077);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
	    dup2(output, STDERR_FILENO) < 0 || setsid() < 0 ||
	    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0 ||
	    (fd >= 0 && fcntl(fd, F_SETFD, 0) < 0) || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		_exit(126);
	if (getppid() == parent) /* else it has ended already */
		execv(argv[0], (char *const *)argv);
	dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* An interrupt ends the wait, and the program: by SIGTERM, and by SIGKILL where that isn't heard, as
 * by one that derives a key or waits for a server. One that came before has made us undo things. */
static int program_wait(pid_t pid, bool undoing, struct error *err)
{
	struct pollfd ended = { .fd = pidfd_open(pid, 0), .events = POLLIN };
	int64_t told = 0; /* when it was told to end */
	int status;

	while (ended.fd >= 0 && poll(&ended, 1, INTERRUPT_MS) != 1)
		if (interrupt_caught() && !undoing && !told) {
			kill(pid, SIGTERM);
			told = clock_ms();
		} else if (told && clock_ms() - told >= GRACE_MS) {
			kill(pid, SIGKILL);
		}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (ended.fd >= 0)
		close(ended.fd);
	if (interrupt_caught() && !undoing)
		return error_set(err, EINTR, "interrupted");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A file and not a pipe: what the program leaves in the background may keep it open. */
static int make_output(struct error *err)
{
	int fd = memfd_create("ndio-output", MFD_CLOEXEC);

	return fd < 0 ? error_set(err, errno, "no place for a program's output: %s",
				  strerror(errno)) :
			fd;
}

int program_start(const char *const argv[], int fd, struct program *program, struct error *err)
{
	pid_t parent = getpid();
	int ret;

	program->output = make_output(err);
	if (program->output < 0)
		return program->output;
	program->undoing = interrupt_caught(); /* before it can send us one itself */
	program->pid = fork();
	if (program->pid == 0)
		program_run_child(argv, fd, program->output, parent);
	if (program->pid > 0)
		return 0;
	ret = error_set(err, errno, "can't start %s: %s", argv[0], strerror(errno));
	close(program->output);
	return ret;
}

void program_printed(const struct program *program, struct program_output *output)
{
	ssize_t n = pread(program->output, output->text, sizeof(output->text) - 1, 0);

	output->text[n > 0 ? n : 0] = '\0';
}

bool program_ends_within(const struct program *program, unsigned ms)
{
	struct pollfd ended = { .fd = pidfd_open(program->pid, 0), .events = POLLIN };
	bool has_ended = ended.fd < 0 || poll(&ended, 1, ms) == 1;

	if (ended.fd >= 0)
		close(ended.fd);
	return has_ended;
}

int program_end(struct program *program, struct program_output *output, struct error *err)
{
	int ret = program_wait(program->pid, program->undoing, err);

	program_printed(program, output);
	close(program->output);
	return ret;
}

int program_run(const char *const argv[], int fd, struct program_output *output, struct error *err)
{
	struct program program;
	int ret = program_start(argv, fd, &program, err);

	return ret < 0 ? ret : program_end(&program, output, err);
}

const char *program_reason(struct program_output *output, const char *mark)
{
	const char *last = "it says nothing";
	char *rest = output->text, *line;

	while ((line = strsep(&rest, "\n"))) {
		if (strncmp(line, mark, strlen(mark)) == 0)
			return line + strlen(mark);
		if (line[strspn(line, " ")])
			last = line;
	}
	return last;
}
