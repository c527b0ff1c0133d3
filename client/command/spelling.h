/* spelling: which word was meant. */
#ifndef NDIO_SPELLING_H
#define NDIO_SPELLING_H

#include <stddef.h>

/* How many letters are missing, too many, wrong, or swapped with their neighbour, to make one of the
 * other. Words of more than 31 bytes are as far from each other as can be: SIZE_MAX. */
size_t spelling_distance(const char *a, const char *b);

/* Is the one so near the other that it may be meant by it? */
int spelling_is_near(const char *typed, const char *word);

#endif
