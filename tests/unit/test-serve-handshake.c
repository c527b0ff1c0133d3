/* The server's side of NBD's negotiation: each option, all at once and byte by byte, and what a
 * client may send that is none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "serve/handshake.h"

#define GREETING  "NBDMAGICIHAVEOPT\0\3"
#define MAX_SAID  (4 * 1024 * 1024)
#define ZEROES    124
#define SUFFIX    ";ndio-session=00112233445566778899aabbccddeeff.1f"
#define ALLOCATES "\0\0\0\17base:allocation"

#define CAN (NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_DF)

static const struct export_facts disk = {
	.name = "disk",
	.description = "a disk",
	.size = 0x123456789000,
	.flags = CAN,
	.min_block = 1,
	.preferred_block = 4096,
	.max_block = 32 * 1024 * 1024,
	.extents = true,
};
static const struct export_facts plain = {
	.name = "plain",
	.size = 512,
	.min_block = 512,
	.preferred_block = 4096,
	.max_block = 65536,
};

/* A connection to the server: what it was told is in said, up to heard it was looked at. */
static struct handshake *hs;
static uint8_t said[MAX_SAID];
static size_t said_len, heard;
static size_t piece; /* so many bytes are fed at a time, and sent */
static size_t left;  /* bytes of the last ones that weren't used */
static size_t nr_exports;

static const struct export_facts *list(void *opaque, size_t i)
{
	const struct export_facts *const exports[] = { &disk, &plain };

	assert_ptr_equal(opaque, &nr_exports);
	return i < nr_exports ? exports[i % 2] : NULL;
}

static const struct export_facts *find(void *opaque, const char *name)
{
	assert_ptr_equal(opaque, &nr_exports);
	if (strcmp(name, "disk") == 0 || strcmp(name, "") == 0)
		return &disk;
	return strcmp(name, "plain") == 0 ? &plain : NULL;
}

static int connect_in_pieces(void **state)
{
	piece = *(const size_t *)*state;
	hs = malloc(sizeof(*hs));
	assert_non_null(hs);
	memset(hs, 0xa5, sizeof(*hs));
	return 0;
}

static int disconnect(void **state)
{
	(void)state;
	free(hs);
	return 0;
}

static void take_output(void)
{
	const uint8_t *output;
	size_t len;

	while (output = handshake_output(hs, &len), len > 0) {
		len = len < piece ? len : piece;
		assert_true(said_len + len <= MAX_SAID);
		memcpy(said + said_len, output, len);
		said_len += len;
		handshake_sent(hs, len);
	}
}

/* Says all of it, or what of it is wanted. The bytes end where their memory ends. */
static enum handshake_next say(const void *bytes, size_t len)
{
	enum handshake_next next = HANDSHAKE_MORE;
	const uint8_t *at = bytes;
	uint8_t *copy;
	size_t used;

	while (next == HANDSHAKE_MORE && len > 0) {
		size_t n = len < piece ? len : piece;

		copy = malloc(n);
		assert_non_null(copy);
		memcpy(copy, at, n);
		next = handshake_feed(hs, copy, n, &used);
		free(copy);
		assert_true(used > 0);
		take_output();
		at += used;
		len -= used;
	}
	left = len;
	return next;
}

/* ---- what is said ---- */

static enum handshake_next ask(uint32_t option, const void *data, size_t len)
{
	uint8_t *message = malloc(16 + len);
	enum handshake_next next;

	assert_non_null(message);
	put_be32(put_be32(put_be64(message, NBD_OPTS_MAGIC), option), len);
	if (len > 0)
		memcpy(message + 16, data, len);
	next = say(message, 16 + len);
	free(message);
	return next;
}

/* A string literal, with the zero bytes that it has. */
#define ASK(option, literal) ask(option, literal, sizeof(literal) - 1)

/* An option that names an export, with the rest of its data behind the name. */
#define ASK_OF(option, name, literal) ask_of(option, name, literal, sizeof(literal) - 1)

static enum handshake_next ask_of(uint32_t option, const char *name, const char *rest,
				  size_t rest_len)
{
	size_t len = strlen(name);
	uint8_t *data = malloc(4 + len + rest_len);
	enum handshake_next next;

	assert_non_null(data);
	memcpy(put_be32(data, len), name, len);
	memcpy(data + 4 + len, rest, rest_len);
	next = ask(option, data, 4 + len + rest_len);
	free(data);
	return next;
}

/* A server with these options, and a client with these flags. */
static void meet(const struct handshake_options *options, const char *flags)
{
	struct handshake_options all = *options;

	all.list = list;
	all.find = find;
	all.opaque = &nr_exports;
	all.max_options = all.max_options ? all.max_options : 64;
	nr_exports = 2;
	said_len = heard = 0;
	handshake_begin(hs, &all);
	take_output();
	assert_int_equal(said_len, sizeof(GREETING) - 1);
	assert_memory_equal(said, GREETING, said_len);
	heard = said_len;
	if (flags)
		assert_int_equal(say(flags, 4), HANDSHAKE_MORE);
}

