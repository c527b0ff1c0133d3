/* Locators: what is a path, what is an NBD URI, and what is refused with a hint. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "locator/locator.h"

static void is(const char *locator, enum locator_kind kind)
{
	struct error err = { 0 };

	if (locator_kind(locator, &err) != (int)kind)
		fail_msg("%s: %s", locator, err.text);
	assert_int_equal(locator_is_uri(locator), kind == LOCATOR_URI);
}

static void refused(const char *locator, const char *hint)
{
	struct error err = { 0 };

	assert_int_equal(locator_kind(locator, &err), -EINVAL);
	if (strncmp(err.text, locator, strlen(locator)) != 0 || !strstr(err.text, hint))
		fail_msg("%s: no \"%s\" in: %s", locator, hint, err.text);
	assert_false(locator_is_uri(locator));
}

static void test_uris(void **state)
{
	is("nbd://host", LOCATOR_URI);
	is("nbds://host/x", LOCATOR_URI);
	is("nbd+unix:///?socket=/s", LOCATOR_URI);
	is("nbds+vsock://2", LOCATOR_URI);
	is("nbd+x://", LOCATOR_URI); /* what is wrong with it nbd_uri_parse() says */
}

static void test_paths(void **state)
{
	is("disk.luks", LOCATOR_PATH);
	is("/dev/sda", LOCATOR_PATH);
	is("nbd", LOCATOR_PATH);
	is("./nbd:x", LOCATOR_PATH);
	is("./nbd://host", LOCATOR_PATH);
	is("a/nbd:x", LOCATOR_PATH);
	is("12:30.img", LOCATOR_PATH);
	is("a b:c", LOCATOR_PATH);
	is("c:x", LOCATOR_PATH);
	is(":x", LOCATOR_PATH);
}

static void test_other_words_for_uris(void **state)
{
	refused("", "an empty name");
	refused("nbd:localhost:10809", "write nbd://localhost:10809/");
	refused("nbd:localhost:10809:exportname=a", "write nbd://localhost:10809/a");
	refused("NBD:[::1]:1", "write nbd://[::1]:1/");
	refused("nbd:unix:/run/s", "write nbd+unix:///?socket=/run/s");
	refused("nbd:unix:/run/s:exportname=a", "write nbd+unix:///a?socket=/run/s");
	refused("nbd:host", "write nbd://");
	refused("nbd:", "write nbd://");
	refused("nbd:/run/s", "write nbd://");
	refused("nbds:host:1", "write nbd://");
	refused("nbd+unix:/s", "write nbd://");
	refused("NBD://host/x", "write nbd://host/x");
	refused("Nbds+Unix:///?socket=/S", "write nbds+unix:///?socket=/S");
}

static void test_other_schemes(void **state)
{
	refused("http://host/disk", "neither a file nor an NBD URI");
	refused("HTTPS://host/disk", "./HTTPS://host/disk");
	refused("ssh:host", "neither a file nor an NBD URI");
	refused("json:{}", "neither a file nor an NBD URI");
	refused("null:", "neither a file nor an NBD URI");
	refused("file:///tmp/x", "write /tmp/x");
	refused("file:x", "write x");
}

/* A colon alone makes no URI, if there is such a file. */
static void test_files_with_colons(void **state)
{
	char folder[] = "/tmp/ndio-locator.XXXXXX";
	static const char *const names[] = { "backup:monday", "nbd:x", "nbdisk:x" };

	assert_non_null(mkdtemp(folder));
	assert_int_equal(chdir(folder), 0);
	refused("backup:monday", "./backup:monday");
	refused("nbdisk:x", "./nbdisk:x");
	for (size_t i = 0; i < 3; i++)
		fclose(fopen(names[i], "w"));
	is("backup:monday", LOCATOR_PATH);
	is("nbdisk:x", LOCATOR_PATH);
	refused("nbd:x", "write nbd://");
	for (size_t i = 0; i < 3; i++)
		unlink(names[i]);
	assert_int_equal(chdir("/"), 0);
	rmdir(folder);
}

static void test_what_is_no_uri(void **state)
{
	struct error err = { 0 };

	assert_int_equal(locator_check_path("header", "a header", &err), 0);
	assert_int_equal(locator_check_path("nbd://host", "a header", &err), -EINVAL);
	assert_string_equal(err.text, "nbd://host: a header is named by a path, not by a URI");
	assert_int_equal(locator_check_path("nbd:host:1", "a header", &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uris),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_other_words_for_uris),
		cmocka_unit_test(test_other_schemes),
		cmocka_unit_test(test_files_with_colons),
		cmocka_unit_test(test_what_is_no_uri),
	};

	return cmocka_run_group_tests_name("locator", tests, NULL, NULL);
}
