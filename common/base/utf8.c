#include "base/utf8.h"

#include <string.h>

/* Characters of so many bytes: the first one looks so, and the character is at least that. */
static const struct {
	uint8_t mask, first;
	uint32_t least;
} lengths[] = {
	{ 0x80, 0x00, 1 },
	{ 0xe0, 0xc0, 0x80 },
	{ 0xf0, 0xe0, 0x800 },
	{ 0xf8, 0xf0, 0x10000 },
};

static bool is_continuation(uint8_t byte)
{
	return (byte & 0xc0) == 0x80;
}

size_t utf8_character(const uint8_t *bytes, size_t len)
{
	uint32_t code;
	size_t n = 0;

	while (n < 4 && (bytes[0] & lengths[n].mask) != lengths[n].first)
		n++;
	if (n == 4 || n >= len)
		return 0;
	code = bytes[0] & (uint8_t)~lengths[n].mask;
	for (size_t i = 1; i <= n; i++) {
		if (!is_continuation(bytes[i]))
			return 0;
		code = code << 6 | (bytes[i] & 0x3f);
	}
	if (code < lengths[n].least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return n + 1;
}

bool utf8_is_text(const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		size_t n = utf8_character(bytes, len);

		if (n == 0)
			return false;
		bytes += n;
		len -= n;
	}
	return true;
}

size_t utf8_fit(const char *string, size_t max)
{
	size_t len = strnlen(string, max);

	if (string[len] != '\0')
		while (len > 0 && is_continuation(string[len]))
			len--;
	return len;
}