static void meet_plainly(void)
{
	meet(&(struct handshake_options){ 0 }, "\0\0\0\3");
}

static void meet_with_tls(bool required)
{
	meet(&(struct handshake_options){ .tls_offered = true, .tls_required = required },
	     "\0\0\0\3");
}

/* ---- what is heard ---- */

/* The next reply, and its data. */
static const uint8_t *hear(uint32_t option, uint32_t type, size_t *len)
{
	const uint8_t *at = said + heard;

	assert_true(said_len - heard >= 20);
	assert_true(get_be64(at) == NBD_REP_MAGIC);
	assert_int_equal(get_be32(at + 8), option);
	assert_int_equal(get_be32(at + 12), type);
	*len = get_be32(at + 16);
	assert_true(said_len - heard - 20 >= *len);
	heard += 20 + *len;
	return at + 20;
}

static void hear_data(uint32_t option, uint32_t type, const void *data, size_t len)
{
	size_t got;
	const uint8_t *at = hear(option, type, &got);

	assert_int_equal(got, len);
	assert_memory_equal(at, data, len);
}

#define HEAR(option, type, literal) hear_data(option, type, literal, sizeof(literal) - 1)

static void hear_no_more(void)
{
	assert_int_equal(heard, said_len);
}

static void hear_ack(uint32_t option)
{
	HEAR(option, NBD_REP_ACK, "");
	hear_no_more();
}

/* An error, with words in it. */
static void hear_error(uint32_t option, uint32_t type, const char *words)
{
	size_t len;
	const uint8_t *text = hear(option, type, &len);

	assert_non_null(memmem(text, len, words, strlen(words)));
	hear_no_more();
}

static void hear_block_size(uint32_t option, const struct export_facts *facts)
{
	uint8_t sizes[14];

	put_be32(put_be32(put_be32(put_be16(sizes, NBD_INFO_BLOCK_SIZE), facts->min_block),
			  facts->preferred_block),
		 facts->max_block);
	hear_data(option, NBD_REP_INFO, sizes, sizeof(sizes));
}

static void hear_export(uint32_t option, const struct export_facts *facts, uint16_t flags)
{
	uint8_t export[12];

	put_be16(put_be64(put_be16(export, NBD_INFO_EXPORT), facts->size), flags);
	hear_data(option, NBD_REP_INFO, export, sizeof(export));
}

static void ended(enum handshake_next next, const char *why)
{
	assert_int_equal(next, HANDSHAKE_OVER);
	assert_non_null(hs->why);
	assert_non_null(strstr(hs->why, why));
	hear_no_more();
}

/* ---- the end of it: an export ---- */

