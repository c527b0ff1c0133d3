/* transmission: what each kind of request needs stands in one table; a request is looked at field
 * by field, the first thing that is wrong refuses it. */
#include "transmission.h"

#include <assert.h>
#include <errno.h>

#include "base/utf8.h"

#define STRUCTURED_LEN 20 /* bytes of a reply's head */
#define EXTENDED_LEN   32

/* ---- requests ---- */

static const struct kind {
	bool known;
	bool has_range;      /* else offset and length are zero */
	bool has_data;       /* in the one direction or the other */
	bool writes;         /* changes the export */
	uint16_t needs;      /* NBD_FLAG_* of the export; 0: nothing */
	uint16_t flags;      /* NBD_CMD_FLAG_* that mean something */
	uint16_t behind_end; /* the error of what lies there */
} kinds[] = {
	[NBD_CMD_READ] = { true, true, true, false, 0, NBD_CMD_FLAG_DF, NBD_EINVAL },
	[NBD_CMD_WRITE] = { true, true, true, true, 0, NBD_CMD_FLAG_FUA, NBD_ENOSPC },
	[NBD_CMD_DISC] = { true, false, false, false, 0, 0, 0 },
	[NBD_CMD_FLUSH] = { true, false, false, false, NBD_FLAG_SEND_FLUSH, 0, 0 },
	[NBD_CMD_TRIM] = { true, true, false, true, NBD_FLAG_SEND_TRIM, NBD_CMD_FLAG_FUA,
			   NBD_EINVAL },
	[NBD_CMD_CACHE] = { true, true, false, false, NBD_FLAG_SEND_CACHE, 0, NBD_EINVAL },
	[NBD_CMD_WRITE_ZEROES] = { true, true, false, true, NBD_FLAG_SEND_WRITE_ZEROES,
				   NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
				   NBD_ENOSPC },
	[NBD_CMD_BLOCK_STATUS] = { true, true, false, false, 0, NBD_CMD_FLAG_REQ_ONE, NBD_EINVAL },
};

static const struct kind unknown_kind = { 0 };

static const struct kind *command_kind(uint16_t type)
{
	return type < sizeof(kinds) / sizeof(kinds[0]) ? &kinds[type] : &unknown_kind;
}

/* What else is taken, and left out of account, or is dealt with before. FUA may come with anything
 * from clients that were told of it. */
static uint16_t allowed_flags(const struct transmission *t, const struct command *command)
{
	uint16_t flags = command_kind(command->type)->flags & ~NBD_CMD_FLAG_FUA;
	uint16_t can = t->facts->flags;

	if (can & NBD_FLAG_SEND_FUA)
		flags |= NBD_CMD_FLAG_FUA;
	if (!t->structured || !(can & NBD_FLAG_SEND_DF))
		flags &= ~NBD_CMD_FLAG_DF;
	if (!(can & NBD_FLAG_SEND_FAST_ZERO))
		flags &= ~NBD_CMD_FLAG_FAST_ZERO;
	if (t->extended && command->type == NBD_CMD_WRITE)
		flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
	return flags;
}

static void refuse_command(struct command *command, uint32_t error, const char *why)
{
	if (command->refuse)
		return;
	command->refuse = error;
	command->why = why;
}

static void check_kind(const struct transmission *t, struct command *command)
{
	const struct kind *kind = command_kind(command->type);

	if (!kind->known)
		refuse_command(command, NBD_EINVAL, "the command is unknown");
	if (kind->writes && t->facts->flags & NBD_FLAG_READ_ONLY)
		refuse_command(command, NBD_EPERM, "the export is read-only");
	if ((t->facts->flags & kind->needs) != kind->needs ||
	    (command->type == NBD_CMD_BLOCK_STATUS && !t->base_allocation))
		refuse_command(command, NBD_EINVAL, "the command isn't offered");
	if (command->flags & ~allowed_flags(t, command))
		refuse_command(command, NBD_EINVAL,
			       "a flag is unknown to this command, or isn't offered");
}

