/* number: the seconds that options take; and other numbers, see base/number. */
#ifndef NDIO_TERMINAL_NUMBER_H
#define NDIO_TERMINAL_NUMBER_H

#include "base/number.h"

/* The value of --answer-timeout, in seconds; and what to say where it is wrong. */
bool parse_answer_timeout(const char *text, unsigned *seconds);
#define ANSWER_TIMEOUT_WRONG "--answer-timeout takes seconds, from 1 to 86400"

/* Likewise of --reconnect. */
bool parse_reconnect(const char *text, unsigned *seconds);
#define RECONNECT_WRONG "--reconnect takes seconds, up to 86400; 0: not at all"

#endif
