#include "base/printable.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* How many bytes of UTF-8 from here on are one character that isn't for print, or 0. What is no UTF-8 is left
 * alone: names of files may be in anything. */
static size_t obeyed(const unsigned char *c)
{
	if (iscntrl(*c))
		return 1;
	if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
		return 2;
	/* U+200E, U+200F, U+2028 to U+202E, and U+2066 to U+2069. */
	if (c[0] == 0xe2 && c[1] == 0x80 &&
	    (c[2] == 0x8e || c[2] == 0x8f || (c[2] >= 0xa8 && c[2] <= 0xae)))
		return 3;
	return c[0] == 0xe2 && c[1] == 0x81 && c[2] >= 0xa6 && c[2] <= 0xa9 ? 3 : 0;
}

char *printable(const char *text, char *to, size_t size)
{
	snprintf(to, size, "%s", text);
	for (unsigned char *c = (unsigned char *)to; *c;) {
		size_t len = obeyed(c);

		memset(c, '?', len);
		c += len ? len : 1;
	}
	return to;
}