static void go(void **state)
{
	(void)state;
	meet_plainly();
	assert_int_equal(ASK_OF(NBD_OPT_GO, "disk", "\0\0"), HANDSHAKE_OPEN);
	hear_no_more();
	assert_ptr_equal(hs->transmission.facts, &disk);
	assert_string_equal(hs->name, "disk");
	assert_int_equal(handshake_opened(hs, 0, NULL), HANDSHAKE_READY);
	take_output();
	hear_export(NBD_OPT_GO, &disk, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	hear_block_size(NBD_OPT_GO, &disk);
	hear_ack(NBD_OPT_GO);
	assert_false(hs->transmission.structured);
	assert_false(hs->transmission.extended);
	assert_false(hs->transmission.base_allocation);
}

static void info(void **state)
{
	(void)state;
	meet_plainly();
	assert_int_equal(ASK_OF(NBD_OPT_INFO, "", "\0\4\0\2\0\1\0\3\x12\x34"), HANDSHAKE_MORE);
	hear_export(NBD_OPT_INFO, &disk, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	HEAR(NBD_OPT_INFO, NBD_REP_INFO, "\0\1disk");
	HEAR(NBD_OPT_INFO, NBD_REP_INFO, "\0\2a disk");
	hear_block_size(NBD_OPT_INFO, &disk);
	hear_ack(NBD_OPT_INFO);
	/* What wasn't asked for, or isn't there, isn't told. */
	assert_int_equal(ASK_OF(NBD_OPT_INFO, "plain", "\0\1\0\2"), HANDSHAKE_MORE);
	hear_export(NBD_OPT_INFO, &plain, NBD_FLAG_HAS_FLAGS);
	hear_block_size(NBD_OPT_INFO, &plain);
	hear_ack(NBD_OPT_INFO);
	assert_int_equal(ASK_OF(NBD_OPT_INFO, "other", "\0\0"), HANDSHAKE_MORE);
	hear_error(NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN, "no export of that name");
}

/* An export that goes away, and another one instead. */
static void failed_open(void **state)
{
	static const struct {
		int errnum;
		uint32_t reply;
	} errors[] = {
		{ ENOENT, NBD_REP_ERR_UNKNOWN },  { EACCES, NBD_REP_ERR_POLICY },
		{ EPERM, NBD_REP_ERR_POLICY },    { ESHUTDOWN, NBD_REP_ERR_SHUTDOWN },
		{ ESTALE, NBD_REP_ERR_PLATFORM },
	};

	(void)state;
	meet_plainly();
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		assert_int_equal(ASK_OF(NBD_OPT_GO, "disk", "\0\0"), HANDSHAKE_OPEN);
		assert_int_equal(handshake_opened(hs, errors[i].errnum, "it's away"),
				 HANDSHAKE_MORE);
		take_output();
		hear_error(NBD_OPT_GO, errors[i].reply, "it's away");
	}
	assert_int_equal(ASK_OF(NBD_OPT_GO, "plain", "\0\0"), HANDSHAKE_OPEN);
	assert_int_equal(handshake_opened(hs, 0, NULL), HANDSHAKE_READY);
	take_output();
	hear_export(NBD_OPT_GO, &plain, NBD_FLAG_HAS_FLAGS);
}

static void export_name(void **state)
{
	static const char zeroes[ZEROES];
	uint8_t export[10];

	(void)state;
	put_be16(put_be64(export, disk.size), NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	for (int no_zeroes = 0; no_zeroes < 2; no_zeroes++) {
		/* Also without the fixed newstyle. */
		meet(&(struct handshake_options){ 0 }, no_zeroes ? "\0\0\0\2" : "\0\0\0\0");
		assert_int_equal(ASK(NBD_OPT_EXPORT_NAME, "disk"), HANDSHAKE_OPEN);
		assert_int_equal(handshake_opened(hs, 0, NULL), HANDSHAKE_READY);
		take_output();
		assert_int_equal(said_len - heard, sizeof(export) + (no_zeroes ? 0 : ZEROES));
		assert_memory_equal(said + heard, export, sizeof(export));
		assert_memory_equal(said + heard + sizeof(export), zeroes,
				    said_len - heard - sizeof(export));
	}
}

static void refused_export_name(void **state)
{
	(void)state;
	meet_plainly();
	ended(ASK(NBD_OPT_EXPORT_NAME, "other"), "no export of that name");
	meet_plainly();
	ended(ASK(NBD_OPT_EXPORT_NAME, "\xff"), "UTF-8");
	meet_plainly();
	assert_int_equal(ASK(NBD_OPT_EXPORT_NAME, "disk"), HANDSHAKE_OPEN);
	assert_int_equal(handshake_opened(hs, EIO, "it's away"), HANDSHAKE_OVER);
	ended(HANDSHAKE_OVER, "can't be opened");
	meet_plainly();
	ASK(NBD_OPT_EXTENDED_HEADERS, "");
	hear_ack(NBD_OPT_EXTENDED_HEADERS);
	ended(ASK(NBD_OPT_EXPORT_NAME, "disk"), "extended headers");
}

static void sessions(void **state)
{
	static const char *const no_sessions[] = { "disk" SUFFIX "x", ("disk" SUFFIX SUFFIX),
						   "disk;ndio-session=1.1", "diskx" SUFFIX };

	(void)state;
	meet_plainly();
	assert_int_equal(ASK_OF(NBD_OPT_INFO, "disk" SUFFIX, "\0\0"), HANDSHAKE_MORE);
	hear_export(NBD_OPT_INFO, &disk, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	hear_block_size(NBD_OPT_INFO, &disk);
	hear_ack(NBD_OPT_INFO);
	for (size_t i = 0; i < sizeof(no_sessions) / sizeof(no_sessions[0]); i++) {
		assert_int_equal(ASK_OF(NBD_OPT_GO, no_sessions[i], "\0\0"), HANDSHAKE_MORE);
		hear_error(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "no export");
	}
	assert_int_equal(ASK_OF(NBD_OPT_GO, SUFFIX, "\0\0"), HANDSHAKE_OPEN);
	assert_string_equal(hs->name, SUFFIX);
	meet_plainly();
	assert_int_equal(ASK(NBD_OPT_EXPORT_NAME, "plain" SUFFIX), HANDSHAKE_OPEN);
	assert_string_equal(hs->name, "plain" SUFFIX);
	assert_ptr_equal(hs->transmission.facts, &plain);
}

/* ---- replies' forms ---- */

static void structured_replies(void **state)
{
	(void)state;
	meet_plainly();
	for (int i = 0; i < 2; i++) {
		ASK(NBD_OPT_STRUCTURED_REPLY, "");
		hear_ack(NBD_OPT_STRUCTURED_REPLY);
	}
	assert_int_equal(ASK_OF(NBD_OPT_GO, "disk", "\0\0"), HANDSHAKE_OPEN);
	handshake_opened(hs, 0, NULL);
	take_output();
	hear_export(NBD_OPT_GO, &disk, NBD_FLAG_HAS_FLAGS | CAN);
	assert_true(hs->transmission.structured);
	assert_false(hs->transmission.extended);
}

static void extended_headers(void **state)
{
	(void)state;
	meet_plainly();
	ASK(NBD_OPT_STRUCTURED_REPLY, "");
	hear_ack(NBD_OPT_STRUCTURED_REPLY);
	ASK(NBD_OPT_EXTENDED_HEADERS, "");
	hear_ack(NBD_OPT_EXTENDED_HEADERS);
	/* There is no way back. */
	ASK(NBD_OPT_STRUCTURED_REPLY, "");
	hear_error(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_EXT_HEADER_REQD, "extended");
	assert_int_equal(ASK_OF(NBD_OPT_GO, "disk", "\0\0"), HANDSHAKE_OPEN);
	handshake_opened(hs, 0, NULL);
	take_output();
	hear_export(NBD_OPT_GO, &disk, NBD_FLAG_HAS_FLAGS | CAN);
	assert_true(hs->transmission.structured);
	assert_true(hs->transmission.extended);
}

/* ---- contexts ---- */

static void meet_structured(void)
{
	meet_plainly();
	ASK(NBD_OPT_STRUCTURED_REPLY, "");
	hear_ack(NBD_OPT_STRUCTURED_REPLY);
}

#define LISTED(name, queries)                                                                      \
	do {                                                                                       \
		ASK_OF(NBD_OPT_LIST_META_CONTEXT, name, queries);                                  \
		HEAR(NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT, "\0\0\0\0base:allocation");  \
		hear_ack(NBD_OPT_LIST_META_CONTEXT);                                               \
	} while (0)
#define NOT_LISTED(name, queries)                                                                  \
	do {                                                                                       \
		ASK_OF(NBD_OPT_LIST_META_CONTEXT, name, queries);                                  \
		hear_ack(NBD_OPT_LIST_META_CONTEXT);                                               \
	} while (0)
#define SET(name, queries)                                                                         \
	do {                                                                                       \
		ASK_OF(NBD_OPT_SET_META_CONTEXT, name, queries);                                   \
		HEAR(NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, "\0\0\0\1base:allocation");   \
		hear_ack(NBD_OPT_SET_META_CONTEXT);                                                \
	} while (0)
#define NOT_SET(name, queries)                                                                     \
	do {                                                                                       \
		ASK_OF(NBD_OPT_SET_META_CONTEXT, name, queries);                                   \
		hear_ack(NBD_OPT_SET_META_CONTEXT);                                                \
	} while (0)

static void listed_contexts(void **state)
{
	(void)state;
	meet_structured();
	LISTED("disk", "\0\0\0\0");
	LISTED("disk", "\0\0\0\1\0\0\0\0");
	LISTED("disk" SUFFIX, "\0\0\0\1\0\0\0\5base:");
	LISTED("disk", "\0\0\0\3\0\0\0\2x:" ALLOCATES ALLOCATES);
	NOT_LISTED("disk", "\0\0\0\1\0\0\0\2x:");
	NOT_LISTED("disk", "\0\0\0\1\0\0\0\6base:a");
	NOT_LISTED("plain", "\0\0\0\0");
	/* Nothing is chosen by that. */
	assert_int_equal(ASK_OF(NBD_OPT_GO, "disk", "\0\0"), HANDSHAKE_OPEN);
	assert_false(hs->transmission.base_allocation);
}

/* Is base:allocation agreed to with this export? */
static bool gone_with_context(const char *name)
{
	assert_int_equal(ask_of(NBD_OPT_GO, name, "\0\0", 2), HANDSHAKE_OPEN);
	if (hs->transmission.base_allocation)
		assert_int_equal(hs->transmission.context, 1);
	return hs->transmission.base_allocation;
}

static void chosen_contexts(void **state)
{
	(void)state;
	meet_structured();
	SET("disk", "\0\0\0\2\0\0\0\2x:" ALLOCATES);
	assert_true(gone_with_context("disk"));
	meet_structured();
	SET("disk", "\0\0\0\1" ALLOCATES);
	assert_true(gone_with_context("disk" SUFFIX));
	meet_structured();
	SET("disk" SUFFIX, "\0\0\0\1" ALLOCATES);
	ASK(NBD_OPT_EXTENDED_HEADERS, "");
	assert_true(gone_with_context("disk"));
	/* Of another name, though the export is the same. */
	meet_structured();
	SET("disk", "\0\0\0\1" ALLOCATES);
	assert_false(gone_with_context(""));
	/* A wildcard chooses nothing. */
	meet_structured();
	NOT_SET("disk", "\0\0\0\0");
	NOT_SET("disk", "\0\0\0\2\0\0\0\5base:\0\0\0\0");
	NOT_SET("plain", "\0\0\0\1" ALLOCATES);
	assert_false(gone_with_context("plain"));
}

/* By what comes after. */
static void contexts_given_up(void **state)
{
	(void)state;
	meet_structured();
	SET("disk", "\0\0\0\1" ALLOCATES);
	NOT_SET("disk", "\0\0\0\0");
	assert_false(gone_with_context("disk"));
	meet_structured();
	SET("disk", "\0\0\0\1" ALLOCATES);
	ASK_OF(NBD_OPT_SET_META_CONTEXT, "other", "\0\0\0\1" ALLOCATES);
	hear_error(NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_UNKNOWN, "no export");
	assert_false(gone_with_context("disk"));
	meet_structured();
	SET("disk", "\0\0\0\1" ALLOCATES);
	ask(NBD_OPT_SET_META_CONTEXT, said, HANDSHAKE_DATA_MAX + 1);
	hear_error(NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_TOO_BIG, "too long");
	assert_false(gone_with_context("disk"));
}

static void refused_contexts(void **state)
{
	static const uint32_t options[] = { NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		uint32_t option = options[i];

		meet_plainly();
		ASK_OF(option, "disk", "\0\0\0\0");
		hear_error(option, NBD_REP_ERR_INVALID, "structured");
		meet_structured();
		ASK(option, "");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\0\0\0");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\0\0\0\1\0\0\0\4base");
		hear_ack(option);
		ASK_OF(option, "disk", "\0\0\0\1\0\0\0\5base");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\0\0\0\1\0\0\0\3base");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\xff\xff\xff\xff" ALLOCATES);
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\0\0\0\1\0\0\x10\1x");
		hear_error(option, NBD_REP_ERR_TOO_BIG, "4096");
		ASK_OF(option, "disk", "\0\0\0\1\0\0\0\2:\xc0");
		hear_error(option, NBD_REP_ERR_INVALID, "UTF-8");
	}
}

/* ---- lists ---- */

static void list_of_exports(void **state)
{
	(void)state;
	meet_plainly();
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ASK(NBD_OPT_LIST, ""), HANDSHAKE_MORE);
		HEAR(NBD_OPT_LIST, NBD_REP_SERVER, "\0\0\0\4diska disk");
		HEAR(NBD_OPT_LIST, NBD_REP_SERVER, "\0\0\0\5plain");
		hear_ack(NBD_OPT_LIST);
	}
	nr_exports = 0;
	ASK(NBD_OPT_LIST, "");
	hear_ack(NBD_OPT_LIST);
}

