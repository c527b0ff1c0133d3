/* Which process is a gateway, how it is made to end, and whether it answers. In place of the
 * server this program runs itself, with such a command line. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "attach/gateway.h"
#include "terminal/interrupt.h"
#include "terminal/patience.h"

#define OTHER_USER 65534
#define WAIT_MS    30000
#define NAME       "gateway" /* that a copy of this program runs under */

static char folder[4096], socket_path[4200];
static struct error err;

/* ---- a process that looks like a gateway ---- */

static void on_term(int number)
{
	_exit(0);
}

/* SIGTERM is blocked until we are ready for it. */
_Noreturn static void be_gateway(void)
{
	sigset_t none;

	sigemptyset(&none);
	signal(SIGTERM, on_term);
	for (;;)
		sigsuspend(&none);
}

struct user {
	uid_t real, effective, saved;
};

static pid_t start_as(struct user user, const char *const argv[])
{
	sigset_t term;
	pid_t pid;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	pid = fork();
	if (pid == 0) {
		sigprocmask(SIG_BLOCK, &term, NULL);
		if (setresuid(user.real, user.effective, user.saved) == 0 &&
		    prctl(PR_SET_PDEATHSIG, SIGKILL) == 0)
			execv("/proc/self/exe", (char *const *)argv);
		_exit(127);
	}
	assert_true(pid > 0);
	return pid;
}

struct started {
	pid_t pid;
	size_t len; /* of its command line */
};

/* From then on it is this program under its new name, and not a copy of us. */
static bool has_command_line(void *opaque)
{
	const struct started *started = opaque;
	char path[64], text[4300];
	size_t len;
	FILE *stream;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", started->pid);
	stream = fopen(path, "re");
	len = stream ? fread(text, 1, sizeof(text), stream) : 0;
	if (stream)
		fclose(stream);
	/* Ours may be as long by chance. */
	return len == started->len && strcmp(text, NAME) == 0;
}

static pid_t start_with(struct user user, const char *option, const char *path)
{
	const char *const argv[] = { NAME, option, path, "plugin", NULL };
	struct started started = { .pid = start_as(user, argv) };

	for (size_t i = 0; argv[i]; i++)
		started.len += strlen(argv[i]) + 1;
	assert_true(patience(WAIT_MS, has_command_line, &started));
	return started.pid;
}

static struct user myself(void)
{
	return (struct user){ geteuid(), geteuid(), geteuid() };
}

static pid_t start(void)
{
	return start_with(myself(), "--socket", socket_path);
}

static void end(pid_t pid, int wanted)
{
	int status;

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, wanted);
}

/* ---- finding and stopping ---- */

static void test_none(void **state)
{
	assert_int_equal(gateway_find(socket_path), 0);
	assert_int_equal(gateway_stop(socket_path, false, &err), 0);
	assert_int_equal(gateway_stop(socket_path, true, &err), 0);
}

static void test_ends_by_itself(void **state)
{
	pid_t pid = start();

	assert_int_equal(gateway_find(socket_path), pid);
	assert_int_equal(gateway_stop(socket_path, false, &err), 0);
	end(pid, 0);
}

static void test_killed(void **state)
{
	pid_t pid = start();

	assert_int_equal(gateway_stop(socket_path, true, &err), 0);
	assert_int_equal(gateway_find(socket_path), 0);
	end(pid, SIGKILL);
}

static void test_all_are_stopped(void **state)
{
	pid_t pids[3];

	for (size_t i = 0; i < 3; i++)
		pids[i] = start();
	assert_int_equal(gateway_stop(socket_path, false, &err), 0);
	for (size_t i = 0; i < 3; i++)
		end(pids[i], 0);
}

/* They live on. */
static void assert_not_found(pid_t pid)
{
	assert_int_equal(gateway_find(socket_path), 0);
	assert_int_equal(gateway_stop(socket_path, false, &err), 0);
	assert_int_equal(gateway_stop(socket_path, true, &err), 0);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	end(pid, SIGKILL);
}

static void test_other_command_lines(void **state)
{
	char longer[5000], shorter[4200];

	snprintf(longer, sizeof(longer), "%s2", socket_path);
	snprintf(shorter, sizeof(shorter), "%.*s", (int)strlen(socket_path) - 1, socket_path);
	assert_not_found(start_with(myself(), "--socket", longer));
	assert_not_found(start_with(myself(), "--socket", shorter));
	assert_not_found(start_with(myself(), "--sockets", socket_path));
	assert_not_found(start_with(myself(), socket_path, "--socket"));
}

/* Any user can name the socket. So can who starts a set-user-ID program, or has his own processes
 * belong to root in /proc. */
static void test_other_users(void **state)
{
	static const struct user others[] = {
		{ OTHER_USER, OTHER_USER, OTHER_USER },
		{ OTHER_USER, 0, 0 },
		{ OTHER_USER, OTHER_USER, 0 },
		{ 0, OTHER_USER, OTHER_USER },
	};
	pid_t pid, own;

	if (geteuid() != 0)
		skip();
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_not_found(start_with(others[i], "--socket", socket_path));
	/* Nor does it hide ours, whichever comes first in /proc. */
	pid = start_with(others[0], "--socket", socket_path);
	own = start();
	assert_int_equal(gateway_find(socket_path), own);
	assert_int_equal(gateway_stop(socket_path, false, &err), 0);
	end(own, 0);
	assert_not_found(pid);
}

/* ---- asking it ---- */

static int listen_there(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0 && strlen(socket_path) < sizeof(address.sun_path));
	strcpy(address.sun_path, socket_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 5), 0);
	return fd;
}

static enum gateway_health first_block(unsigned ms)
{
	return gateway_check(socket_path, ms, &(struct gateway_facts){ 0 });
}

static void test_health(void **state)
{
	pid_t pid;
	int fd;

	assert_int_equal(first_block(WAIT_MS), GATEWAY_GONE);
	fd = listen_there();
	assert_int_equal(first_block(300), GATEWAY_SILENT);
	close(fd);
	assert_int_equal(first_block(WAIT_MS), GATEWAY_GONE);
	pid = start();
	assert_int_equal(first_block(WAIT_MS), GATEWAY_FAILING);
	end(pid, SIGKILL);
	assert_int_equal(unlink(socket_path), 0);
}

static void test_health_interrupted(void **state)
{
	const struct timespec while_it_waits = { .tv_nsec = 300 * 1000000 };
	int fd = listen_there();
	time_t before = time(NULL);
	pid_t us = getpid(), pid;

	interrupt_catch(-1);
	pid = fork();
	if (pid == 0) {
		nanosleep(&while_it_waits, NULL);
		kill(us, SIGINT);
		_exit(0);
	}
	assert_int_equal(first_block(2 * WAIT_MS), GATEWAY_SILENT);
	assert_true(time(NULL) - before < WAIT_MS / 1000);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	interrupt_catch(-1); /* forgets it */
	close(fd);
	assert_int_equal(unlink(socket_path), 0);
}

static int make_folder(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/ndio-gateway-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(folder))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
	return 0;
}

static int remove_folder(void **state)
{
	return rmdir(folder);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_ends_by_itself),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_all_are_stopped),
		cmocka_unit_test(test_other_command_lines),
		cmocka_unit_test(test_other_users),
		cmocka_unit_test(test_health),
		cmocka_unit_test(test_health_interrupted),
	};

	if (argc > 1)
		be_gateway();
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
