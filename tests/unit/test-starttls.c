/* NBD's handshake up to TLS, byte by byte and all at once, and what a stranger may send instead. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nbd/starttls.h"

#define GREETING "NBDMAGICIHAVEOPT\0\3"
#define REPLY    "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\5"
#define ACK      REPLY "\0\0\0\1\0\0\0\0"

/* A string literal, with the zero bytes that it has. */
#define FEED(s, literal) feed(s, literal, sizeof(literal) - 1)

static struct error err;

static int feed(struct starttls *s, const char *bytes, size_t len)
{
	err.text[0] = '\0';
	return starttls_feed(s, (const uint8_t *)bytes, len, &err);
}

/* What a server is told that greets with these flags, and how it ends with this reply. */
#define REFUSED(errnum, reason, reply)                                                             \
	do {                                                                                       \
		struct starttls s_ = { 0 };                                                        \
		assert_int_equal(FEED(&s_, GREETING), STARTTLS_SEND);                              \
		assert_int_equal(FEED(&s_, reply), -(errnum));                                     \
		assert_non_null(strstr(err.text, reason));                                         \
	} while (0)

#define NOT_GREETED(errnum, reason, greeting)                                                      \
	do {                                                                                       \
		struct starttls s_ = { 0 };                                                        \
		assert_int_equal(FEED(&s_, greeting), -(errnum));                                  \
		assert_non_null(strstr(err.text, reason));                                         \
	} while (0)

static void a_server_with_tls(void **state)
{
	static const char wanted[] = "\0\0\0\3IHAVEOPT\0\0\0\5\0\0\0";
	struct starttls s = { 0 };

	(void)state;
	assert_int_equal(FEED(&s, GREETING), STARTTLS_SEND);
	assert_memory_equal(s.send, wanted, sizeof(wanted));
	assert_int_equal(FEED(&s, ACK), STARTTLS_BEGIN);
	assert_int_equal(s.flags, 3);
}

static void in_single_bytes(void **state)
{
	static const char greeting[] = GREETING, ack[] = ACK;
	struct starttls s = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(greeting) - 2; i++)
		assert_int_equal(feed(&s, greeting + i, 1), 0);
	assert_int_equal(feed(&s, greeting + sizeof(greeting) - 2, 1), STARTTLS_SEND);
	for (size_t i = 0; i < sizeof(ack) - 2; i++)
		assert_int_equal(feed(&s, ack + i, 1), 0);
	assert_int_equal(feed(&s, ack + sizeof(ack) - 2, 1), STARTTLS_BEGIN);
}

/* Only what this side knows is agreed to. */
static void unknown_flags(void **state)
{
	struct starttls s = { 0 };

	(void)state;
	assert_int_equal(FEED(&s, "NBDMAGICIHAVEOPT\xff\xfd"), STARTTLS_SEND);
	assert_int_equal(s.flags, 1);
	assert_memory_equal(s.send, "\0\0\0\1", 4);
}

static void servers_without_tls(void **state)
{
	(void)state;
	NOT_GREETED(ENOTSUP, "old style", "NBDMAGIC\0\0\x42\2\x81\x86\x12\x53");
	NOT_GREETED(ENOTSUP, "not the fixed one", "NBDMAGICIHAVEOPT\0\2");
	REFUSED(ENOTSUP, "it has none", REPLY "\x80\0\0\1\0\0\0\0");
	REFUSED(ENOTSUP, "policy", REPLY "\x80\0\0\2\0\0\0\0");
	REFUSED(ENOTSUP, "no word for", REPLY "\x80\1\0\1\0\0\0\0");
	REFUSED(ENOTSUP, "(it says: go ?away)",
		REPLY "\x80\0\0\1\0\0\0\x8go \x1b"
		      "away");
}

static void long_reasons(void **state)
{
	struct starttls s = { 0 };
	char text[4096];

	(void)state;
	memset(text, 'x', sizeof(text));
	FEED(&s, GREETING);
	assert_int_equal(FEED(&s, REPLY "\x80\0\0\1\0\0\x10\0"), 0);
	assert_int_equal(feed(&s, text, sizeof(text) - 1), 0);
	assert_int_equal(feed(&s, text, 1), -ENOTSUP);
	assert_non_null(strstr(err.text, "xxx)"));
	REFUSED(EPROTO, "no NBD server", REPLY "\x80\0\0\1\0\0\x10\1");
}

static void garbage(void **state)
{
	(void)state;
	NOT_GREETED(EPROTO, "no NBD server", "S");
	NOT_GREETED(EPROTO, "no NBD server", "SSH-2.0-OpenSSH_9.2p1 Debian\r\n");
	NOT_GREETED(EPROTO, "no NBD server", "NBDMAGICx");
	REFUSED(EPROTO, "no NBD server", "\0\3\xe8\x88");
	REFUSED(EPROTO, "no NBD server", "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\6\0\0\0\1\0\0\0\0");
	REFUSED(EPROTO, "no NBD server", REPLY "\0\0\0\2\0\0\0\0");
	REFUSED(EPROTO, "no NBD server", REPLY "\0\0\0\1\0\0\0\1");
}

/* Else it could later be taken for what came encrypted. */
static void more_than_was_asked(void **state)
{
	(void)state;
	NOT_GREETED(EPROTO, "under attack", GREETING ACK);
	REFUSED(EPROTO, "under attack", ACK "x");
	REFUSED(EPROTO, "under attack", ACK ACK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_with_tls),   cmocka_unit_test(in_single_bytes),
		cmocka_unit_test(unknown_flags),       cmocka_unit_test(servers_without_tls),
		cmocka_unit_test(long_reasons),        cmocka_unit_test(garbage),
		cmocka_unit_test(more_than_was_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