static void endless_list(void **state)
{
	(void)state;
	meet_plainly();
	nr_exports = 20000; /* far more than there is room for */
	assert_int_equal(ASK(NBD_OPT_LIST, ""), HANDSHAKE_MORE);
	for (size_t i = 0; i < nr_exports; i += 2) {
		HEAR(NBD_OPT_LIST, NBD_REP_SERVER, "\0\0\0\4diska disk");
		HEAR(NBD_OPT_LIST, NBD_REP_SERVER, "\0\0\0\5plain");
	}
	hear_ack(NBD_OPT_LIST);
}

/* Who doesn't read gets no further, in whatever it asked. */
static void reader_that_reads_not(void **state)
{
	static const char options[] = "\0\0\0\3"
				      "IHAVEOPT\0\0\0\3\0\0\0\0"
				      "IHAVEOPT\0\0\0\3\0\0\0";
	const uint8_t *bytes = (const uint8_t *)options;
	size_t len = sizeof(options), used;

	(void)state;
	meet(&(struct handshake_options){ 0 }, NULL);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(handshake_feed(hs, bytes, len, &used), HANDSHAKE_MORE);
		bytes += used;
		len -= used;
	}
	assert_int_equal(used, 0);
	assert_int_equal(len, 16);
	assert_int_equal(said_len, heard);
}

