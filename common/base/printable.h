/* printable: text of others, as a terminal and a log may have it. */
#ifndef NDIO_PRINTABLE_H
#define NDIO_PRINTABLE_H

#include <stddef.h>

/* Copies text, cut to fit: names of files, and what the other end says, can be hostile to who reads them.
 * What isn't printed but obeyed becomes '?': control characters, and those of UTF-8 that turn the direction
 * of what follows or begin a line. Returns to. */
char *printable(const char *text, char *to, size_t size);

#endif
