/* Image locks within one process, over forks, and where a file system has none. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "file/image-lock.h"

static char path[] = "/tmp/ndio-image-lock.XXXXXX";
static int no_locks;     /* what the file system says to them, or 0 */
static int ends_at = -1; /* the descriptor of another program, which ends at the next pause */
static unsigned pauses, notices;
static char last_notice[512];

/* In place of the C library's. */
int fcntl(int fd, int cmd, ...)
{
	va_list args;
	void *arg;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	if (no_locks && (cmd == F_OFD_SETLK || cmd == F_OFD_GETLK)) {
		errno = no_locks;
		return -1;
	}
	return syscall(SYS_fcntl, fd, cmd, arg);
}

int nanosleep(const struct timespec *pause, struct timespec *left)
{
	pauses++;
	if (ends_at >= 0)
		close(ends_at);
	ends_at = -1;
	return 0;
}

static void keep_notice(void *opaque, const char *message)
{
	notices++;
	snprintf(last_notice, sizeof(last_notice), "%s", message);
}

static const struct notice notice = { .tell = keep_notice };

static int make_file(void **state)
{
	int fd = mkstemp(path);

	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	return unlink(path);
}

static int open_image(void)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	notices = 0;
	return fd;
}

static struct image_lock *take(int fd)
{
	struct image_lock *lock = NULL;
	struct error err;

	assert_int_equal(image_lock_take(fd, path, false, &notice, &lock, &err), 0);
	assert_non_null(lock);
	return lock;
}

/* What another program meets. Which of the bytes from 100 on are locked, and from 200 on. */
static unsigned bytes_locked(off_t base)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned found = 0;

	for (int i = 0; i < 8; i++) {
		struct flock range = {
			.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + i, .l_len = 1
		};

		assert_int_equal(fcntl(fd, F_OFD_GETLK, &range), 0);
		if (range.l_type != F_UNLCK)
			found |= 1 << i;
	}
	close(fd);
	return found;
}

/* Locks one byte as another program does, in this process but not by our table. */
static int other_program(off_t byte)
{
	struct flock range = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1
	};
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_int_equal(fcntl(fd, F_OFD_SETLK, &range), 0);
	return fd;
}

static void assert_busy(bool resize, const char *text)
{
	struct image_lock *lock;
	struct error err;
	int fd = open_image();

	assert_int_equal(image_lock_take(fd, path, resize, &notice, &lock, &err), -EBUSY);
	assert_ptr_equal(strstr(err.text, path), err.text);
	assert_non_null(strstr(err.text, text));
	close(fd);
}

static void a_writer_locks_qemus_bytes(void **state)
{
	struct image_lock *lock;
	struct error err;
	int fd = open_image();

	lock = take(fd);
	assert_int_equal(bytes_locked(100), 1 | 2);
	assert_int_equal(bytes_locked(200), 2 | 8);
	close(fd);
	assert_int_equal(bytes_locked(100), 1 | 2); /* the lock has the description */
	image_lock_release(lock);
	assert_int_equal(bytes_locked(100) | bytes_locked(200), 0);

	fd = open_image();
	assert_int_equal(image_lock_take(fd, path, true, &notice, &lock, &err), 0);
	assert_int_equal(bytes_locked(100), 1 | 2 | 8);
	image_lock_release(lock);
	close(fd);
	assert_int_equal(notices, 0);
}

static void one_process_may_open_it_twice(void **state)
{
	int fd = open_image(), again = open_image();
	struct image_lock *lock = take(fd), *second = take(again);

	image_lock_look(again, path, &notice);
	assert_int_equal(notices, 0);
	image_lock_release(lock);
	close(fd);
	assert_int_equal(bytes_locked(100), 1 | 2);
	image_lock_release(second);
	close(again);
	assert_int_equal(bytes_locked(100) | bytes_locked(200), 0);
	image_lock_release(NULL);
}

static void others_are_heeded(void **state)
{
	int fd, other = other_program(101);

	assert_busy(false, "has it open for writing");
	fd = open_image();
	image_lock_look(fd, path, &notice);
	assert_int_equal(notices, 1);
	assert_non_null(strstr(last_notice, "may change"));
	close(fd);
	close(other);

	other = other_program(201);
	assert_busy(false, "lets nobody else write");
	fd = open_image();
	image_lock_look(fd, path, &notice);
	assert_int_equal(notices, 0);
	close(fd);
	close(other);

	other = other_program(203);
	assert_busy(true, "lets nobody else");
	fd = open_image();
	image_lock_release(take(fd));
	close(fd);
	close(other);

	other = other_program(100); /* somebody reads */
	fd = open_image();
	image_lock_release(take(fd));
	close(fd);
	close(other);
}

static void a_child_keeps_it(void **state)
{
	int fd = open_image(), pipes[2];
	struct image_lock *lock = take(fd);
	pid_t child;
	char end;

	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		close(pipes[1]);
		_exit(read(pipes[0], &end, 1) != 0);
	}
	close(pipes[0]);
	image_lock_release(lock);
	close(fd);
	assert_int_equal(bytes_locked(100), 1 | 2);
	close(pipes[1]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(bytes_locked(100), 0);
}

static void a_file_system_without_locks_is_told_once(void **state)
{
	static const int errors[] = { ENOLCK, EOPNOTSUPP, ENOSYS };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		int fd = open_image(), again = open_image();
		struct image_lock *lock, *second;

		no_locks = errors[i];
		lock = take(fd);
		assert_int_equal(notices, 1);
		assert_non_null(strstr(last_notice, strerror(errors[i])));
		second = take(again);
		image_lock_look(fd, path, &notice);
		assert_int_equal(notices, 1);
		no_locks = 0;
		image_lock_release(lock);
		image_lock_release(second);
		close(fd);
		close(again);
	}
}

/* It can't be locked, but who has locked it can be seen. */
static void a_file_only_for_writing(void **state)
{
	int other = other_program(101), fd = open(path, O_WRONLY | O_CLOEXEC);
	struct image_lock *lock;
	struct error err;

	notices = 0;
	assert_int_equal(image_lock_take(fd, path, false, &notice, &lock, &err), -EBUSY);
	close(other);
	image_lock_release(take(fd));
	assert_int_equal(notices, 0);
	close(fd);
}

/* As one that was killed: the kernel ends its I/O first. */
static void one_that_ends_is_waited_for(void **state)
{
	int fd = open_image();
	struct image_lock *lock;

	pauses = 0;
	ends_at = other_program(201);
	lock = take(fd);
	assert_int_equal(pauses, 1);
	image_lock_release(lock);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_writer_locks_qemus_bytes),
		cmocka_unit_test(one_process_may_open_it_twice),
		cmocka_unit_test(others_are_heeded),
		cmocka_unit_test(a_child_keeps_it),
		cmocka_unit_test(a_file_system_without_locks_is_told_once),
		cmocka_unit_test(a_file_only_for_writing),
		cmocka_unit_test(one_that_ends_is_waited_for),
	};

	return cmocka_run_group_tests_name("image-lock", tests, make_file, remove_file);
}