/* ---- TLS ---- */

static void starttls(void **state)
{
	(void)state;
	meet_with_tls(false);
	ASK(NBD_OPT_STRUCTURED_REPLY, "");
	hear_ack(NBD_OPT_STRUCTURED_REPLY);
	SET("disk", "\0\0\0\1" ALLOCATES);
	assert_int_equal(ASK(NBD_OPT_STARTTLS, ""), HANDSHAKE_TLS);
	hear_ack(NBD_OPT_STARTTLS);
	handshake_secured(hs);
	/* Once, */
	ASK(NBD_OPT_STARTTLS, "");
	hear_error(NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "already");
	/* and all that was before is forgotten. */
	ASK_OF(NBD_OPT_SET_META_CONTEXT, "disk", "\0\0\0\1" ALLOCATES);
	hear_error(NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID, "structured");
	assert_false(gone_with_context("disk"));
	assert_false(hs->transmission.structured);
}

/* A context doesn't outlive TLS either. */
static void starttls_forgets_contexts(void **state)
{
	(void)state;
	meet_with_tls(false);
	ASK(NBD_OPT_EXTENDED_HEADERS, "");
	hear_ack(NBD_OPT_EXTENDED_HEADERS);
	SET("disk", "\0\0\0\1" ALLOCATES);
	ASK(NBD_OPT_STARTTLS, "");
	hear_ack(NBD_OPT_STARTTLS);
	handshake_secured(hs);
	ASK(NBD_OPT_STRUCTURED_REPLY, "");
	hear_ack(NBD_OPT_STRUCTURED_REPLY);
	assert_false(gone_with_context("disk"));
	assert_false(hs->transmission.extended);
}

