/* session-memory: where the log of a session lies: records with their data, in one ring.
 *
 * One thread at a time; what it gave out may be written without the lock that is held around its
 * calls. It asks nobody for memory once it is there. */
#ifndef NDIO_SESSION_MEMORY_H
#define NDIO_SESSION_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "nbd/session.h"

struct session_memory {
	uint8_t *base;
	size_t size;       /* bytes */
	size_t head, tail; /* the next record is put at head; the oldest is at tail */
	size_t used;       /* bytes from tail to head, what is free between them too */
};

/* For records that cost so many bytes in all, as a session counts, each with max_len at the most.
 * Memory is taken as it is used, and kept; ready: all of it at once. 0, or a negative errno with a
 * message without a name. */
int session_memory_init(struct session_memory *memory, uint64_t bytes, uint64_t max_len, bool ready,
			struct error *err);
void session_memory_destroy(struct session_memory *memory); /* harmless on a zeroed struct */

/* A record with room for len bytes of data at op.data; the rest of it is zeroes. NULL: there is no
 * room for it in one piece, which takes that others were given back in quite another order. */
struct session_record *session_memory_take(struct session_memory *memory, uint64_t len);
void session_memory_give(struct session_memory *memory, struct session_record *record);

/* Fills it with that many bytes. Any thread, without the lock. */
void session_memory_fill(struct session_record *record, const void *data, size_t len);

#endif
