/* number: numbers and sizes as people write and read them. */
#ifndef NDIO_NUMBER_H
#define NDIO_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* A whole decimal number of at most max. */
bool parse_number(const char *text, uint64_t max, uint64_t *number);

/* Bytes, with a unit: K, M, G, T, P, E or KiB, MiB, ... for powers of 1024, KB, MB, ... for powers of
 * 1000, in capitals or not. At most INT64_MAX. */
bool parse_size(const char *text, uint64_t *bytes);

/* "1.5 GiB", for people. text has room for 16 bytes. */
const char *size_text(uint64_t bytes, char text[16]);

#endif
