/* The server's side of NBD's transmission: which requests are run, which are refused and how, and
 * which end the connection; and what replies look like, in each of the three forms. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "serve/transmission.h"

#define COOKIE  0x0123456789abcdef
#define COOKIES "\x01\x23\x45\x67\x89\xab\xcd\xef"
#define MIB     (UINT32_C(1) << 20)
#define GIB     (UINT64_C(1) << 30)
#define SIZE    (16 * GIB)
#define MAX     (32 * MIB)

#define ALL_FLAGS                                                                                  \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |       \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_DF | NBD_FLAG_SEND_CACHE |                     \
	 NBD_FLAG_SEND_FAST_ZERO)

static struct export_facts facts;
static struct transmission simple, structured, extended;

static int reset(void **state)
{
	(void)state;
	facts = (struct export_facts){
		.name = "",
		.size = SIZE,
		.flags = ALL_FLAGS,
		.min_block = 1,
		.preferred_block = 4096,
		.max_block = MAX,
		.extents = true,
	};
	simple = (struct transmission){ .facts = &facts };
	structured = (struct transmission){
		.structured = true, .base_allocation = true, .context = 7, .facts = &facts
	};
	extended = structured;
	extended.extended = true;
	return 0;
}

/* ---- requests ---- */

static struct command command;

