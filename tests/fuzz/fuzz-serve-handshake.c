/* What a client may send a server before transmission. The first byte says what server it is, the
 * second how the rest is cut into pieces, and that must not matter. */
#include <errno.h>
#include <stdbool.h>

#include "base/utf8.h"
#include "fuzz.h"
#include "nbd/fence.h"
#include "serve/handshake.h"

#define MAX_OPTIONS 16
#define MAX_SAID    (MAX_OPTIONS * 2 * HANDSHAKE_OUTPUT_MAX)

/* The first byte's bits. */
enum {
	OFFERS_TLS = 1 << 0,
	REQUIRES_TLS = 1 << 1,
	FAILS_TO_OPEN = 1 << 2, /* the first time */
	SENDS_SLOWLY = 1 << 3,
	MANY_EXPORTS = 1 << 4, /* more than there is room for at once */
	IS_LONG = 1 << 5,      /* what is said goes on, beyond the longest option that is kept */
};

#define FILLING (HANDSHAKE_DATA_MAX + 1000)

static char long_text[NBD_MAX_STRING + 100];
static const struct export_facts exports[] = {
	{ .name = "",
	  .description = "the first",
	  .size = 1 << 20,
	  .flags = 0xffff,
	  .min_block = 1,
	  .preferred_block = 4096,
	  .max_block = 1 << 25,
	  .extents = true },
	{ .name = "disk", .size = 512, .min_block = 1, .preferred_block = 512, .max_block = 65536 },
	{ .name = long_text, .description = long_text, .min_block = 512, .max_block = 65536 },
	{ .name = long_text, .description = long_text, .min_block = 512, .max_block = 65536 },
};

/* Says what was said, and how it ended. */
struct talk {
	uint8_t said[MAX_SAID];
	size_t len;
	enum handshake_next next;
	bool began_tls, has_failed;
	uint8_t config;
};

static const struct export_facts *list(void *opaque, size_t i)
{
	const struct talk *talk = opaque;
	size_t n = talk->config & MANY_EXPORTS ? sizeof(exports) / sizeof(exports[0]) : 1;

	return i < n ? &exports[i] : NULL;
}

static const struct export_facts *find(void *opaque, const char *name)
{
	(void)opaque;
	fuzz_check(strlen(name) <= NBD_MAX_STRING);
	fuzz_check(utf8_is_text((const uint8_t *)name, strlen(name)));
	for (size_t i = 0; i < sizeof(exports) / sizeof(exports[0]); i++)
		if (strcmp(name, exports[i].name) == 0)
			return &exports[i];
	return NULL;
}

static void take_output(struct talk *talk, struct handshake *hs)
{
	const uint8_t *output;
	size_t len;

	while (output = handshake_output(hs, &len), len > 0) {
		if (talk->config & SENDS_SLOWLY && len > 3)
			len = len / 2;
		fuzz_check(talk->len + len <= MAX_SAID);
		memcpy(talk->said + talk->len, output, len);
		talk->len += len;
		handshake_sent(hs, len);
	}
}

static void check_agreed(const struct talk *talk, const struct handshake *hs)
{
	const struct transmission *t = &hs->transmission;

	fuzz_check(t->facts && strlen(hs->name) <= NBD_MAX_STRING);
	fuzz_check(t->structured || (!t->extended && !t->base_allocation));
	fuzz_check(!t->base_allocation || t->facts->extents);
	fuzz_check(hs->secured == talk->began_tls);
	fuzz_check(hs->secured || !(talk->config & REQUIRES_TLS));
	fuzz_check(hs->nr_options <= MAX_OPTIONS);
}

/* What the caller has to do; false: it's over. */
static bool go_on(struct talk *talk, struct handshake *hs)
{
	int errnum = 0;

	if (talk->next == HANDSHAKE_TLS) {
		fuzz_check(talk->config & (OFFERS_TLS | REQUIRES_TLS) && !talk->began_tls);
		talk->began_tls = true;
		handshake_secured(hs);
		return true;
	}
	if (talk->next == HANDSHAKE_OPEN) {
		check_agreed(talk, hs);
		if (talk->config & FAILS_TO_OPEN && !talk->has_failed)
			errnum = EIO;
		talk->has_failed = errnum;
		talk->next = handshake_opened(hs, errnum, "it's away");
		take_output(talk, hs);
		fuzz_check(talk->next == HANDSHAKE_READY || errnum);
	}
	return talk->next == HANDSHAKE_MORE;
}

