/* silence: has a server that owes answers been silent for too long?
 *
 * Progress is a whole answer, or, on a slow line, as many bytes as any line moves; but no more of
 * them than the answers that are due can have. So neither a byte a second nor a stream without an
 * end keeps anybody waiting, and a large answer that takes its time isn't cut. Only bookkeeping:
 * times are of clock_ms(), and come in. */
#ifndef NDIO_SILENCE_H
#define NDIO_SILENCE_H

#include <stdbool.h>
#include <stdint.h>

#define SILENCE_RATE 2048 /* bytes a second: what moves no faster doesn't move */

struct silence {
	int64_t limit;     /* ms */
	unsigned owed;     /* answers */
	uint64_t due;      /* bytes that they carry */
	int64_t since;     /* the last progress, or when the first of them was asked for */
	uint64_t moved;    /* bytes in both directions since then, as far as they were counted */
	uint64_t received; /* and from the server since its last answer */
};

/* Asked for an answer that carries so many bytes; got it, or it failed. */
void silence_asked(struct silence *silence, uint64_t bytes, int64_t now);
void silence_answered(struct silence *silence, uint64_t bytes, int64_t now);

/* Is it time to count what moves? While answers come nobody needs to know. */
bool silence_is_late(const struct silence *silence, int64_t now);
void silence_moved(struct silence *silence, uint64_t sent, uint64_t received);

/* Milliseconds until what moves should be counted and silence_is_over() be asked; -1 if nothing is
 * owed. */
int64_t silence_left(const struct silence *silence, int64_t now);

/* So long after the last time it was looked at again. If that is much longer than it was meant to
 * be, this process had stopped, and what the server said meanwhile isn't read yet. */
void silence_looked(struct silence *silence, int64_t ms);

/* Was nothing heard for so long that the server is lost? */
bool silence_is_over(struct silence *silence, int64_t now);

#endif