static void check_bounds(const struct transmission *t, struct command *command)
{
	const struct kind *kind = command_kind(command->type);
	const struct export_facts *facts = t->facts;

	if (!kind->has_range) {
		if (command->offset || command->len)
			refuse_command(command, NBD_EINVAL, "the command has no range");
		return;
	}
	if (command->len == 0)
		refuse_command(command, NBD_EINVAL, "the length is zero");
	if (kind->has_data && command->len > facts->max_block)
		refuse_command(command, NBD_EINVAL, "the length is above the largest block size");
	if (command->offset % facts->min_block || command->len % facts->min_block)
		refuse_command(command, NBD_EINVAL,
			       "the range isn't aligned to the smallest block size");
	if (command->offset > facts->size || command->len > facts->size - command->offset)
		refuse_command(command, kind->behind_end, "the range goes beyond the export's end");
}

/* Reads the fields, of either form. */
static int read_fields(const struct transmission *t, const uint8_t *request,
		       struct command *command)
{
	uint32_t magic = t->extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC;

	if (get_be32(request) != magic)
		return -EPROTO;
	*command = (struct command){
		.flags = get_be16(request + 4),
		.type = get_be16(request + 6),
		.cookie = get_be64(request + 8),
		.offset = get_be64(request + 16),
		.len = t->extended ? get_be64(request + 24) : get_be32(request + 24),
	};
	return 0;
}

/* How much follows. A write has its data behind it. With extended headers a flag tells of them, which it
 * must have, but qemu (10.0) doesn't set it; others that have the flag are passed over. What is longer
 * than twice of what is allowed is no mistake, and not even that. */
static int read_payload(const struct transmission *t, struct command *command)
{
	bool has_payload = command->type == NBD_CMD_WRITE ||
			   (t->extended && command->flags & NBD_CMD_FLAG_PAYLOAD_LEN);

	command->payload = has_payload ? command->len : 0;
	return command->payload / 2 > t->facts->max_block ? -EMSGSIZE : 0;
}

int transmission_parse(const struct transmission *t, const uint8_t *request,
		       struct command *command)
{
	int ret = read_fields(t, request, command);

	if (ret == 0)
		ret = read_payload(t, command);
	if (ret < 0 || command->type == NBD_CMD_DISC)
		return ret;
	check_kind(t, command);
	if (!command->refuse)
		check_bounds(t, command);
	command->flags &= command_kind(command->type)->flags;
	return 0;
}

uint32_t nbd_errno(int errnum)
{
	static const struct {
		int errnum;
		uint32_t nbd;
	} known[] = {
		{ 0, NBD_SUCCESS },           { EPERM, NBD_EPERM },
		{ EROFS, NBD_EPERM },         { ENOMEM, NBD_ENOMEM },
		{ EINVAL, NBD_EINVAL },       { ENOSPC, NBD_ENOSPC },
		{ EDQUOT, NBD_ENOSPC },       { EFBIG, NBD_ENOSPC },
		{ EOVERFLOW, NBD_EOVERFLOW }, { EOPNOTSUPP, NBD_ENOTSUP },
		{ ESHUTDOWN, NBD_ESHUTDOWN },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].errnum == errnum)
			return known[i].nbd;
	return NBD_EIO;
}

/* ---- replies ---- */

static uint8_t *put_simple(const struct command *command, uint32_t error, uint8_t *out)
{
	out = put_be32(out, NBD_SIMPLE_REPLY_MAGIC);
	out = put_be32(out, error);
	return put_be64(out, command->cookie);
}

