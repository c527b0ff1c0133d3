/* Other programs: what they are given, what they say and how they end. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "terminal/interrupt.h"
#include "terminal/patience.h"
#include "terminal/program.h"

#define WAIT_MS 30000

static struct program_output output;
static struct error err;

/* As on a machine that is busy, but for us. */
static bool time_stands_still;

int clock_gettime(clockid_t id, struct timespec *now)
{
	if (!time_stands_still)
		return syscall(SYS_clock_gettime, id, now);
	*now = (struct timespec){ .tv_sec = 1 };
	return 0;
}

/* Runs a shell command. */
static int run_with(const char *command, int fd)
{
	const char *const argv[] = { "/bin/sh", "-c", command, NULL };

	err.text[0] = '\0';
	return program_run(argv, fd, &output, &err);
}

static int run(const char *command)
{
	return run_with(command, -1);
}

static void test_status(void **state)
{
	assert_int_equal(run("exit 0"), 0);
	assert_int_equal(run("exit 7"), 7);
	assert_int_equal(run("kill -KILL $$"), 128 + SIGKILL);
}

static void test_cannot_start(void **state)
{
	const char *const argv[] = { "/none", NULL };

	assert_int_equal(program_run(argv, -1, &output, &err), 127);
	assert_string_equal(program_reason(&output, "x"), "/none: No such file or directory");
}

static void test_output(void **state)
{
	assert_int_equal(run("echo out; echo err >&2; cat"), 0);
	assert_string_equal(output.text, "out\nerr\n");
	assert_int_equal(run("yes 12345678 | head -c 100000"), 0);
	assert_int_equal(strlen(output.text), sizeof(output.text) - 1);
	assert_int_equal(run(":"), 0);
	assert_string_equal(output.text, "");
}

