/* Between this process and the program is a third, the keeper, with a session of its own, and in its group all
 * is that the program starts. It is told when this process dies, and the group is killed then; as it is by
 * this process when the time is up. So nobody is left behind who waits for a server that is silent.
 *
 * This process may have threads: the keeper is made of it by fork and never becomes another program, so it
 * does only what a signal's handler may. */
#include "base/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/printable.h"

/* What comes of a pipe. */
struct stream {
	int fd; /* or -1: that was all */
	char *into;
	size_t size, len; /* bytes */
	bool is_bounded;  /* more than fits is an error; else it is passed over */
};

/* What goes in. */
struct input {
	int fd;
	void *memory; /* mapped and locked; NULL where nothing goes in */
};

struct run {
	pid_t keeper;
	struct input in;
	struct stream out, said;
	char text[FILTER_SAID]; /* that it said */
};

/* ---- the keeper ---- */

static void kill_group(int number)
{
	(void)number;
	kill(0, SIGKILL);
}

/* As at the start of any program. */
static void filter_usual_signals(void)
{
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void filter_become_program(const struct filter *filter, char *const *env, const int fds[3])
{
	for (int fd = 0; fd < 3; fd++)
		if (dup2(fds[fd], fd) < 0)
			_exit(126);
	if (filter->fd == FILTER_FD)
		fcntl(FILTER_FD, F_SETFD, 0);
	else if (filter->fd && dup2(filter->fd, FILTER_FD) < 0)
		_exit(126);
	if (close_range(filter->fd ? FILTER_FD + 1 : FILTER_FD, ~0U, 0) == 0)
		execve(filter->argv[0], (char *const *)filter->argv, env);
	_exit(127);
}

/* fds: the program's standard input, output and error, all above these. */
static void keep_program(const struct filter *filter, char *const *env, const int fds[3],
			 pid_t parent)
{
	int status;
	pid_t pid;

	filter_usual_signals();
	signal(SIGTERM, kill_group);
	if (setsid() < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent)
		_exit(126);
	pid = _Fork();
	if (pid == 0) {
		signal(SIGTERM, SIG_DFL);
		filter_become_program(filter, env, fds);
	}
	close_range(0, ~0U, 0); /* so that the pipes end when the program does */
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		_exit(126);
	_exit(WEXITSTATUS(status));
}

/* ---- this process ---- */

/* Above the standard ones, which this process may not have. */
static int filter_lift(int *fd)
{
	int lifted = *fd > STDERR_FILENO ? *fd : fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	int error = errno;

	if (lifted != *fd)
		close(*fd);
	*fd = lifted;
	errno = error;
	return lifted;
}

static int filter_make_pipe(int ends[2])
{
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	return filter_lift(&ends[0]) < 0 || filter_lift(&ends[1]) < 0 ? -errno : 0;
}

static void filter_close_both(const int ends[2])
{
	for (int i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
}

/* A file without a name, in locked memory: some programs want to seek in what they read, and one that ends
 * early raises no SIGPIPE here. */
static int filter_make_input(const struct filter *filter, struct input *input)
{
	*input = (struct input){ .fd = memfd_create("ndio-input", MFD_CLOEXEC) };
	if (input->fd < 0 || filter_lift(&input->fd) < 0)
		return -errno;
	if (filter->in_len == 0)
		return 0;
	if (filter->in_len > FILTER_IN_MAX)
		return -EFBIG;
	if (ftruncate(input->fd, filter->in_len) < 0)
		return -errno;
	input->memory =
		mmap(NULL, filter->in_len, PROT_READ | PROT_WRITE, MAP_SHARED, input->fd, 0);
	if (input->memory == MAP_FAILED || mlock(input->memory, filter->in_len) < 0)
		return -errno;
	memcpy(input->memory, filter->in, filter->in_len);
	return 0;
}

/* Ours, behind what it has besides; or NULL. What is in it isn't copied. */
static char **filter_make_env(const struct filter *filter)
{
	size_t count = 0;
	char **env;

	while (environ && environ[count])
		count++;
	env = calloc(count + 2, sizeof(*env));
	if (env && filter->env)
		env[0] = (char *)filter->env;
	if (env && count)
		memcpy(env + !!filter->env, environ, count * sizeof(*env));
	return env;
}

/* It was read, or won't be. */
static void filter_end_input(const struct filter *filter, struct input *input)
{
	if (input->memory && input->memory != MAP_FAILED) {
		explicit_bzero(input->memory, filter->in_len);
		munmap(input->memory, filter->in_len);
	}
	if (input->fd >= 0)
		close(input->fd);
}

static int filter_start_run(const struct filter *filter, struct run *run, struct error *err)
{
	int out[2] = { -1, -1 }, said[2] = { -1, -1 };
	char **env = filter_make_env(filter);
	int ret = filter_make_input(filter, &run->in);
	pid_t self = getpid();

	if (ret == 0)
		ret = env ? filter_make_pipe(out) : -ENOMEM;
	if (ret == 0)
		ret = filter_make_pipe(said);
	run->out = (struct stream){ -1, filter->out, filter->out_size, 0, true };
	run->said = (struct stream){ -1, run->text, FILTER_SAID - 1, 0, false };
	if (ret == 0) {
		run->keeper = _Fork();
		ret = run->keeper < 0 ? -errno : 0;
	}
	if (ret == 0 && run->keeper == 0)
		keep_program(filter, env, (int[]){ run->in.fd, out[1], said[1] }, self);
	free(env);
	if (ret == 0) {
		run->out.fd = out[0];
		run->said.fd = said[0];
		out[0] = said[0] = -1;
	}
	filter_close_both(out);
	filter_close_both(said);
	if (ret < 0)
		filter_end_input(filter, &run->in);
	return ret < 0 ? error_set(err, -ret, "can't be started: %s", strerror(-ret)) : 0;
}

/* Of what is too much the last is kept. */
static int filter_make_room(struct stream *stream)
{
	size_t kept = stream->size / 2;

	if (stream->is_bounded)
		return -EFBIG;
	memmove(stream->into, stream->into + stream->len - kept, kept);
	stream->len = kept;
	return 0;
}

/* Some of what there is, into its place: it may be secret. 0, or a negative errno. */
static int filter_take_some(struct stream *stream)
{
	ssize_t n = read(stream->fd, stream->into + stream->len, stream->size - stream->len);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	if (n == 0) {
		close(stream->fd);
		stream->fd = -1;
	}
	stream->len += n;
	return stream->len == stream->size ? filter_make_room(stream) : 0;
}

/* Both come to their end when the program does, and all that it started. */
static int filter_read_streams(struct run *run, int64_t deadline)
{
	int ret = 0;

	while (ret == 0 && (run->out.fd >= 0 || run->said.fd >= 0)) {
		struct pollfd fds[] = { { .fd = run->out.fd, .events = POLLIN },
					{ .fd = run->said.fd, .events = POLLIN } };
		int64_t left = deadline - clock_ms();
		int n = left > 0 ? poll(fds, 2, left) : 0;

		if (n == 0)
			return -ETIMEDOUT;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && fds[0].revents)
			ret = filter_take_some(&run->out);
		if (n > 0 && fds[1].revents && ret == 0)
			ret = filter_take_some(&run->said);
	}
	return ret;
}

/* The keeper is the last of them that is waited for, so its number is still that of the group. Its status; 0
 * where the program that we are in wants to know of no child. */
static int filter_end_run(struct run *run, int64_t deadline)
{
	struct pollfd keeper = { .fd = pidfd_open(run->keeper, 0), .events = POLLIN };
	int64_t left = deadline - clock_ms();
	int status = 0;

	if (keeper.fd >= 0 && left > 0)
		while (poll(&keeper, 1, left) < 0 && errno == EINTR)
			;
	if (keeper.fd >= 0)
		close(keeper.fd);
	kill(-run->keeper, SIGKILL);
	kill(run->keeper, SIGKILL); /* before it has a group it is alone */
	while (waitpid(run->keeper, &status, 0) < 0)
		if (errno != EINTR)
			return 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}

/* The last line that it said. */
static int run_failed(struct run *run, struct error *err)
{
	char *last = NULL, *rest = run->text, *line, clean[256];

	while ((line = strsep(&rest, "\n")))
		if (line[strspn(line, " ")])
			last = line;
	return error_set(err, EIO, "%s",
			 last ? printable(last, clean, sizeof(clean)) :
				"failed, and doesn't say why");
}

long filter_run(const struct filter *filter, struct error *err)
{
	int64_t deadline = clock_ms() + filter->ms;
	struct run run;
	int ret = filter_start_run(filter, &run, err), status;

	if (ret < 0)
		return ret;
	ret = filter_read_streams(&run, deadline);
	status = filter_end_run(&run, ret < 0 ? 0 : deadline);
	filter_end_input(filter, &run.in);
	if (run.out.fd >= 0)
		close(run.out.fd);
	if (run.said.fd >= 0)
		close(run.said.fd);
	run.text[run.said.len] = '\0';
	if (filter->said)
		memcpy(filter->said, run.text, FILTER_SAID);
	if (ret == -ETIMEDOUT)
		return error_set(err, ETIMEDOUT, "no answer within %u seconds",
				 (filter->ms + 999) / 1000);
	if (ret < 0)
		return error_set(err, -ret, "%s", ret == -EFBIG ? "says too much" : strerror(-ret));
	return status ? run_failed(&run, err) : (long)run.out.len;
}
