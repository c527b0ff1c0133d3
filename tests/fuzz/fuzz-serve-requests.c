/* What a client may send a server in transmission: requests, one behind the other. The first four
 * bytes say what export it is and what was agreed to. Each request is answered in all ways. */
#include <errno.h>
#include <stdbool.h>

#include "fuzz.h"
#include "serve/transmission.h"

#define MAX_EXTENTS 8

/* The first byte's bits. */
enum { STRUCTURED = 1 << 0, EXTENDED = 1 << 1, BASE_ALLOCATION = 1 << 2 };

static const uint16_t known_flags[] = {
	[NBD_CMD_READ] = NBD_CMD_FLAG_DF,
	[NBD_CMD_WRITE] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_FLUSH] = 0,
	[NBD_CMD_TRIM] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_WRITE_ZEROES] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
	[NBD_CMD_BLOCK_STATUS] = NBD_CMD_FLAG_REQ_ONE,
};

static bool is_writing(const struct command *c)
{
	return c->type == NBD_CMD_WRITE || c->type == NBD_CMD_TRIM ||
	       c->type == NBD_CMD_WRITE_ZEROES;
}

static bool is_carrying(const struct command *c)
{
	return c->type == NBD_CMD_READ || c->type == NBD_CMD_WRITE;
}

/* What the engine may be asked to do. */
static void check_run(const struct transmission *t, const struct command *c)
{
	const struct export_facts *facts = t->facts;

	fuzz_check(c->type <= NBD_CMD_BLOCK_STATUS && !(c->flags & ~known_flags[c->type]));
	fuzz_check(!is_writing(c) || !(facts->flags & NBD_FLAG_READ_ONLY));
	fuzz_check(c->type != NBD_CMD_BLOCK_STATUS || t->base_allocation);
	fuzz_check(!(c->flags & NBD_CMD_FLAG_FUA) || facts->flags & NBD_FLAG_SEND_FUA);
	fuzz_check(!(c->flags & NBD_CMD_FLAG_DF) || t->structured);
	fuzz_check(c->payload == (c->type == NBD_CMD_WRITE ? c->len : 0));
	if (c->type == NBD_CMD_FLUSH) {
		fuzz_check(c->offset == 0 && c->len == 0);
		return;
	}
	fuzz_check(c->len > 0 && c->offset < facts->size && c->len <= facts->size - c->offset);
	fuzz_check(c->offset % facts->min_block == 0 && c->len % facts->min_block == 0);
	fuzz_check(!is_carrying(c) || c->len <= facts->max_block);
}

/* A reply of so many bytes, behind which data are to follow. Returns its payload. */
static const uint8_t *check_reply(const struct transmission *t, const struct command *c,
				  const uint8_t *out, size_t len, uint64_t data)
{
	fuzz_check(get_be64(out + 8) == c->cookie);
	if (!t->structured) {
		fuzz_check(len == 16 && get_be32(out) == NBD_SIMPLE_REPLY_MAGIC);
		return out + 16;
	}
	if (!t->extended) {
		fuzz_check(get_be32(out) == NBD_STRUCTURED_REPLY_MAGIC);
		fuzz_check(get_be32(out + 16) == len - 20 + data);
		return out + 20;
	}
	fuzz_check(get_be32(out) == NBD_EXTENDED_REPLY_MAGIC && get_be64(out + 16) == c->offset);
	fuzz_check(get_be64(out + 24) == len - 32 + data);
	return out + 32;
}

static void answer_read(const struct transmission *t, const struct command *c, uint8_t *out)
{
	uint64_t half = t->structured && c->len > 1 ? c->len / 2 : c->len;
	size_t len = reply_data(t, c, c->offset + c->len - half, half, true, out);

	fuzz_check(len <= REPLY_SHORT_MAX);
	check_reply(t, c, out, len, half);
	if (!t->structured)
		return;
	len = reply_hole(t, c, c->offset, half, false, out);
	fuzz_check(len <= REPLY_SHORT_MAX);
	check_reply(t, c, out, len, 0);
}

static void answer_error(const struct transmission *t, const struct command *c, uint32_t error,
			 const char *text, uint8_t *out)
{
	size_t len = reply_error(t, c, error, text, NULL, out);

	fuzz_check(len <= REPLY_HEAD_MAX);
	check_reply(t, c, out, len, 0);
	len = reply_error(t, c, error, text, &c->offset, out);
	fuzz_check(len <= REPLY_HEAD_MAX);
	check_reply(t, c, out, len, 0);
}

