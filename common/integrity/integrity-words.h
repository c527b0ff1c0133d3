/* integrity-words: what was found in a disk with integrity since it was opened, in the words that a gateway has
 * for it in its export's description: "; integrity trusted, 3 bad blocks, 7 bad reads, 1 stale
 * areas". */
#ifndef NDIO_INTEGRITY_WORDS_H
#define NDIO_INTEGRITY_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct integrity_found {
	bool trusted;         /* there is a trust file */
	uint64_t bad_blocks;  /* that were read and weren't what was written there */
	uint64_t bad_reads;   /* how often one of them was read */
	uint64_t stale_areas; /* that aren't what the trust file says */
};

/* They fit in 128 bytes. */
void integrity_say(const struct integrity_found *found, char *text, size_t size);

/* Reads them anywhere in a description. False: they aren't there. */
bool integrity_parse(const char *description, struct integrity_found *found);

#endif
