/* Messages of errors: cut to fit, made of earlier ones, and beside errno. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

static void says_what_failed(void **state)
{
	struct error err;

	(void)state;
	errno = EINTR;
	assert_int_equal(error_set(&err, EINVAL, "%s: %d", "disk", 3), -EINVAL);
	assert_string_equal(err.text, "disk: 3");
	assert_int_equal(errno, EINTR);
	assert_int_equal(error_set(NULL, EIO, "nobody asks"), -EIO);
}

static void is_made_of_an_earlier_one(void **state)
{
	struct error err;

	(void)state;
	error_set(&err, EIO, "no answer");
	assert_int_equal(error_set(&err, EIO, "%s: %s", "server", err.text), -EIO);
	assert_string_equal(err.text, "server: no answer");
}

static void is_cut(void **state)
{
	char text[2 * sizeof(struct error)];
	struct error err;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	error_set(&err, EIO, "%s", text);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_what_failed),
		cmocka_unit_test(is_made_of_an_earlier_one),
		cmocka_unit_test(is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
