/* What is kept of attached devices: whose folder it is, who may work on it, and the facts in it. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "attach/attachment.h"

#define ROUNDS 300

static char folder[4096], run_dir[4200];
static struct attachment attachment;
static struct error err;

static int make_folder(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/ndio-attachment-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
	return chdir("/") == 0 ? rmdir(folder) : -1;
}

static void use(const char *dir)
{
	assert_int_equal(setenv("NDIO_RUN_DIR", dir, 1), 0);
}

static int use_run(void **state)
{
	snprintf(run_dir, sizeof(run_dir), "%s/run", folder);
	use(run_dir);
	return attachment_init(&attachment, 7, &err);
}

static int remove_run(void **state)
{
	if (attachment.lock >= 0)
		attachment_remove(&attachment, NULL);
	return rmdir("run") == 0 || errno == ENOENT ? 0 : -1;
}

static int lock(void)
{
	err.text[0] = '\0';
	return attachment_lock(&attachment, &err);
}

static void assert_mode(const char *path, mode_t mode)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_mode & 0777, mode);
}

/* ---- paths ---- */

static void test_paths(void **state)
{
	static const char *const same[] = { "/run/x", "/run/x/", "/run/x///" };

	for (size_t i = 0; i < 3; i++) {
		use(same[i]);
		assert_int_equal(attachment_init(&attachment, 20, &err), 0);
		assert_int_equal(attachment.index, 20);
		assert_string_equal(attachment.dir, "/run/x/nbd20");
		assert_string_equal(attachment.socket, "/run/x/nbd20/socket");
	}
	use("");
	assert_int_equal(attachment_init(&attachment, 0, &err), 0);
	assert_string_equal(attachment.dir, "/run/ndio/nbd0");
	attachment.lock = -1;
}

static void test_relative_path(void **state)
{
	use("run");
	assert_int_equal(attachment_init(&attachment, 0, &err), -EINVAL);
	assert_string_equal(err.text, "NDIO_RUN_DIR=run is not an absolute path");
}

/* "/nbd0/socket" and a NUL are 13 of the 108 bytes of a socket's address. */
static void test_long_path(void **state)
{
	char path[3 * PATH_MAX] = "/";

	memset(path + 1, 'x', sizeof(path) - 2);
	path[sizeof(path) - 1] = '\0';
	use(path);
	assert_int_equal(attachment_init(&attachment, 0, &err), -ENAMETOOLONG);
	path[96] = '\0';
	use(path);
	assert_int_equal(attachment_init(&attachment, 0, &err), -ENAMETOOLONG);
	path[95] = '\0';
	use(path);
	assert_int_equal(attachment_init(&attachment, 0, &err), 0);
	assert_int_equal(attachment_init(&attachment, 10, &err), -ENAMETOOLONG);
}

/* ---- the lock ---- */

static void test_lock_makes_folders(void **state)
{
	mode_t before = umask(0);

	assert_false(attachment_exists(&attachment));
	assert_int_equal(lock(), 0);
	umask(before);
	assert_true(attachment_exists(&attachment));
	assert_mode("run", 0755);
	assert_mode("run/nbd7", 0700);
	assert_int_equal(attachment_remove(&attachment, &err), 0);
	assert_int_equal(attachment.lock, -1);
	assert_int_equal(access("run/nbd7", F_OK), -1);
}

static void test_lock_excludes(void **state)
{
	struct attachment second, other;

	assert_int_equal(lock(), 0);
	assert_int_equal(attachment_init(&second, 7, &err), 0);
	assert_int_equal(attachment_lock(&second, &err), -EBUSY);
	assert_string_equal(err.text, "nbd7: another command is at work on it");
	assert_int_equal(second.lock, -1);
	assert_int_equal(attachment_init(&other, 8, &err), 0);
	assert_int_equal(attachment_lock(&other, &err), 0);
	assert_int_equal(attachment_remove(&other, &err), 0);
	attachment_unlock(&attachment);
	assert_int_equal(attachment_lock(&second, &err), 0);
	attachment_unlock(&second);
	assert_int_equal(lock(), 0);
}

