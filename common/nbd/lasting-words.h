/* lasting-words: how the server behind a gateway is, in the words that the gateway has for it in its
 * export's description: "; server up, away 0 s, lost 2 times, 4096 bytes unflushed, fenced". */
#ifndef NDIO_LASTING_WORDS_H
#define NDIO_LASTING_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "nbd/lasting.h"

/* "up", "waiting", "given up" or "lost". */
const char *lasting_state_word(enum session_state state);

/* Which promise holds: "fenced" or "best effort". */
const char *lasting_grade_word(bool fences);

/* They fit in 128 bytes. */
void lasting_say(const struct lasting_facts *facts, char *text, size_t size);

/* Reads them anywhere in a description. False: they aren't there. The state is the first one that
 * has its word, and times are in whole seconds. */
bool lasting_parse(const char *description, struct lasting_facts *facts);

#endif
