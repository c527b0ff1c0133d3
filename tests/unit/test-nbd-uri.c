/* NBD URIs: what each part means, and those that mean nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nbd/nbd-uri.h"

static struct nbd_uri uri;

static int set_up(void **state)
{
	(void)state;
	memset(&uri, 0, sizeof(uri));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	nbd_uri_clear(&uri);
	return 0;
}

static void parse(const char *text)
{
	struct error err = { 0 };

	nbd_uri_clear(&uri);
	if (nbd_uri_parse(text, &uri, &err) != 0)
		fail_msg("%s", err.text);
}

static void refused(const char *text, const char *reason)
{
	struct error err = { 0 };

	nbd_uri_clear(&uri);
	assert_int_equal(nbd_uri_parse(text, &uri, &err), -EINVAL);
	assert_memory_equal(err.text, text, strlen(text));
	if (!strstr(err.text + strlen(text), reason))
		fail_msg("%s", err.text);
}

static void tcp(void **state)
{
	(void)state;
	parse("nbd://host/export");
	assert_false(uri.tls);
	assert_int_equal(uri.transport, NBD_TCP);
	assert_string_equal(uri.host, "host");
	assert_int_equal(uri.port, 10809);
	assert_string_equal(uri.export_name, "export");
	assert_null(uri.user);
	parse("nbds://alice@host:10/");
	assert_true(uri.tls);
	assert_string_equal(uri.user, "alice");
	assert_int_equal(uri.port, 10);
	assert_string_equal(uri.export_name, "");
	parse("nbds://[fe80::1]:65535//x%20y");
	assert_string_equal(uri.host, "fe80::1");
	assert_int_equal(uri.port, 65535);
	assert_string_equal(uri.export_name, "/x y");
	parse("nbd://[fe80::1%25eth0]:10/");
	assert_string_equal(uri.host, "fe80::1%eth0");
	parse("nbds://");
	assert_string_equal(uri.host, "localhost");
	assert_string_equal(uri.export_name, "");
}

static void unix_sockets(void **state)
{
	(void)state;
	parse("nbd+unix:///?socket=/run/a%26b");
	assert_int_equal(uri.transport, NBD_UNIX);
	assert_string_equal(uri.socket, "/run/a&b");
	parse("nbds+unix://alice@/export?socket=s");
	assert_true(uri.tls);
	assert_string_equal(uri.user, "alice");
	assert_string_equal(uri.export_name, "export");
	assert_null(uri.host);
}

static void vsock(void **state)
{
	(void)state;
	parse("nbds+vsock:///");
	assert_int_equal(uri.transport, NBD_VSOCK);
	assert_int_equal(uri.cid, 2);
	parse("nbds+vsock://7:9/x");
	assert_int_equal(uri.cid, 7);
	assert_int_equal(uri.port, 9);
}

static void tls_parameters(void **state)
{
	(void)state;
	parse("nbds://a@h/?tls-psk-file=/etc/keys.psk");
	assert_string_equal(uri.tls_psk_file, "/etc/keys.psk");
	parse("nbds://h/?tls-certificates=/pki&TLS-Hostname=other;tls-version=1.2");
	assert_string_equal(uri.tls_certificates, "/pki");
	assert_string_equal(uri.tls_hostname, "other");
	assert_string_equal(uri.tls_version, "1.2");
	assert_true(nbd_uri_verifies(&uri));
	parse("nbds://h/?tls-verify-peer=false");
	assert_false(nbd_uri_verifies(&uri));
	parse("nbds://h/?&tls-verify-peer=1&");
	assert_true(nbd_uri_verifies(&uri));
}

static void no_such_uri(void **state)
{
	(void)state;
	refused("nbd:host", "must start with nbd://");
	refused("nbdx://h/", "not an NBD URI");
	refused("nbd+ssh://h/", "not an NBD URI");
	refused("nbds://h h/", "not a URI");
	refused("nbds://h:65536/", "no port 65536");
	refused("nbds+vsock://host/", "no number");
	refused("nbds+vsock://4294967296000000000000/", "no number");
	refused("nbds://h/#x", "%23");
	refused("nbds://h/x%00y", "%00");
}

static void no_such_parameter(void **state)
{
	(void)state;
	refused("nbds://h/?tls-psk-fil=x", "no parameter \"tls-psk-fil\"");
	refused("nbd://h/?x", "no parameter \"x\"");
	refused("nbd://h/?=x", "no parameter \"\"");
	refused("nbds://h/?tls-psk-file", "tls-psk-file= makes no sense");
	refused("nbds://h/?tls-verify-peer=perhaps", "perhaps makes no sense");
	refused("nbds://h/?tls-version=1.1", "1.1 makes no sense");
	refused("nbds://h/?tls-version=1.2&tls-version=1.2", "twice");
	refused("nbd://h/?tls-psk-file=x", "must start with nbds");
	refused("nbd+unix:///", "needs socket=");
	refused("nbd://h/?socket=x", "without +unix");
	refused("nbds://h/?tls-psk-file=x&tls-certificates=y", "take tls-certificates away");
	refused("nbds://h/?tls-psk-file=x&tls-verify-peer=no", "take tls-verify-peer away");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tcp, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unix_sockets, set_up, tear_down),
		cmocka_unit_test_setup_teardown(vsock, set_up, tear_down),
		cmocka_unit_test_setup_teardown(tls_parameters, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_such_uri, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_such_parameter, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