/* Locks it, finds that nobody else has it, and removes it, again and again. */
static int take_turns(void)
{
	int had = 0;

	while (had < ROUNDS) {
		int ret = attachment_lock(&attachment, &err), fd;

		if (ret == -EBUSY)
			continue;
		fd = ret < 0 ? -1 : open("run/nbd7/state.json", O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			return 1;
		close(fd);
		if (attachment_remove(&attachment, &err) < 0)
			return 2;
		had++;
	}
	return 0;
}

/* Whoever waits to lock what is being removed gets what is there then. */
static void test_lock_while_removed(void **state)
{
	pid_t other;
	int status;

	alarm(120);
	other = fork();
	if (other == 0)
		_exit(take_turns());
	assert_int_equal(take_turns(), 0);
	assert_int_equal(waitpid(other, &status, 0), other);
	assert_int_equal(status, 0);
	alarm(0);
}

static void assert_refused(int wanted, const char *why)
{
	assert_int_equal(lock(), wanted);
	assert_non_null(strstr(err.text, why));
	assert_int_equal(attachment.lock, -1);
}

static void test_folders_of_others(void **state)
{
	assert_int_equal(lock(), 0);
	attachment_unlock(&attachment);
	assert_int_equal(chmod("run/nbd7", 0710), 0);
	assert_refused(-EPERM, "run/nbd7: not a folder that only its owner may enter");
	assert_int_equal(chmod("run/nbd7", 0700), 0);
	assert_int_equal(chmod("run", 0775), 0);
	assert_refused(-EPERM, "run: not a folder that only its owner may change");
	assert_int_equal(chmod("run", 0755), 0);
	if (geteuid() == 0) {
		assert_int_equal(chown("run/nbd7", 1000, 0), 0);
		assert_refused(-EPERM, "run/nbd7: not a folder");
		assert_int_equal(chown("run/nbd7", 0, 0), 0);
		assert_int_equal(chown("run", 1000, 0), 0);
		assert_refused(-EPERM, "run: not a folder");
		assert_int_equal(chown("run", 0, 0), 0);
	}
	assert_int_equal(lock(), 0);
}

static void test_not_folders(void **state)
{
	int fd;

	assert_int_equal(lock(), 0);
	assert_int_equal(attachment_remove(&attachment, &err), 0);

	fd = open("run/nbd7", O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_refused(-ENOTDIR, "run/nbd7: ");
	assert_int_equal(unlink("run/nbd7"), 0);

	assert_int_equal(symlink(folder, "run/nbd7"), 0);
	assert_refused(-ENOTDIR, "run/nbd7: ");
	assert_int_equal(unlink("run/nbd7"), 0);

	assert_int_equal(symlink("none", "run/nbd7"), 0);
	assert_refused(-ENOTDIR, "run/nbd7: ");
	assert_int_equal(unlink("run/nbd7"), 0);
}

/* Whoever tried again and again would never end. */
static void test_no_folder(void **state)
{
	char path[5000];

	snprintf(path, sizeof(path), "%s/none/run", folder);
	use(path);
	assert_int_equal(attachment_init(&attachment, 7, &err), 0);
	alarm(60);
	assert_refused(-ENOENT, "none/run: No such file");
	alarm(0);
}

static void test_remove(void **state)
{
	char locator[] = "x";
	struct attachment_facts facts = { .locator = locator };
	int fd;

	assert_int_equal(lock(), 0);
	assert_int_equal(attachment_save(&attachment, &facts, &err), 0);
	fd = open("run/nbd7/socket", O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	attachment_clear(&attachment);
	assert_true(attachment_exists(&attachment));
	assert_int_equal(access("run/nbd7/socket", F_OK), -1);
	assert_int_equal(access("run/nbd7/state.json", F_OK), -1);

	/* Something that isn't ours stays, and is told; the lock goes. */
	assert_int_equal(mkdir("run/nbd7/other", 0700), 0);
	assert_int_equal(attachment_remove(&attachment, &err), -ENOTEMPTY);
	assert_non_null(strstr(err.text, "run/nbd7: Directory not empty"));
	assert_int_equal(attachment.lock, -1);
	assert_int_equal(rmdir("run/nbd7/other"), 0);
	assert_int_equal(lock(), 0);
}

/* ---- the facts ---- */

static void test_facts(void **state)
{
	char locator[] = "nbd://h/\"\\\n\xc3\xa4";
	const struct attachment_facts saved = {
		.locator = locator,
		.connections = 64,
		.timeout = 86400,
		.before = { 1, UINT64_C(1) << 40, 3, INT64_MAX },
	};
	struct attachment_facts facts;
	struct tm tm;
	const char *end;

	assert_int_equal(lock(), 0);
	assert_int_equal(attachment_save(&attachment, &saved, &err), 0);
	assert_int_equal(access("run/nbd7/state.json.new", F_OK), -1);
	assert_int_equal(attachment_load(&attachment, &facts, &err), 0);
	assert_string_equal(facts.locator, saved.locator);
	assert_int_equal(facts.connections, 64);
	assert_int_equal(facts.timeout, 86400);
	assert_memory_equal(&facts.before, &saved.before, sizeof(saved.before));
	end = strptime(facts.since, "%Y-%m-%dT%H:%M:%SZ", &tm);
	assert_true(end && !*end);
	attachment_facts_clear(&facts);
	assert_null(facts.locator);
}

static void test_no_facts(void **state)
{
	struct attachment_facts facts;
	FILE *file;

	assert_int_equal(attachment_load(&attachment, &facts, &err), -ENOENT);
	assert_null(facts.locator);
	assert_int_equal(lock(), 0);
	assert_int_equal(attachment_load(&attachment, &facts, &err), -ENOENT);
	file = fopen("run/nbd7/state.json", "w");
	assert_non_null(file);
	fputs("{ \"locator\":", file);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(attachment_load(&attachment, &facts, &err), -EINVAL);
	assert_null(facts.locator);
	attachment_facts_clear(&facts);
}

/* ---- all of them ---- */

static void test_list(void **state)
{
	static const char *const others[] = { "run/nbd", "run/nbd01", "run/sda", "run/nbd1024" };
	unsigned indices[4] = { 0, 0, 0, 99 };
	static const unsigned wanted[] = { 0, 7, 1023, 99 };
	struct attachment first, last;

	assert_int_equal(attachment_list(indices, 3, &err), 0); /* no folder */
	assert_int_equal(lock(), 0);
	assert_int_equal(attachment_init(&first, 0, &err), 0);
	assert_int_equal(attachment_lock(&first, &err), 0);
	assert_int_equal(attachment_init(&last, 1023, &err), 0);
	assert_int_equal(attachment_lock(&last, &err), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(mkdir(others[i], 0700), 0);
	assert_int_equal(attachment_list(indices, 3, &err), 3);
	assert_memory_equal(indices, wanted, sizeof(wanted));
	assert_int_equal(attachment_list(indices, 2, &err), 2);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(rmdir(others[i]), 0);
	assert_int_equal(attachment_remove(&first, &err), 0);
	assert_int_equal(attachment_remove(&last, &err), 0);
}

static void test_device_names(void **state)
{
	static const struct {
		const char *name;
		int index; /* < 0: not a device */
	} cases[] = {
		{ "nbd0", 0 },
		{ "nbd7", 7 },
		{ "/dev/nbd7", 7 },
		{ "nbd10", 10 },
		{ "nbd1023", 1023 },
		{ "nbd1024", -1 },
		{ "nbd99999999999999999999", -1 },
		{ "nbd", -1 },
		{ "", -1 },
		{ "/dev/", -1 },
		{ "/dev/nbd", -1 },
		{ "0", -1 },
		{ "nbd00", -1 },
		{ "nbd07", -1 },
		{ "nbd7 ", -1 },
		{ " nbd7", -1 },
		{ "nbd7p1", -1 },
		{ "nbd-1", -1 },
		{ "nbd+1", -1 },
		{ "NBD1", -1 },
		{ "sda", -1 },
		{ "/dev//nbd1", -1 },
		{ "/dev/dev/nbd1", -1 },
		{ "dev/nbd1", -1 },
		{ "./nbd1", -1 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned index = 555;

		assert_int_equal(kernel_device_parse(cases[i].name, &index), cases[i].index >= 0);
		assert_int_equal(index, cases[i].index >= 0 ? cases[i].index : 555);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device_names),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_relative_path),
		cmocka_unit_test(test_long_path),
		cmocka_unit_test_setup_teardown(test_lock_makes_folders, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_lock_excludes, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_lock_while_removed, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_folders_of_others, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_not_folders, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_no_folder, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_remove, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_facts, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_no_facts, use_run, remove_run),
		cmocka_unit_test_setup_teardown(test_list, use_run, remove_run),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