/* A chunk of either form, with so many bytes of payload. */
static uint8_t *put_chunk(const struct transmission *t, const struct command *command,
			  uint16_t type, bool done, uint64_t payload, uint8_t *out)
{
	assert(t->extended || payload <= UINT32_MAX);
	out = put_be32(out, t->extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
	out = put_be16(out, done ? NBD_REPLY_FLAG_DONE : 0);
	out = put_be16(out, type);
	out = put_be64(out, command->cookie);
	if (!t->extended)
		return put_be32(out, payload);
	return put_be64(put_be64(out, command->offset), payload);
}

static bool in_range(const struct command *command, uint64_t offset, uint32_t len)
{
	return offset >= command->offset && len > 0 && len <= command->len &&
	       offset - command->offset <= command->len - len;
}

size_t reply_done(const struct transmission *t, const struct command *command, uint8_t *out)
{
	uint8_t *end = t->structured ? put_chunk(t, command, NBD_REPLY_TYPE_NONE, true, 0, out) :
				       put_simple(command, NBD_SUCCESS, out);

	return end - out;
}

size_t reply_data(const struct transmission *t, const struct command *command, uint64_t offset,
		  uint32_t len, bool done, uint8_t *out)
{
	uint8_t *end;

	assert(in_range(command, offset, len));
	if (!t->structured) {
		assert(len == command->len && done);
		return put_simple(command, NBD_SUCCESS, out) - out;
	}
	end = put_chunk(t, command, NBD_REPLY_TYPE_OFFSET_DATA, done, 8 + (uint64_t)len, out);
	return put_be64(end, offset) - out;
}

size_t reply_hole(const struct transmission *t, const struct command *command, uint64_t offset,
		  uint32_t len, bool done, uint8_t *out)
{
	uint8_t *end;

	assert(t->structured && in_range(command, offset, len));
	end = put_chunk(t, command, NBD_REPLY_TYPE_OFFSET_HOLE, done, 12, out);
	return put_be32(put_be64(end, offset), len) - out;
}

size_t reply_error(const struct transmission *t, const struct command *command, uint32_t error,
		   const char *text, const uint64_t *offset, uint8_t *out)
{
	size_t len = text ? utf8_fit(text, REPLY_TEXT_MAX) : 0;
	uint16_t type = offset ? NBD_REPLY_TYPE_ERROR_OFFSET : NBD_REPLY_TYPE_ERROR;
	uint8_t *end;

	assert(error != NBD_SUCCESS);
	if (!t->structured)
		return put_simple(command, error, out) - out;
	end = put_chunk(t, command, type, true, 6 + len + (offset ? 8 : 0), out);
	end = put_be16(put_be32(end, error), len);
	if (len > 0)
		memcpy(end, text, len);
	end += len;
	return (offset ? put_be64(end, *offset) : end) - out;
}

/* ---- block status ---- */

/* The next run of extents that are alike, from *i on, of what is left to tell. */
static struct reply_extent merge(const struct reply_extent *extents, size_t n, size_t *i,
				 uint64_t left)
{
	struct reply_extent run = { 0 };

	for (; *i < n && run.len < left; (*i)++) {
		uint64_t len = extents[*i].len;

		if (run.len > 0 && len > 0 && extents[*i].flags != run.flags)
			break;
		if (len == 0)
			continue;
		run.flags = extents[*i].flags;
		run.len = len < left - run.len ? run.len + len : left;
	}
	return run;
}

static uint8_t *put_extent(const struct transmission *t, const struct reply_extent *extent,
			   uint8_t *out)
{
	if (t->extended)
		return put_be64(put_be64(out, extent->len), extent->flags);
	assert(extent->len <= UINT32_MAX);
	return put_be32(put_be32(out, extent->len), extent->flags);
}

size_t reply_extents(const struct transmission *t, const struct command *command,
		     const struct reply_extent *extents, size_t n, uint8_t *out, size_t size)
{
	const size_t head = t->extended ? EXTENDED_LEN + 8 : STRUCTURED_LEN + 4;
	const size_t each = t->extended ? 16 : 8;
	uint8_t *end = out + head, *at;
	uint64_t told = 0;
	size_t i = 0, nr = 0;

	assert(t->structured && size >= head + each);
	while (size - (end - out) >= each) {
		struct reply_extent run = merge(extents, n, &i, command->len - told);

		if (run.len == 0)
			break;
		end = put_extent(t, &run, end);
		told += run.len;
		nr++;
		if (command->flags & NBD_CMD_FLAG_REQ_ONE)
			break;
	}
	if (nr == 0)
		return 0;
	at = put_chunk(t, command,
		       t->extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS,
		       true, end - out - (t->extended ? EXTENDED_LEN : STRUCTURED_LEN), out);
	at = put_be32(at, t->context);
	if (t->extended)
		put_be32(at, nr);
	return end - out;
}