/* Extents of any length, made of what bytes there are. */
static size_t make_extents(const uint8_t *bytes, size_t len, struct reply_extent *extents)
{
	size_t n = 0;

	for (; n < MAX_EXTENTS && len >= 3; n++, bytes += 3, len -= 3)
		extents[n] =
			(struct reply_extent){ (uint64_t)bytes[0] << bytes[1] % 64, bytes[2] & 3 };
	return n;
}

/* How much of the range is told, and that it is told well. */
static uint64_t check_extents(const struct transmission *t, const uint8_t *at, const uint8_t *end)
{
	const size_t each = t->extended ? 16 : 8;
	uint64_t sum = 0, flags = UINT64_MAX;

	fuzz_check(get_be32(at) == t->context);
	fuzz_check(!t->extended || get_be32(at + 4) == (end - at - 8) / each);
	for (at += t->extended ? 8 : 4; at < end; at += each) {
		uint64_t extent = t->extended ? get_be64(at) : get_be32(at);
		uint64_t its_flags = t->extended ? get_be64(at + 8) : get_be32(at + 4);

		fuzz_check(extent > 0 && its_flags != flags && sum + extent > sum);
		flags = its_flags;
		sum += extent;
	}
	fuzz_check(at == end);
	return sum;
}

static void answer_extents(const struct transmission *t, const struct command *c,
			   const uint8_t *bytes, size_t bytes_len)
{
	struct reply_extent extents[MAX_EXTENTS];
	size_t n = make_extents(bytes, bytes_len, extents), len;
	size_t size = REPLY_EXTENTS_SIZE(1 + c->cookie % MAX_EXTENTS);
	uint8_t *out = malloc(size);
	uint64_t known = 0, told;

	fuzz_check(out);
	for (size_t i = 0; i < n; i++)
		known = extents[i].len > c->len - known ? c->len : known + extents[i].len;
	len = reply_extents(t, c, extents, n, out, size);
	fuzz_check((len == 0) == (known == 0) && len <= size);
	if (len > 0) {
		told = check_extents(t, check_reply(t, c, out, len, 0), out + len);
		fuzz_check(told <= known);
		fuzz_check(told == known || c->flags & NBD_CMD_FLAG_REQ_ONE ||
			   size - len < (t->extended ? 16 : 8));
	}
	free(out);
}

static void answer(const struct transmission *t, const struct command *c, const uint8_t *rest,
		   size_t rest_len)
{
	uint8_t *out = malloc(REPLY_HEAD_MAX);
	char *text = fuzz_string(rest, rest_len);
	size_t len;

	fuzz_check(out);
	fuzz_check((c->refuse != 0) == (c->why != NULL));
	if (c->refuse) {
		answer_error(t, c, c->refuse, c->why, out);
	} else {
		check_run(t, c);
		answer_error(t, c, nbd_errno(ENOTCONN), text, out);
		if (c->type == NBD_CMD_READ)
			answer_read(t, c, out);
		if (c->type == NBD_CMD_BLOCK_STATUS)
			answer_extents(t, c, rest, rest_len);
	}
	len = reply_done(t, c, out);
	fuzz_check(len <= REPLY_SHORT_MAX);
	check_reply(t, c, out, len, 0);
	free(text);
	free(out);
}

static void serve(const struct transmission *t, const uint8_t *bytes, size_t len)
{
	size_t request_size = transmission_request_size(t);
	struct command command;
	uint8_t *request;
	int ret;

	while (len >= request_size) {
		request = fuzz_copy(bytes, request_size);
		ret = transmission_parse(t, request, &command);
		free(request);
		fuzz_check(ret == 0 || ret == -EPROTO || ret == -EMSGSIZE);
		if (ret < 0 || command.type == NBD_CMD_DISC)
			return;
		bytes += request_size;
		len -= request_size;
		fuzz_check(command.payload <= 2 * (uint64_t)t->facts->max_block + 1);
		answer(t, &command, bytes, len);
		if (command.payload > len)
			return;
		bytes += command.payload;
		len -= command.payload;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct transmission t = { .context = 1 };
	struct export_facts facts = { .name = "" };

	if (size < 4)
		return 0;
	facts.flags = NBD_FLAG_HAS_FLAGS | data[1] << 4 | data[2] % 16;
	facts.min_block = 1U << data[3] % 13;
	facts.max_block = 1U << (12 + data[3] / 13);
	facts.size = (uint64_t)facts.min_block << data[0] / 8;
	t.extended = data[0] & EXTENDED;
	t.structured = t.extended || data[0] & STRUCTURED;
	t.base_allocation = t.structured && data[0] & BASE_ALLOCATION;
	t.facts = &facts;
	serve(&t, data + 4, size - 4);
	return 0;
}
