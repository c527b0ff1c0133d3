/* utf8: texts of the NBD protocol, which are UTF-8 without zero bytes. */
#ifndef NDIO_SERVE_UTF8_H
#define NDIO_SERVE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Are these bytes such a text? As RFC 3629 has it: nothing overlong, no surrogates. */
bool utf8_is_text(const uint8_t *bytes, size_t len);

/* How many bytes of a string to take so that they are at most max, and no character is cut. */
size_t utf8_fit(const char *string, size_t max);

#endif