/* What lies in its memory from before may be anything; each of the two has something else there. */
static void spoil_input(struct handshake *hs, uint8_t with)
{
	if (hs->have == 0)
		memset(hs->input, with, sizeof(hs->input));
}

/* Feeds pieces of so many bytes. Single ones aren't copied, as that would take most of the time. */
static void hold(struct talk *talk, struct handshake *hs, const uint8_t *bytes, size_t len,
		 size_t piece)
{
	const struct handshake_options options = {
		.list = list,
		.find = find,
		.opaque = talk,
		.tls_offered = talk->config & (OFFERS_TLS | REQUIRES_TLS),
		.tls_required = talk->config & REQUIRES_TLS,
		.max_options = MAX_OPTIONS,
	};
	size_t used;

	memset(hs, piece, sizeof(*hs));
	handshake_begin(hs, &options);
	take_output(talk, hs);
	talk->next = HANDSHAKE_MORE;
	while (len > 0) {
		size_t n = piece < len ? piece : len;
		uint8_t *copy = n > 1 ? fuzz_copy(bytes, n) : NULL;

		talk->next = handshake_feed(hs, copy ? copy : bytes, n, &used);
		free(copy);
		fuzz_check(used <= n && (used > 0 || talk->next != HANDSHAKE_MORE));
		fuzz_check(used == n || talk->next != HANDSHAKE_TLS);
		spoil_input(hs, piece);
		take_output(talk, hs);
		bytes += used;
		len -= used;
		if (!go_on(talk, hs))
			break;
	}
}

/* Behind the greeting there are only replies, but for the answer to NBD_OPT_EXPORT_NAME. */
static void check_replies(const struct talk *talk, const struct handshake *hs)
{
	const uint8_t *at = talk->said + 18, *end = talk->said + talk->len;

	if (talk->next == HANDSHAKE_READY && hs->option == NBD_OPT_EXPORT_NAME)
		end -= hs->no_zeroes ? 10 : 134;
	while (at < end) {
		fuzz_check(end - at >= 20 && get_be64(at) == NBD_REP_MAGIC);
		fuzz_check((size_t)(end - at) - 20 >= get_be32(at + 16));
		at += 20 + get_be32(at + 16);
	}
	fuzz_check(at == end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct talk one, more;
	static struct handshake one_hs, more_hs;
	uint8_t *bytes;

	if (size < 2)
		return 0;
	bytes = malloc(size + FILLING);
	fuzz_check(bytes);
	memcpy(bytes, data, size);
	memset(bytes + size, 'x', FILLING);
	size += data[0] & IS_LONG ? FILLING : 0;
	memset(long_text, 'x', sizeof(long_text) - 1);
	one.len = more.len = 0;
	one.began_tls = more.began_tls = one.has_failed = more.has_failed = false;
	one.config = more.config = data[0];
	hold(&one, &one_hs, bytes + 2, size - 2, 1);
	hold(&more, &more_hs, bytes + 2, size - 2, 2 + data[1]);
	free(bytes);
	check_replies(&one, &one_hs);
	check_replies(&more, &more_hs);
	/* In pieces that are larger it sees what follows STARTTLS too early, and refuses it. */
	if (more.next == HANDSHAKE_OVER && more_hs.why && strstr(more_hs.why, "attack")) {
		fuzz_check(one.began_tls);
		return 0;
	}
	fuzz_check(one.next == more.next && one.began_tls == more.began_tls);
	fuzz_check(one_hs.why == more_hs.why && strcmp(one_hs.name, more_hs.name) == 0);
	fuzz_check(one.len == more.len && memcmp(one.said, more.said, one.len) == 0);
	return 0;
}