static void test_reason(void **state)
{
	static const struct {
		const char *text, *reason;
	} cases[] = {
		{ "", "it says nothing" },
		{ "\n \n", "it says nothing" },
		{ "one", "one" },
		{ "one\ntwo\n", "two" },
		{ "one\n\n  \n", "one" },
		{ "one\nError: this\nError: that\n\nExiting.\n", "this" },
		{ "no Error: here\nthe end", "the end" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		strcpy(output.text, cases[i].text);
		assert_string_equal(program_reason(&output, "Error: "), cases[i].reason);
	}
}

/* Field 6 of proc(5)'s stat is the session, and no word before it has blanks here. */
static void test_own_session(void **state)
{
	assert_int_equal(run("read -r _ _ _ _ _ session _ </proc/$$/stat; [ $session = $$ ]"), 0);
}

static void test_private_files(void **state)
{
	assert_int_equal(run("umask"), 0);
	assert_int_equal(strtol(output.text, NULL, 8), 077);
}

/* A descriptor that our caller has left open doesn't get there; the one that is passed on does. */
static void test_descriptors(void **state)
{
	int other = open("/dev/null", O_RDONLY), passed = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	char wanted[64];

	assert_true(other > 2 && passed > other);
	/* The shell opens nothing to find these names out, but the folder, last. */
	assert_int_equal(run("cd /proc/$$/fd; for fd in *; do [ ! -e $fd ] || echo $fd; done"), 0);
	assert_string_equal(output.text, "0\n1\n2\n");
	snprintf(wanted, sizeof(wanted), "readlink /proc/$$/fd/%d; ls /proc/$$/fd/%d", passed,
		 other);
	assert_int_not_equal(run_with(wanted, passed), 0);
	assert_memory_equal(output.text, "/dev/zero\n", strlen("/dev/zero\n"));
	close(other);
	close(passed);
}

/* Were it waited for, this would take as long as it does. */
static void test_background(void **state)
{
	time_t start = time(NULL);
	pid_t left;

	assert_int_equal(run("sleep 100 & echo $!"), 0);
	left = atoi(output.text);
	assert_true(time(NULL) - start < 90);
	assert_int_equal(kill(left, 0), 0);
	kill(left, SIGKILL);
}

/* ---- endings ---- */

static bool has_ended(void *opaque)
{
	char path[64], line[256] = "";
	FILE *stream;

	snprintf(path, sizeof(path), "/proc/%d/stat", *(pid_t *)opaque);
	stream = fopen(path, "re");
	if (!stream)
		return true;
	/* A dead one that its new parent hasn't asked for yet has ended, too. */
	if (fgets(line, sizeof(line), stream))
		line[sizeof(line) - 1] = '\0';
	fclose(stream);
	return !line[0] || strstr(line, ") Z ") || strstr(line, ") X ");
}

static void test_killed_with_us(void **state)
{
	int ends[2], status;
	pid_t runner, program;
	char command[64];

	assert_int_equal(pipe(ends), 0);
	snprintf(command, sizeof(command), "echo $$ >&%d; exec sleep 100", ends[1]);
	runner = fork();
	if (runner == 0)
		_exit(run_with(command, ends[1]) < 0);
	memset(command, 0, sizeof(command));
	assert_true(read(ends[0], command, sizeof(command) - 1) > 0);
	program = atoi(command);
	assert_false(has_ended(&program));
	kill(runner, SIGKILL);
	assert_int_equal(waitpid(runner, &status, 0), runner);
	assert_true(patience(WAIT_MS, has_ended, &program));
	close(ends[0]);
	close(ends[1]);
}

/* The program is told to end, and has all the time that it needs; what is run to undo things afterwards
 * isn't told. */
static void test_interrupt(void **state)
{
	interrupt_catch(-1);
	time_stands_still = true;
	assert_int_equal(run("trap 'echo told; exit 0' TERM; kill -INT $PPID; "
			     "while :; do sleep 0.1; done"),
			 -EINTR);
	time_stands_still = false;
	assert_string_equal(err.text, "interrupted");
	assert_string_equal(output.text, "told\n");
	assert_int_equal(run("sleep 0.3; exit 3"), 3);
	interrupt_catch(-1);
}

/* One that doesn't hear is killed, rather than waited for. */
static void test_deaf(void **state)
{
	interrupt_catch(-1);
	assert_int_equal(run("trap '' TERM; kill -INT $PPID; while :; do sleep 0.1; done"), -EINTR);
	assert_string_equal(err.text, "interrupted");
	interrupt_catch(-1);
}

static bool interrupts(void *opaque)
{
	(*(unsigned *)opaque)++;
	raise(SIGINT);
	return false;
}

static bool third_time(void *opaque)
{
	return ++*(unsigned *)opaque == 3;
}

/* A wait ends with it; those that undo things afterwards don't. */
static void test_patience_interrupted(void **state)
{
	unsigned looked = 0;

	interrupt_catch(-1);
	assert_false(patience(WAIT_MS, interrupts, &looked));
	assert_int_equal(looked, 1);
	looked = 0;
	assert_true(patience(WAIT_MS, third_time, &looked));
	interrupt_catch(-1);
}

/* ---- finding them ---- */

static void test_find(void **state)
{
	char folder[] = "/tmp/ndio-program-XXXXXX", list[PATH_MAX], wanted[PATH_MAX];
	char path[PATH_MAX];

	assert_non_null(mkdtemp(folder));
	snprintf(list, sizeof(list), ":/none:%s:/bin", folder);
	assert_int_equal(setenv("PATH", list, 1), 0);

	snprintf(wanted, sizeof(wanted), "%s/sh", folder);
	assert_int_equal(mkdir(wanted, 0755), 0);
	assert_int_equal(program_find("sh", "dash", path, &err), 0);
	assert_string_equal(path, "/bin/sh"); /* that folder isn't it */
	assert_int_equal(rmdir(wanted), 0);

	assert_int_equal(symlink("/bin/true", wanted), 0);
	assert_int_equal(program_find("sh", "dash", path, &err), 0);
	assert_string_equal(path, wanted);
	assert_int_equal(unlink(wanted), 0);
	assert_int_equal(rmdir(folder), 0);

	assert_int_equal(program_find("none-such", "thing", path, &err), -ENOENT);
	assert_string_equal(err.text, "none-such isn't installed: apt-get install thing");
}

/* In a system administrator's folder that a user's PATH lacks. */
static void test_find_without_path(void **state)
{
	char path[PATH_MAX];

	assert_int_equal(unsetenv("PATH"), 0);
	assert_int_equal(program_find("mke2fs", "e2fsprogs", path, &err), 0);
	assert_string_equal(path, "/usr/sbin/mke2fs");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status),         cmocka_unit_test(test_cannot_start),
		cmocka_unit_test(test_output),         cmocka_unit_test(test_reason),
		cmocka_unit_test(test_own_session),    cmocka_unit_test(test_private_files),
		cmocka_unit_test(test_descriptors),    cmocka_unit_test(test_background),
		cmocka_unit_test(test_killed_with_us), cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_deaf),           cmocka_unit_test(test_patience_interrupted),
		cmocka_unit_test(test_find),           cmocka_unit_test(test_find_without_path),
	};

	alarm(120); /* a wait that doesn't end is a failure */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
