/* utf8: texts of the NBD protocol, and what is made of them: UTF-8 without zero bytes. */
#ifndef NDIO_UTF8_H
#define NDIO_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many bytes the character has that is first of these, or 0 if that is none. len > 0. */
size_t utf8_character(const uint8_t *bytes, size_t len);

/* Are these bytes such a text? As RFC 3629 has it: nothing overlong, no surrogates. */
bool utf8_is_text(const uint8_t *bytes, size_t len);

/* How many bytes of a string to take so that they are at most max, and no character is cut. */
size_t utf8_fit(const char *string, size_t max);

#endif
