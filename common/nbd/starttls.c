/* starttls: GREETING -> REPLY -> OVER (TLS may begin), or REPLY -> REASON -> an error. Each byte is
 * looked at when it comes, so that garbage is found by the first that is wrong, and no server that
 * isn't one is waited for. */
#include "nbd/starttls.h"

#include <assert.h>
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define MAGIC_LEN    8
#define GREETING_LEN 18   /* NBDMAGIC, IHAVEOPT, flags */
#define REPLY_LEN    20   /* magic, option, type, length */
#define REASON_MAX   4096 /* the protocol's limit for a string */

#define OPT_STARTTLS 5
#define REP_ACK      1
#define REP_ERROR    0x80000000

#define FLAG_FIXED_NEWSTYLE 1
#define FLAG_NO_ZEROES      2

static const uint8_t nbd_magic[MAGIC_LEN + 1] = "NBDMAGIC";
static const uint8_t opt_magic[MAGIC_LEN + 1] = "IHAVEOPT";
static const uint8_t old_magic[MAGIC_LEN] = { 0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53 };
static const uint8_t reply_magic[MAGIC_LEN] = { 0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9 };

/* Can what has come still become this, at this place? */
static bool may_be(const struct starttls *s, size_t at, const uint8_t magic[MAGIC_LEN])
{
	size_t have = s->have > at ? s->have - at : 0;

	return memcmp(s->bytes + at, magic, have < MAGIC_LEN ? have : MAGIC_LEN) == 0;
}

static uint32_t number_at(const struct starttls *s, size_t at)
{
	uint32_t number;

	memcpy(&number, s->bytes + at, sizeof(number));
	return be32toh(number);
}

static int garbage(struct error *err)
{
	return error_set(err, EPROTO, "what answers is no NBD server");
}

/* ---- the greeting ---- */

static void put_number(struct starttls *s, size_t at, uint32_t number)
{
	number = htobe32(number);
	memcpy(s->send + at, &number, sizeof(number));
}

static int ask_for_tls(struct starttls *s)
{
	put_number(s, 0, s->flags);
	memcpy(s->send + 4, opt_magic, MAGIC_LEN);
	put_number(s, 12, OPT_STARTTLS);
	put_number(s, 16, 0);
	s->have = 0;
	s->state = STARTTLS_REPLY;
	return STARTTLS_SEND;
}

static int look_at_greeting(struct starttls *s, struct error *err)
{
	uint16_t flags;

	if (!may_be(s, 0, nbd_magic))
		return garbage(err);
	if (s->have >= 2 * MAGIC_LEN && may_be(s, MAGIC_LEN, old_magic))
		return error_set(err, ENOTSUP, "the server has no TLS: it speaks NBD's old style");
	if (!may_be(s, MAGIC_LEN, opt_magic) && !may_be(s, MAGIC_LEN, old_magic))
		return garbage(err);
	if (s->have < GREETING_LEN)
		return 0;
	memcpy(&flags, s->bytes + 2 * MAGIC_LEN, sizeof(flags));
	s->flags = be16toh(flags) & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
	if (!(s->flags & FLAG_FIXED_NEWSTYLE))
		return error_set(err, ENOTSUP,
				 "the server has no TLS: it speaks NBD's newstyle, "
				 "but not the fixed one");
	return ask_for_tls(s);
}

/* ---- the reply ---- */

static int begin_tls(struct starttls *s, struct error *err)
{
	if (number_at(s, 16) != 0)
		return garbage(err);
	s->state = STARTTLS_OVER;
	return STARTTLS_BEGIN;
}

static const char *refusal_text(uint32_t type)
{
	switch (type - REP_ERROR) {
	case 1:
		return "it has none";
	case 2:
		return "its policy forbids it";
	case 3:
		return "it finds the request invalid";
	case 4:
		return "it was built without";
	case 7:
		return "it is shutting down";
	default:
		return "for a reason that NBD has no word for";
	}
}

static int tell_refusal(const struct starttls *s, struct error *err)
{
	bool says = s->reason[0];

	return error_set(err, ENOTSUP, "the server refuses TLS: %s%s%s%s", refusal_text(s->refusal),
			 says ? " (it says: " : "", s->reason, says ? ")" : "");
}

static int look_at_reply(struct starttls *s, struct error *err)
{
	if (!may_be(s, 0, reply_magic))
		return garbage(err);
	if (s->have < REPLY_LEN)
		return 0;
	if (number_at(s, 8) != OPT_STARTTLS)
		return garbage(err);
	if (number_at(s, 12) == REP_ACK)
		return begin_tls(s, err);
	s->refusal = number_at(s, 12);
	s->reason_len = number_at(s, 16);
	if (!(s->refusal & REP_ERROR) || s->reason_len > REASON_MAX)
		return garbage(err);
	s->have = 0;
	s->state = STARTTLS_REASON;
	return s->reason_len ? 0 : tell_refusal(s, err);
}

static void keep_reason(struct starttls *s, uint8_t c)
{
	if (s->have < sizeof(s->reason) - 1)
		s->reason[s->have] = c < 0x80 && isprint(c) ? c : '?';
	s->have++;
}

/* ---- both ---- */

static int take_byte(struct starttls *s, uint8_t c, struct error *err)
{
	if (s->state == STARTTLS_REASON) {
		keep_reason(s, c);
		return s->have < s->reason_len ? 0 : tell_refusal(s, err);
	}
	s->bytes[s->have++] = c;
	return s->state == STARTTLS_GREETING ? look_at_greeting(s, err) : look_at_reply(s, err);
}

int starttls_feed(struct starttls *s, const uint8_t *bytes, size_t len, struct error *err)
{
	int ret = 0;

	assert(s->state != STARTTLS_OVER);
	while (len > 0 && ret == 0) {
		ret = take_byte(s, *bytes++, err);
		len--;
	}
	/* A server waits for what we send next. More than it said by then was put in by someone
	 * else, to be taken for what came encrypted. */
	if (ret > 0 && len > 0)
		return error_set(err, EPROTO,
				 "something was sent before TLS that is no part of "
				 "NBD: the connection may be under attack");
	return ret;
}