static void no_tls(void **state)
{
	(void)state;
	meet_plainly();
	assert_int_equal(ASK(NBD_OPT_STARTTLS, ""), HANDSHAKE_MORE);
	hear_error(NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, "no TLS");
	meet_with_tls(false);
	assert_int_equal(ASK(NBD_OPT_STARTTLS, "x"), HANDSHAKE_MORE);
	hear_error(NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "data");
}

/* It could be taken for what comes encrypted. */
static void injection_behind_starttls(void **state)
{
	static const char options[] = "IHAVEOPT\0\0\0\5\0\0\0\0"
				      "IHAVEOPT\0\0\0\3\0\0\0";
	size_t used;

	(void)state;
	meet_with_tls(true);
	assert_int_equal(handshake_feed(hs, (const uint8_t *)options, 17, &used), HANDSHAKE_OVER);
	assert_int_equal(used, 16);
	take_output();
	ended(HANDSHAKE_OVER, "under attack");
	/* The same, but late. */
	meet_with_tls(true);
	assert_int_equal(ASK(NBD_OPT_STARTTLS, ""), HANDSHAKE_TLS);
	hear_ack(NBD_OPT_STARTTLS);
	assert_int_equal(handshake_feed(hs, (const uint8_t *)"I", 1, &used), HANDSHAKE_OVER);
	assert_int_equal(used, 0);
	ended(HANDSHAKE_OVER, "under attack");
}

static void required_tls(void **state)
{
	(void)state;
	meet_with_tls(true);
	for (uint32_t option = 0; option < 20; option++) {
		if (option == NBD_OPT_STARTTLS || option == NBD_OPT_EXPORT_NAME ||
		    option == NBD_OPT_ABORT)
			continue;
		assert_int_equal(ASK_OF(option, "disk", "\0\0"), HANDSHAKE_MORE);
		hear_error(option, NBD_REP_ERR_TLS_REQD, "wants TLS");
	}
	assert_int_equal(ASK(NBD_OPT_STARTTLS, ""), HANDSHAKE_TLS);
	hear_ack(NBD_OPT_STARTTLS);
	handshake_secured(hs);
	assert_false(gone_with_context("disk"));
	meet_with_tls(true);
	ended(ASK(NBD_OPT_EXPORT_NAME, "disk"), "wants TLS");
	meet_with_tls(true);
	assert_int_equal(ASK(NBD_OPT_ABORT, ""), HANDSHAKE_OVER);
	hear_ack(NBD_OPT_ABORT);
}

/* ---- the rest, and what is none ---- */

static void client_aborts(void **state)
{
	(void)state;
	meet_plainly();
	assert_int_equal(ASK(NBD_OPT_ABORT, ""), HANDSHAKE_OVER);
	hear_ack(NBD_OPT_ABORT);
	assert_null(hs->why);
}

static void unknown_options(void **state)
{
	static const uint32_t unknown[] = { 0, 4, 12, 0x80000001, 0xffffffff };

	(void)state;
	meet_plainly();
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		ask(unknown[i], said, i * 5000);
		hear_error(unknown[i], NBD_REP_ERR_UNSUP, "doesn't know");
	}
	assert_false(gone_with_context("disk"));
}

static void data_where_none_belong(void **state)
{
	static const uint32_t options[] = { NBD_OPT_ABORT, NBD_OPT_LIST, NBD_OPT_STRUCTURED_REPLY,
					    NBD_OPT_EXTENDED_HEADERS };

	(void)state;
	meet_plainly();
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		assert_int_equal(ASK(options[i], "x"), HANDSHAKE_MORE);
		hear_error(options[i], NBD_REP_ERR_INVALID, "data");
	}
	assert_false(gone_with_context("disk"));
	assert_false(hs->transmission.structured);
}

