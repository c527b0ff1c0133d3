/* say: what the server tells its user: a line on standard error, or in the system's log. */
#ifndef NDIO_SERVE_SAY_H
#define NDIO_SERVE_SAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/notice.h"

/* "ndio serve: " and the message, put together as by printf, without what isn't printable: names may be a
 * client's. Any thread; a line stays in one piece. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* From now on to the system's log, by the name of the program. */
void say_to_log(void);

/* Says what isn't an error. Any thread. */
extern const struct notice serve_notice;

/* What a client can have said again and again is said ten times a second, and then how many more there were:
 * when the next is said, or when it is gone on with. Of all tellers a hundred lines are, so that nobody has
 * more by coming again. One thread at a time each. */
struct teller {
	int64_t since; /* a time of clock_ms() */
	unsigned said; /* since then; 0: nothing ever */
	unsigned left_out;
};

/* who is in front of the number of those that weren't said. */
void teller_say(struct teller *teller, const char *who, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Is there a number to be said? */
bool teller_has_more(const struct teller *teller);

/* When there are no more of them: says how many lines of all were left out. */
void tellers_end(void);

/* Says it, if the second is over, or now. */
void teller_go_on(struct teller *teller, const char *who, bool now);

#endif
