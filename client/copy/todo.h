/* todo: what of a disk is still to be copied: runs of data, of zeroes and of what is left out, in order. Bounded.
 * Not thread-safe. */
#ifndef NDIO_TODO_H
#define NDIO_TODO_H

#include <stdbool.h>
#include <stdint.h>

#define TODO_MAX 4096 /* runs */

enum todo_kind {
	TODO_DATA,
	TODO_ZERO, /* it reads as zeroes */
	TODO_SKIP, /* likewise, and the destination keeps what it has there */
};

struct todo {
	uint32_t block; /* bytes, a power of two: all but data keeps to its boundaries */
	uint64_t size;  /* bytes, of the disk */
	uint64_t end;   /* bytes: what is known so far */
	uint64_t limit; /* bytes: nothing from here on is taken yet */
	unsigned first, count;
	struct {
		uint64_t start, end;
		enum todo_kind kind;
	} run[TODO_MAX];
};

/* Adds a run behind the last. -ENOBUFS when there is no room: ask again from todo->end on.
 * -EINVAL if it isn't what follows. */
int todo_add(struct todo *todo, uint64_t offset, uint64_t len, enum todo_kind kind);

/* All that isn't known is data. */
void todo_add_rest(struct todo *todo);

/* Takes the next piece: data up to the next multiple of max_data, a power of two, or at most
 * max_other of all else. False when nothing is known. */
bool todo_take(struct todo *todo, uint64_t max_data, uint64_t max_other, uint64_t *offset,
	       uint64_t *len, enum todo_kind *kind);

#endif