static void write_request(const struct transmission *t, uint16_t type, uint16_t flags,
			  uint64_t offset, uint64_t len, uint8_t *request)
{
	uint8_t *at = request;

	at = put_be32(at, t->extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
	at = put_be16(at, flags);
	at = put_be16(at, type);
	at = put_be64(at, COOKIE);
	at = put_be64(at, offset);
	at = t->extended ? put_be64(at, len) : put_be32(at, len);
	assert_int_equal(at - request, transmission_request_size(t));
}

static int parse(const struct transmission *t, uint16_t type, uint16_t flags, uint64_t offset,
		 uint64_t len)
{
	uint8_t request[REQUEST_MAX];

	if (t->extended && type == NBD_CMD_WRITE)
		flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
	write_request(t, type, flags, offset, len, request);
	memset(&command, 0xa5, sizeof(command));
	return transmission_parse(t, request, &command);
}

/* How it is refused: an NBD errno, or 0 if it is run. */
static uint32_t refused(const struct transmission *t, uint16_t type, uint16_t flags,
			uint64_t offset, uint64_t len)
{
	assert_int_equal(parse(t, type, flags, offset, len), 0);
	assert_int_equal(command.type, type);
	assert_true(command.cookie == COOKIE);
	assert_true(command.offset == offset);
	assert_true(command.len == len);
	assert_true(command.payload == (type == NBD_CMD_WRITE ? len : 0));
	assert_true((command.refuse != 0) == (command.why != NULL));
	return command.refuse;
}

#define EACH(t)                                                                                    \
	for (const struct transmission *t = &simple; t; t = t == &simple     ? &structured :       \
							    t == &structured ? &extended :         \
									       NULL)

static void what_is_run(void **state)
{
	(void)state;
	EACH(t)
	{
		assert_int_equal(refused(t, NBD_CMD_READ, 0, 0, 1), 0);
		assert_int_equal(refused(t, NBD_CMD_READ, 0, SIZE - MAX, MAX), 0);
		assert_int_equal(refused(t, NBD_CMD_WRITE, 0, 0, 1), 0);
		assert_int_equal(refused(t, NBD_CMD_WRITE, 0, SIZE - MAX, MAX), 0);
		assert_int_equal(refused(t, NBD_CMD_FLUSH, 0, 0, 0), 0);
		assert_int_equal(refused(t, NBD_CMD_TRIM, 0, 0, 4 * GIB - 1), 0);
		assert_int_equal(refused(t, NBD_CMD_WRITE_ZEROES, 0, 0, 4 * GIB - 1), 0);
		assert_int_equal(refused(t, NBD_CMD_CACHE, 0, 0, 4 * GIB - 1), 0);
	}
	assert_int_equal(refused(&structured, NBD_CMD_BLOCK_STATUS, 0, 0, 4 * GIB - 1), 0);
	assert_int_equal(refused(&extended, NBD_CMD_BLOCK_STATUS, 0, 0, SIZE), 0);
	assert_int_equal(refused(&extended, NBD_CMD_TRIM, 0, 0, SIZE), 0);
}

static void disconnecting(void **state)
{
	(void)state;
	EACH(t)
	{
		assert_int_equal(refused(t, NBD_CMD_DISC, 0, 0, 0), 0);
		assert_int_equal(refused(t, NBD_CMD_DISC, 0x4040, UINT64_MAX, 99), 0);
	}
}

/* Which flags each command takes, of all that there may be, and which of them reach the caller. */
static void flags_of_commands(void **state)
{
	static const struct {
		uint16_t type, taken, told;
	} commands[] = {
		{ NBD_CMD_READ, NBD_CMD_FLAG_DF | NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_DF },
		{ NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_FUA },
		{ NBD_CMD_FLUSH, NBD_CMD_FLAG_FUA, 0 },
		{ NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_FUA },
		{ NBD_CMD_CACHE, NBD_CMD_FLAG_FUA, 0 },
		{ NBD_CMD_WRITE_ZEROES,
		  NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
		  NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO },
		{ NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_FUA,
		  NBD_CMD_FLAG_REQ_ONE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		for (uint32_t flag = 1; flag < 0x10000; flag <<= 1) {
			uint16_t type = commands[i].type;
			uint64_t len = type == NBD_CMD_FLUSH ? 0 : 512;

			if (flag == NBD_CMD_FLAG_PAYLOAD_LEN)
				continue;
			assert_int_equal(refused(&structured, type, flag, 0, len),
					 commands[i].taken & flag ? 0 : NBD_EINVAL);
			assert_int_equal(command.flags, commands[i].told & flag);
			assert_int_equal(refused(&extended, type, flag, 0, len),
					 commands[i].taken & flag ? 0 : NBD_EINVAL);
		}
}

static void flags_not_offered(void **state)
{
	(void)state;
	assert_int_equal(refused(&simple, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 1), NBD_EINVAL);
	facts.flags &= ~(NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_DF | NBD_FLAG_SEND_FAST_ZERO);
	assert_int_equal(refused(&structured, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 1), NBD_EINVAL);
	assert_int_equal(refused(&structured, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 1), NBD_EINVAL);
	assert_int_equal(refused(&structured, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 1), NBD_EINVAL);
	assert_int_equal(refused(&structured, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 1),
			 NBD_EINVAL);
	assert_int_equal(refused(&structured, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 0, 1), 0);
}

static void commands_not_offered(void **state)
{
	static const uint16_t commands[] = { NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES };

	(void)state;
	assert_int_equal(refused(&simple, NBD_CMD_BLOCK_STATUS, 0, 0, 1), NBD_EINVAL);
	structured.base_allocation = false;
	assert_int_equal(refused(&structured, NBD_CMD_BLOCK_STATUS, 0, 0, 1), NBD_EINVAL);
	facts.flags = NBD_FLAG_HAS_FLAGS;
	assert_int_equal(refused(&structured, NBD_CMD_FLUSH, 0, 0, 0), NBD_EINVAL);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		assert_int_equal(refused(&structured, commands[i], 0, 0, 512), NBD_EINVAL);
	assert_int_equal(refused(&structured, NBD_CMD_READ, 0, 0, 512), 0);
	assert_int_equal(refused(&structured, NBD_CMD_WRITE, 0, 0, 512), 0);
	assert_int_equal(refused(&structured, 8, 0, 0, 512), NBD_EINVAL);
	assert_int_equal(refused(&structured, 0xffff, 0, 0, 512), NBD_EINVAL);
	assert_int_equal(command.flags, 0);
}

static void read_only(void **state)
{
	(void)state;
	facts.flags |= NBD_FLAG_READ_ONLY;
	EACH(t)
	{
		assert_int_equal(refused(t, NBD_CMD_WRITE, 0, 0, 512), NBD_EPERM);
		assert_int_equal(refused(t, NBD_CMD_TRIM, 0, 0, 512), NBD_EPERM);
		assert_int_equal(refused(t, NBD_CMD_WRITE_ZEROES, 0, 0, 512), NBD_EPERM);
		assert_int_equal(refused(t, NBD_CMD_READ, 0, 0, 512), 0);
		assert_int_equal(refused(t, NBD_CMD_FLUSH, 0, 0, 0), 0);
	}
	/* Also what isn't even offered. */
	facts.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY;
	assert_int_equal(refused(&simple, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 512), NBD_EPERM);
}

static void ranges(void **state)
{
	static const struct {
		uint16_t type;
		uint32_t behind_end;
	} commands[] = {
		{ NBD_CMD_READ, NBD_EINVAL },         { NBD_CMD_WRITE, NBD_ENOSPC },
		{ NBD_CMD_TRIM, NBD_EINVAL },         { NBD_CMD_CACHE, NBD_EINVAL },
		{ NBD_CMD_WRITE_ZEROES, NBD_ENOSPC }, { NBD_CMD_BLOCK_STATUS, NBD_EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		uint16_t type = commands[i].type;
		uint32_t error = commands[i].behind_end;

		assert_int_equal(refused(&structured, type, 0, SIZE - 512, 512), 0);
		assert_int_equal(refused(&structured, type, 0, SIZE - 512, 513), error);
		assert_int_equal(refused(&structured, type, 0, SIZE, 1), error);
		assert_int_equal(refused(&structured, type, 0, UINT64_MAX, 1), error);
		assert_int_equal(refused(&structured, type, 0, UINT64_MAX - 511, 512), error);
		assert_int_equal(refused(&structured, type, 0, 0, 0), NBD_EINVAL);
	}
	assert_int_equal(refused(&extended, NBD_CMD_TRIM, 0, 1, UINT64_MAX), NBD_EINVAL);
	assert_int_equal(refused(&extended, NBD_CMD_TRIM, 0, 1, SIZE), NBD_EINVAL);
	assert_int_equal(refused(&extended, NBD_CMD_WRITE_ZEROES, 0, 1, UINT64_MAX), NBD_ENOSPC);
	assert_int_equal(refused(&structured, NBD_CMD_FLUSH, 0, 0, 1), NBD_EINVAL);
	assert_int_equal(refused(&structured, NBD_CMD_FLUSH, 0, 1, 0), NBD_EINVAL);
}

static void unaligned(void **state)
{
	(void)state;
	facts.min_block = 4096;
	assert_int_equal(refused(&simple, NBD_CMD_READ, 0, 4096, 8192), 0);
	assert_int_equal(refused(&simple, NBD_CMD_READ, 0, 512, 4096), NBD_EINVAL);
	assert_int_equal(refused(&simple, NBD_CMD_READ, 0, 4096, 512), NBD_EINVAL);
	assert_int_equal(refused(&simple, NBD_CMD_WRITE, 0, 1, 4096), NBD_EINVAL);
	assert_int_equal(refused(&simple, NBD_CMD_TRIM, 0, 4096, 4097), NBD_EINVAL);
}

/* What is a little too long is passed over; nobody reads on for gigabytes. */
static void long_requests(void **state)
{
	(void)state;
	EACH(t)
	{
		assert_int_equal(refused(t, NBD_CMD_READ, 0, 0, MAX + 1), NBD_EINVAL);
		assert_int_equal(refused(t, NBD_CMD_READ, 0, 0, UINT32_MAX), NBD_EINVAL);
		assert_int_equal(refused(t, NBD_CMD_WRITE, 0, 0, MAX + 1), NBD_EINVAL);
		assert_int_equal(refused(t, NBD_CMD_WRITE, 0, 0, 2 * MAX + 1), NBD_EINVAL);
		assert_int_equal(parse(t, NBD_CMD_WRITE, 0, 0, 2 * MAX + 2), -EMSGSIZE);
		assert_int_equal(parse(t, NBD_CMD_WRITE, 0, 0, UINT32_MAX), -EMSGSIZE);
	}
	assert_int_equal(refused(&extended, NBD_CMD_READ, 0, 0, UINT64_MAX), NBD_EINVAL);
	assert_int_equal(parse(&extended, NBD_CMD_WRITE, 0, 0, UINT64_MAX), -EMSGSIZE);
	facts.max_block = UINT32_MAX;
	assert_int_equal(refused(&simple, NBD_CMD_WRITE, 0, 0, UINT32_MAX), 0);
}

static void payload_flag(void **state)
{
	uint8_t request[REQUEST_MAX];

	(void)state;
	/* Of other commands it is passed over. */
	assert_int_equal(parse(&extended, NBD_CMD_READ, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 512), 0);
	assert_int_equal(command.refuse, NBD_EINVAL);
	assert_true(command.payload == 512);
	assert_int_equal(parse(&extended, 99, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 2 * MAX + 2), -EMSGSIZE);
	/* A write has one, and should say so. */
	write_request(&extended, NBD_CMD_WRITE, 0, 0, 512, request);
	assert_int_equal(transmission_parse(&extended, request, &command), 0);
	assert_int_equal(command.refuse, 0);
	assert_true(command.payload == 512);
	assert_int_equal(parse(&extended, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 512), 0);
	assert_int_equal(command.flags, NBD_CMD_FLAG_FUA);
	/* Only with extended headers. */
	assert_int_equal(refused(&structured, NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 512),
			 NBD_EINVAL);
	assert_int_equal(refused(&structured, NBD_CMD_READ, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 512),
			 NBD_EINVAL);
}

static void wrong_magic(void **state)
{
	uint8_t request[REQUEST_MAX];

	(void)state;
	EACH(t)
	{
		for (int bit = 0; bit < 32; bit++) {
			write_request(t, NBD_CMD_READ, 0, 0, 512, request);
			request[bit / 8] ^= 1 << bit % 8;
			assert_int_equal(transmission_parse(t, request, &command), -EPROTO);
		}
	}
	write_request(&extended, NBD_CMD_READ, 0, 0, 512, request);
	assert_int_equal(transmission_parse(&structured, request, &command), -EPROTO);
	write_request(&structured, NBD_CMD_READ, 0, 0, 512, request);
	assert_int_equal(transmission_parse(&extended, request, &command), -EPROTO);
}

static void errors_of_nbd(void **state)
{
	(void)state;
	assert_int_equal(nbd_errno(0), NBD_SUCCESS);
	assert_int_equal(nbd_errno(EPERM), NBD_EPERM);
	assert_int_equal(nbd_errno(EROFS), NBD_EPERM);
	assert_int_equal(nbd_errno(ENOMEM), NBD_ENOMEM);
	assert_int_equal(nbd_errno(EINVAL), NBD_EINVAL);
	assert_int_equal(nbd_errno(ENOSPC), NBD_ENOSPC);
	assert_int_equal(nbd_errno(EDQUOT), NBD_ENOSPC);
	assert_int_equal(nbd_errno(EFBIG), NBD_ENOSPC);
	assert_int_equal(nbd_errno(EOVERFLOW), NBD_EOVERFLOW);
	assert_int_equal(nbd_errno(EOPNOTSUPP), NBD_ENOTSUP);
	assert_int_equal(nbd_errno(ESHUTDOWN), NBD_ESHUTDOWN);
	assert_int_equal(nbd_errno(EILSEQ), NBD_EIO);
	assert_int_equal(nbd_errno(ENOTCONN), NBD_EIO);
}

/* ---- replies ---- */

#define SIMPLE         "\x67\x44\x66\x98"
#define STRUCTURED     "\x66\x8e\x33\xef"
#define EXTENDED       "\x6e\x8a\x27\x8c"
#define OFFSET(number) "\0\0\0\0\0\1\0" number /* 64 KiB and something */

static uint8_t out[4096];

#define SAID(len, literal)                                                                         \
	do {                                                                                       \
		assert_int_equal(len, sizeof(literal) - 1);                                        \
		assert_memory_equal(out, literal, sizeof(literal) - 1);                            \
	} while (0)

static void ask_for(uint16_t type, uint16_t flags, uint64_t offset, uint64_t len)
{
	assert_int_equal(parse(&extended, type, flags, offset, len), 0);
	memset(out, 0xa5, sizeof(out));
}

static void done(void **state)
{
	(void)state;
	ask_for(NBD_CMD_TRIM, 0, 65537, 512);
	SAID(reply_done(&simple, &command, out), SIMPLE "\0\0\0\0" COOKIES);
	SAID(reply_done(&structured, &command, out), STRUCTURED "\0\1\0\0" COOKIES "\0\0\0\0");
	SAID(reply_done(&extended, &command, out),
	     EXTENDED "\0\1\0\0" COOKIES OFFSET("\1") "\0\0\0\0\0\0\0\0");
}

static void data(void **state)
{
	(void)state;
	ask_for(NBD_CMD_READ, 0, 65537, 0x1000);
	SAID(reply_data(&simple, &command, 65537, 0x1000, true, out), SIMPLE "\0\0\0\0" COOKIES);
	SAID(reply_data(&structured, &command, 65537, 0x1000, true, out),
	     STRUCTURED "\0\1\0\1" COOKIES "\0\0\x10\x08" OFFSET("\1"));
	SAID(reply_data(&structured, &command, 65538, 0xfff, false, out),
	     STRUCTURED "\0\0\0\1" COOKIES "\0\0\x10\x07" OFFSET("\2"));
	SAID(reply_data(&extended, &command, 65538, 0xffe, true, out),
	     EXTENDED "\0\1\0\1" COOKIES OFFSET("\1") "\0\0\0\0\0\0\x10\x06" OFFSET("\2"));
	facts.max_block = UINT32_MAX;
	ask_for(NBD_CMD_READ, 0, 65537, UINT32_MAX);
	SAID(reply_data(&extended, &command, 65537, UINT32_MAX, true, out),
	     EXTENDED "\0\1\0\1" COOKIES OFFSET("\1") "\0\0\0\1\0\0\0\7" OFFSET("\1"));
}

static void hole(void **state)
{
	(void)state;
	ask_for(NBD_CMD_READ, 0, 65537, 0x1000);
	SAID(reply_hole(&structured, &command, 65537, 0x1000, true, out),
	     STRUCTURED "\0\1\0\2" COOKIES "\0\0\0\x0c" OFFSET("\1") "\0\0\x10\0");
	SAID(reply_hole(&extended, &command, 65538, 1, false, out),
	     EXTENDED "\0\0\0\2" COOKIES OFFSET("\1") "\0\0\0\0\0\0\0\x0c" OFFSET("\2") "\0\0\0\1");
	assert_true(reply_hole(&extended, &command, 65538, 1, false, out) <= REPLY_SHORT_MAX);
}

static void errors(void **state)
{
	const uint64_t offset = 65538;

	(void)state;
	ask_for(NBD_CMD_READ, 0, 65537, 512);
	SAID(reply_error(&simple, &command, NBD_EIO, "broken", &offset, out),
	     SIMPLE "\0\0\0\5" COOKIES);
	SAID(reply_error(&structured, &command, NBD_EIO, NULL, NULL, out),
	     STRUCTURED "\0\1\x80\1" COOKIES "\0\0\0\6"
			"\0\0\0\5\0\0");
	SAID(reply_error(&structured, &command, NBD_ESHUTDOWN, "gone", NULL, out),
	     STRUCTURED "\0\1\x80\1" COOKIES "\0\0\0\x0a"
			"\0\0\0\x6c\0\4gone");
	SAID(reply_error(&structured, &command, NBD_EIO, "broken", &offset, out),
	     STRUCTURED "\0\1\x80\2" COOKIES "\0\0\0\x14"
			"\0\0\0\5\0\6broken" OFFSET("\2"));
	SAID(reply_error(&extended, &command, NBD_EIO, "", &offset, out),
	     EXTENDED "\0\1\x80\2" COOKIES OFFSET("\1") "\0\0\0\0\0\0\0\x0e"
							"\0\0\0\5\0\0" OFFSET("\2"));
}

/* Cut between characters. */
static void long_errors(void **state)
{
	static char text[1000];
	const uint64_t offset = 0;

	(void)state;
	for (size_t i = 0; i + 3 < sizeof(text); i += 3)
		memcpy(text + i, "\xe2\x82\xac", 3);
	ask_for(NBD_CMD_READ, 0, 65537, 512);
	assert_int_equal(reply_error(&extended, &command, NBD_EIO, text, &offset, out),
			 REPLY_HEAD_MAX - 1);
	assert_int_equal(get_be16(out + 32 + 4), REPLY_TEXT_MAX - 1);
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(reply_error(&extended, &command, NBD_EIO, text, &offset, out),
			 REPLY_HEAD_MAX);
}

/* ---- block status ---- */

#define TELL(t, size, ...)                                                                         \
	reply_extents(t, &command, (const struct reply_extent[]){ __VA_ARGS__ },                   \
		      sizeof((const struct reply_extent[]){ __VA_ARGS__ }) /                       \
			      sizeof(struct reply_extent),                                         \
		      out, size)

static void extents(void **state)
{
	(void)state;
	ask_for(NBD_CMD_BLOCK_STATUS, 0, 65537, 0x3000);
	SAID(TELL(&structured, sizeof(out), { 0x1000, 0 }, { 0x2000, 3 }),
	     STRUCTURED "\0\1\0\5" COOKIES "\0\0\0\x14"
			"\0\0\0\7"
			"\0\0\x10\0\0\0\0\0"
			"\0\0\x20\0\0\0\0\3");
	SAID(TELL(&extended, sizeof(out), { 0x1000, 2 }, { 0x2000, 0 }),
	     EXTENDED "\0\1\0\6" COOKIES OFFSET("\1") "\0\0\0\0\0\0\0\x28"
						      "\0\0\0\7\0\0\0\2"
						      "\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\2"
						      "\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\0");
}

/* One of what is told: head, context, count if there is one. */
static void told(const struct transmission *t, size_t len, size_t nr, size_t i, uint64_t extent,
		 uint32_t flags)
{
	const uint8_t *at = out + (t->extended ? 40 : 24) + i * (t->extended ? 16 : 8);

	assert_int_equal(len, (t->extended ? 40 : 24) + nr * (t->extended ? 16 : 8));
	assert_true(len <= REPLY_EXTENTS_SIZE(nr));
	assert_true((t->extended ? get_be64(at) : get_be32(at)) == extent);
	assert_true((t->extended ? get_be64(at + 8) : get_be32(at + 4)) == flags);
}

#define ONLY(t, len, extent, flags) told(t, len, 1, 0, extent, flags)

static void merged_extents(void **state)
{
	size_t len;

	(void)state;
	ask_for(NBD_CMD_BLOCK_STATUS, 0, 0, 0x3000);
	ONLY(&structured, TELL(&structured, sizeof(out), { 0x1000, 3 }, { 0x2000, 3 }), 0x3000, 3);
	ONLY(&extended,
	     TELL(&extended, sizeof(out), { 0, 1 }, { 0x1000, 3 }, { 0, 0 }, { 0x1000, 3 },
		  { 0, 2 }),
	     0x2000, 3);
	len = TELL(&extended, sizeof(out), { 0x1000, 3 }, { 0x800, 3 }, { 0x400, 0 }, { 0x800, 3 });
	told(&extended, len, 3, 0, 0x1800, 3);
	told(&extended, len, 3, 1, 0x400, 0);
	told(&extended, len, 3, 2, 0x800, 3);
}

/* No more than was asked for, whatever is known. */
static void long_extents(void **state)
{
	size_t len;

	(void)state;
	ask_for(NBD_CMD_BLOCK_STATUS, 0, 0, 0x3000);
	ONLY(&structured, TELL(&structured, sizeof(out), { UINT64_MAX, 1 }), 0x3000, 1);
	ONLY(&extended, TELL(&extended, sizeof(out), { 0x1000, 1 }, { UINT64_MAX, 1 }), 0x3000, 1);
	len = TELL(&extended, sizeof(out), { 0x1000, 1 }, { UINT64_MAX, 0 }, { 0x1000, 1 });
	told(&extended, len, 2, 0, 0x1000, 1);
	told(&extended, len, 2, 1, 0x2000, 0);
	ask_for(NBD_CMD_BLOCK_STATUS, 0, 0, 8 * GIB);
	ONLY(&extended, TELL(&extended, sizeof(out), { SIZE, 1 }), 8 * GIB, 1);
	ask_for(NBD_CMD_BLOCK_STATUS, 0, 0, UINT32_MAX);
	ONLY(&structured, TELL(&structured, sizeof(out), { SIZE, 1 }), UINT32_MAX, 1);
}

static void only_one_extent(void **state)
{
	(void)state;
	ask_for(NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 0, 0x3000);
	ONLY(&structured, TELL(&structured, sizeof(out), { 0x1000, 1 }, { 0x1000, 1 }, { 1, 0 }),
	     0x2000, 1);
	ONLY(&extended, TELL(&extended, sizeof(out), { UINT64_MAX, 1 }, { 1, 0 }), 0x3000, 1);
}

static void extents_that_have_no_room(void **state)
{
	(void)state;
	ask_for(NBD_CMD_BLOCK_STATUS, 0, 0, 0x3000);
	for (size_t more = 0; more < 8; more++)
		ONLY(&structured, TELL(&structured, 32 + more, { 0x1000, 1 }, { 0x1000, 0 }),
		     0x1000, 1);
	for (size_t more = 0; more < 16; more++) {
		ONLY(&extended, TELL(&extended, 56 + more, { 0x1000, 1 }, { 0x1000, 0 }), 0x1000,
		     1);
		assert_int_equal(out[56], 0xa5);
	}
}

static void no_extents(void **state)
{
	(void)state;
	ask_for(NBD_CMD_BLOCK_STATUS, 0, 0, 0x3000);
	assert_int_equal(reply_extents(&structured, &command, NULL, 0, out, sizeof(out)), 0);
	assert_int_equal(TELL(&extended, sizeof(out), { 0, 1 }), 0);
}

#define TEST(test) cmocka_unit_test_setup(test, reset)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_run),
		TEST(disconnecting),
		TEST(flags_of_commands),
		TEST(flags_not_offered),
		TEST(commands_not_offered),
		TEST(read_only),
		TEST(ranges),
		TEST(unaligned),
		TEST(long_requests),
		TEST(payload_flag),
		TEST(wrong_magic),
		TEST(errors_of_nbd),
		TEST(done),
		TEST(data),
		TEST(hole),
		TEST(errors),
		TEST(long_errors),
		TEST(extents),
		TEST(merged_extents),
		TEST(long_extents),
		TEST(only_one_extent),
		TEST(extents_that_have_no_room),
		TEST(no_extents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