static void misfits(void **state)
{
	(void)state;
	meet_plainly();
	for (uint32_t option = NBD_OPT_INFO; option <= NBD_OPT_GO; option++) {
		ASK(option, "");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK(option, "\0\0\0");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK(option, "\0\0\0\5disk");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK(option, "\xff\xff\xff\xff"
			    "disk\0\0");
		hear_error(option, NBD_REP_ERR_TOO_BIG, "4096");
		ASK_OF(option, "disk", "");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\0\1");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\0\1\0");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\0\1\0\1\0");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
		ASK_OF(option, "disk", "\xff\xff\0\1");
		hear_error(option, NBD_REP_ERR_INVALID, "length");
	}
}

static void names(void **state)
{
	static const char *const good[] = { "x",
					    "\x7f",
					    "\xc2\x80",
					    "\xdf\xbf",
					    "\xe0\xa0\x80",
					    "\xed\x9f\xbf",
					    "\xee\x80\x80",
					    "\xef\xbf\xbf",
					    "\xf0\x90\x80\x80",
					    "\xf4\x8f\xbf\xbf" };
	static const char *const bad[] = { "\x80",
					   "\xbf",
					   "\xc0\x80",
					   "\xc1\xbf",
					   "\xc2",
					   "\xc2x",
					   "\xe0\x80\x80",
					   "\xe0\x9f\xbf",
					   "\xe1\x80",
					   "\xe1\x80x",
					   "\xed\xa0\x80",
					   "\xed\xbf\xbf",
					   "\xf0\x80\x80\x80",
					   "\xf0\x8f\xbf\xbf",
					   "\xf0\x90\x80",
					   "\xf4\x90\x80\x80",
					   "\xf5\x80\x80\x80",
					   "\xf8\x88\x80\x80\x80",
					   "\xff" };

	(void)state;
	meet(&(struct handshake_options){ .max_options = 1000 }, "\0\0\0\3");
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		ask_of(NBD_OPT_INFO, good[i], "\0\0", 2);
		hear_error(NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN, "no export");
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ask_of(NBD_OPT_INFO, bad[i], "\0\0", 2);
		hear_error(NBD_OPT_INFO, NBD_REP_ERR_INVALID, "UTF-8");
	}
	/* A character that what follows would make whole. */
	ASK(NBD_OPT_INFO, "\0\0\0\1\xc2\x80\0");
	hear_error(NBD_OPT_INFO, NBD_REP_ERR_INVALID, "UTF-8");
	ASK(NBD_OPT_INFO, "\0\0\0\5disk\0\0\0");
	hear_error(NBD_OPT_INFO, NBD_REP_ERR_INVALID, "UTF-8");
}

static void long_names(void **state)
{
	char name[NBD_MAX_STRING + 2];

	(void)state;
	meet_plainly();
	memset(name, 'x', sizeof(name));
	name[NBD_MAX_STRING] = '\0';
	ask_of(NBD_OPT_INFO, name, "\0\0", 2);
	hear_error(NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN, "no export");
	name[NBD_MAX_STRING] = 'x';
	name[NBD_MAX_STRING + 1] = '\0';
	ask_of(NBD_OPT_INFO, name, "\0\0", 2);
	hear_error(NBD_OPT_INFO, NBD_REP_ERR_TOO_BIG, "4096");
	ended(ask(NBD_OPT_EXPORT_NAME, name, NBD_MAX_STRING + 1), "4096");
}

