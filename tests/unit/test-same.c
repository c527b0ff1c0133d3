/* Names that stand for the same bytes: files by themselves, block devices by a sysfs made up for it. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "locator/same-export.h"
#include "locator/same.h"

/* A disk with two partitions, a loop device on a file of 1 MiB at 4 KiB and one on that loop device,
 * two logical volumes on the second partition, a crypt device on one of them, an array of both disks'
 * partitions, and a network device that is attached. */
#define DISK    makedev(8, 0)
#define PART1   makedev(8, 1)
#define PART2   makedev(8, 2)
#define DISK2   makedev(8, 16)
#define LOOP    makedev(7, 0)
#define LOOP2   makedev(7, 1)
#define LOOP3   makedev(7, 2)
#define LV1     makedev(253, 0)
#define LV2     makedev(253, 1)
#define CRYPT   makedev(253, 2)
#define ARRAY   makedev(9, 0)
#define NBD     makedev(43, 0)
#define NBDPART makedev(43, 1)
#define CIRCLE  makedev(253, 9)

static char folder[] = "/tmp/ndio-same.XXXXXX";
static char sys[64];
static char attached_locator[128];
static struct same_view view;

__attribute__((format(printf, 2, 3))) static void write_file(const char *text, const char *fmt, ...)
{
	char path[256];
	va_list args;
	FILE *f;

	va_start(args, fmt);
	vsnprintf(path, sizeof(path), fmt, args);
	va_end(args);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* path is below devices/. */
static void make_device(const char *path, dev_t dev)
{
	char dir[256], link[256], target[256], number[32];
	char command[600];

	snprintf(dir, sizeof(dir), "%s/devices/%s", sys, path);
	snprintf(command, sizeof(command), "mkdir -p %s/slaves %s/dev/block", dir, sys);
	assert_int_equal(system(command), 0);
	snprintf(number, sizeof(number), "%u:%u\n", major(dev), minor(dev));
	write_file(number, "%s/dev", dir);
	write_file("1000\n", "%s/size", dir);
	snprintf(link, sizeof(link), "%s/dev/block/%u:%u", sys, major(dev), minor(dev));
	snprintf(target, sizeof(target), "../../devices/%s", path);
	assert_int_equal(symlink(target, link), 0);
}

static void make_partition(const char *path, dev_t dev, const char *start, const char *size)
{
	make_device(path, dev);
	write_file("1\n", "%s/devices/%s/partition", sys, path);
	write_file(start, "%s/devices/%s/start", sys, path);
	write_file(size, "%s/devices/%s/size", sys, path);
}

static void make_loop(const char *path, dev_t dev, const char *file, const char *offset,
		      const char *limit)
{
	char dir[256], text[256];

	make_device(path, dev);
	snprintf(dir, sizeof(dir), "%s/devices/%s/loop", sys, path);
	assert_int_equal(mkdir(dir, 0700), 0);
	snprintf(text, sizeof(text), "%s/%s\n", folder, file);
	write_file(text, "%s/backing_file", dir);
	write_file(offset, "%s/offset", dir);
	write_file(limit, "%s/sizelimit", dir);
}

static void make_slave(const char *path, const char *name, const char *slave)
{
	char link[256], target[256];

	snprintf(link, sizeof(link), "%s/devices/%s/slaves/%s", sys, path, name);
	snprintf(target, sizeof(target), "%s/devices/%s", sys, slave);
	assert_int_equal(symlink(target, link), 0);
}

static bool attached(unsigned index, char *locator, size_t size)
{
	snprintf(locator, size, "%s", attached_locator);
	return index == 0;
}

static int set_up(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(sys, sizeof(sys), "%s/sys", folder);
	view = (struct same_view){ .sys = sys, .attached = attached };
	write_file("x", "%s/file", folder);
	write_file("x", "%s/other", folder);
	make_device("sda", DISK);
	make_partition("sda/sda1", PART1, "8\n", "100\n");
	make_partition("sda/sda2", PART2, "108\n", "800\n");
	make_device("sdb", DISK2);
	make_loop("loop0", LOOP, "file", "4096\n", "1048576\n");
	make_loop("loop1", LOOP2, "file", "1052672\n", "0\n");
	make_loop("loop2", LOOP3, "gone (deleted)", "0\n", "0\n");
	make_device("dm-0", LV1);
	make_slave("dm-0", "sda2", "sda/sda2");
	make_device("dm-1", LV2);
	make_slave("dm-1", "sda2", "sda/sda2");
	make_device("dm-2", CRYPT);
	make_slave("dm-2", "dm-0", "dm-0");
	make_device("md0", ARRAY);
	make_slave("md0", "sda1", "sda/sda1");
	make_slave("md0", "sdb", "sdb");
	make_device("nbd0", NBD);
	make_partition("nbd0/nbd0p1", NBDPART, "8\n", "100\n");
	make_device("dm-9", CIRCLE);
	make_slave("dm-9", "dm-9", "dm-9");
	return chdir(folder);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static int tear_down(void **state)
{
	return chdir("/") < 0 ? -1 : nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static bool same(const char *written, const char *read)
{
	return same_bytes(&view, &(struct same_part){ .locator = written },
			  &(struct same_part){ .locator = read });
}

static bool same_both(dev_t a, dev_t b)
{
	bool forth = same_devices(&view, a, b), back = same_devices(&view, b, a);

	assert_int_equal(forth, back);
	return forth;
}

static void files(void **state)
{
	assert_int_equal(symlink("file", "link"), 0);
	assert_int_equal(link("file", "hard"), 0);
	assert_true(same("file", "file"));
	assert_true(same("file", "link"));
	assert_true(same("hard", "file"));
	assert_true(same("./file", "../../../../../tmp/../proc/self/cwd/file"));
	assert_false(same("file", "other"));
	assert_false(same("file", "/dev/null"));
	assert_false(same("/dev/null", "/dev/null"));
	assert_false(same(".", "."));
	assert_false(same(NULL, "file"));
	assert_false(same("file", NULL));
}

static void parts_of_a_file(void **state)
{
	struct same_part part = { .locator = "file", .offset = 512, .size = 512 };
	struct same_part other = { .locator = "file" };

	assert_true(same_bytes(&view, &other, &part));
	other.offset = 1024;
	assert_false(same_bytes(&view, &other, &part));
	assert_false(same_bytes(&view, &part, &other));
	other.offset = 1023;
	assert_true(same_bytes(&view, &other, &part));
	part.offset = UINT64_MAX;
	assert_false(same_bytes(&view, &other, &part));
}

static void files_that_are_not_there(void **state)
{
	char path[128];

	assert_true(same("new", "./new"));
	snprintf(path, sizeof(path), "%s/new", folder);
	assert_true(same(path, "new"));
	assert_false(same("new", "newer"));
	assert_false(same("new", "file"));
	assert_false(same("none/new", "none/new"));
}

static void partitions(void **state)
{
	assert_true(same_both(DISK, DISK));
	assert_true(same_both(DISK, PART1));
	assert_true(same_both(DISK, PART2));
	assert_false(same_both(PART1, PART2));
	assert_false(same_both(DISK2, PART1));
}

static void loop_devices(void **state)
{
	assert_true(same_both(LOOP, LOOP));
	assert_false(same_both(LOOP, LOOP2)); /* they meet */
	assert_false(same_both(LOOP, LOOP3));
	assert_false(same_both(LOOP3, LOOP2));
}

static void device_mapper_and_arrays(void **state)
{
	assert_true(same_both(LV1, LV1));
	assert_false(same_both(LV1, LV2));
	assert_true(same_both(LV1, PART2));
	assert_true(same_both(LV2, DISK));
	assert_false(same_both(LV1, PART1));
	assert_true(same_both(CRYPT, LV1));
	assert_false(same_both(CRYPT, LV2));
	assert_true(same_both(CRYPT, DISK));
	assert_true(same_both(ARRAY, PART1));
	assert_true(same_both(ARRAY, DISK2));
	assert_false(same_both(ARRAY, PART2));
	assert_false(same_both(ARRAY, LV1));
	assert_true(same_both(CIRCLE, CIRCLE));
	assert_false(same_both(CIRCLE, LV1));
}

/* What a network device is attached to, which may be another device. */
static void attached_devices(void **state)
{
	snprintf(attached_locator, sizeof(attached_locator), "%s", "nbd://localhost/disk");
	assert_true(same_both(NBD, NBDPART));
	assert_false(same_both(NBD, LOOP));
	snprintf(attached_locator, sizeof(attached_locator), "%s/file", folder);
	assert_true(same_both(NBD, LOOP));
	assert_true(same_both(NBDPART, LOOP));
	assert_false(same_both(NBD, LOOP3));
	view.attached = NULL;
	assert_true(same_both(NBD, NBDPART));
	assert_false(same_both(NBD, LOOP));
	view.attached = attached;
}

static void exports(void **state)
{
	assert_true(same("nbd://localhost/disk", "nbd://localhost:10809/disk"));
	assert_true(same("nbd://localhost/disk", "nbds://LOCALHOST/disk"));
	assert_true(same("nbd://127.0.0.1/disk", "nbd://localhost/disk"));
	assert_true(same("nbd://[::ffff:127.0.0.1]/a", "nbd://127.0.0.1/a"));
	assert_true(same("nbd://127.0.0.1/%64isk", "nbd://127.0.1.1/disk")); /* all this machine */
	assert_false(same("nbd://localhost/disk", "nbd://localhost/other"));
	assert_false(same("nbd://localhost/disk", "nbd://localhost:10810/disk"));
	assert_false(same("nbd://192.0.2.1/disk", "nbd://192.0.2.2/disk"));
	assert_false(same("nbd://192.0.2.1/disk", "nbd://127.0.0.1/disk"));
	assert_false(same("nbd://localhost/disk", "nbd+vsock:///disk"));
	assert_true(same("nbd+vsock:///disk", "nbd+vsock://2:10809/disk"));
	assert_false(same("nbd+vsock://3/disk", "nbd+vsock://2/disk"));
	assert_true(same("nbd+unix:///?socket=none", "nbd+unix:///?socket=none&"));
	assert_true(same("nbd+unix:///?socket=file", "nbd+unix:///?socket=./file"));
	assert_false(same("nbd+unix:///?socket=file", "nbd+unix:///?socket=other"));
	assert_false(same("nbd+unix:///a?socket=file", "file"));
	assert_true(same_export("nbd:nonsense", "nbd:nonsense"));
	assert_false(same_export("nbd:nonsense", "nbd:other"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files),
		cmocka_unit_test(parts_of_a_file),
		cmocka_unit_test(files_that_are_not_there),
		cmocka_unit_test(partitions),
		cmocka_unit_test(loop_devices),
		cmocka_unit_test(device_mapper_and_arrays),
		cmocka_unit_test(attached_devices),
		cmocka_unit_test(exports),
	};

	return cmocka_run_group_tests_name("same", tests, set_up, tear_down);
}