/* What an export has may be as long as anything; what is told is cut between characters. */
static void long_facts(void **state)
{
	static char name[2 * NBD_MAX_STRING], description[2 * NBD_MAX_STRING];
	struct export_facts facts = disk;
	size_t len;

	(void)state;
	for (size_t i = 0; i + 3 < sizeof(name); i += 3)
		memcpy(name + i, "\xe2\x82\xac", 3);
	memset(description, 'd', sizeof(description) - 1);
	facts.name = name;
	facts.description = description;
	meet_plainly();
	assert_int_equal(ASK_OF(NBD_OPT_GO, "disk", "\0\2\0\1\0\2"), HANDSHAKE_OPEN);
	hs->transmission.facts = &facts;
	assert_int_equal(handshake_opened(hs, 0, NULL), HANDSHAKE_READY);
	take_output();
	hear_export(NBD_OPT_GO, &disk, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	hear(NBD_OPT_GO, NBD_REP_INFO, &len);
	assert_int_equal(len, 2 + 4095);
	hear(NBD_OPT_GO, NBD_REP_INFO, &len);
	assert_int_equal(len, 2 + 4096);
	hear_block_size(NBD_OPT_GO, &disk);
	hear_ack(NBD_OPT_GO);
}

static void long_options(void **state)
{
	static const uint8_t zeroes[1024 * 1024];

	(void)state;
	meet_plainly();
	ask(NBD_OPT_GO, zeroes, HANDSHAKE_DATA_MAX);
	hear_error(NBD_OPT_GO, NBD_REP_ERR_INVALID, "length");
	ask(NBD_OPT_GO, zeroes, HANDSHAKE_DATA_MAX + 1);
	hear_error(NBD_OPT_GO, NBD_REP_ERR_TOO_BIG, "too long");
	ask(NBD_OPT_INFO, zeroes, sizeof(zeroes));
	hear_error(NBD_OPT_INFO, NBD_REP_ERR_TOO_BIG, "too long");
	ended(say("IHAVEOPT\0\0\0\7\0\x10\0\1", 16), "longer than any");
	meet_plainly();
	ended(say("IHAVEOPT\0\0\0\x40\xff\xff\xff\xff", 16), "longer than any");
}

static void options_without_end(void **state)
{
	(void)state;
	meet(&(struct handshake_options){ .max_options = 3 }, "\0\0\0\3");
	for (int i = 0; i < 3; i++)
		assert_int_equal(ASK(NBD_OPT_LIST, ""), HANDSHAKE_MORE);
	heard = said_len;
	ended(ASK(NBD_OPT_LIST, ""), "without end");
}

static void clients_flags(void **state)
{
	static const char *const unknown[] = { "\0\0\0\4", "\0\0\0\7", "\x80\0\0\3", "\0\1\0\3" };

	(void)state;
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		meet(&(struct handshake_options){ 0 }, NULL);
		ended(say(unknown[i], 4), "flags");
	}
	/* Who hasn't the fixed newstyle can't have replies. */
	meet(&(struct handshake_options){ 0 }, "\0\0\0\2");
	ended(ASK(NBD_OPT_LIST, ""), "no flag for");
}

static void garbage(void **state)
{
	size_t used;

	(void)state;
	meet_plainly();
	ended(say("GET / HTTP/1.1\r\n", 16), "doesn't speak NBD");
	meet_plainly();
	ended(say("IHAVEOPTIHAVEOPTI", 17), "longer than any");
	/* By the first wrong byte. */
	meet_plainly();
	assert_int_equal(say("IHAVEOP", 7), HANDSHAKE_MORE);
	ended(say("x", 1), "doesn't speak NBD");
	assert_int_equal(handshake_feed(hs, (const uint8_t *)"x", 1, &used), HANDSHAKE_OVER);
	assert_int_equal(used, 0);
}

/* What comes behind the last option isn't the handshake's. */
static void nothing_more_is_taken(void **state)
{
	static const char bytes[] = "IHAVEOPT\0\0\0\1\0\0\0\4disk\x25\x60\x95\x13";

	(void)state;
	meet_plainly();
	assert_int_equal(say(bytes, sizeof(bytes) - 1), HANDSHAKE_OPEN);
	assert_int_equal(left, 4);
	assert_int_equal(handshake_opened(hs, 0, NULL), HANDSHAKE_READY);
	assert_int_equal(handshake_feed(hs, (const uint8_t *)bytes, 1, &left), HANDSHAKE_READY);
	assert_int_equal(left, 0);
}

static size_t pieces[] = { SIZE_MAX, 1, 7 };

#define IN_PIECES(test)                                                                            \
	{ #test " at once", test, connect_in_pieces, disconnect, &pieces[0] },                     \
		{ #test " byte by byte", test, connect_in_pieces, disconnect, &pieces[1] },        \
	{                                                                                          \
#test " in pieces", test, connect_in_pieces, disconnect, &pieces[2]                \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_PIECES(go),
		IN_PIECES(info),
		IN_PIECES(failed_open),
		IN_PIECES(export_name),
		IN_PIECES(refused_export_name),
		IN_PIECES(sessions),
		IN_PIECES(structured_replies),
		IN_PIECES(extended_headers),
		IN_PIECES(listed_contexts),
		IN_PIECES(chosen_contexts),
		IN_PIECES(contexts_given_up),
		IN_PIECES(refused_contexts),
		IN_PIECES(list_of_exports),
		IN_PIECES(endless_list),
		IN_PIECES(reader_that_reads_not),
		IN_PIECES(starttls),
		IN_PIECES(starttls_forgets_contexts),
		IN_PIECES(no_tls),
		IN_PIECES(injection_behind_starttls),
		IN_PIECES(required_tls),
		IN_PIECES(client_aborts),
		IN_PIECES(unknown_options),
		IN_PIECES(data_where_none_belong),
		IN_PIECES(misfits),
		IN_PIECES(names),
		IN_PIECES(long_names),
		IN_PIECES(long_facts),
		IN_PIECES(long_options),
		IN_PIECES(options_without_end),
		IN_PIECES(clients_flags),
		IN_PIECES(garbage),
		IN_PIECES(nothing_more_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
