/* todo: what of a disk is still to be copied: runs of data and of zeroes, in order. Bounded.
 * Not thread-safe. */
#ifndef NDIO_TODO_H
#define NDIO_TODO_H

#include <stdbool.h>
#include <stdint.h>

#define TODO_MAX 4096 /* runs */

struct todo {
	uint32_t block; /* bytes, a power of two: zeroes keep to its boundaries */
	uint64_t size;  /* bytes, of the disk */
	uint64_t end;   /* bytes: what is known so far */
	uint64_t limit; /* bytes: nothing from here on is taken yet */
	unsigned first, count;
	struct {
		uint64_t start, end;
		bool zero;
	} run[TODO_MAX];
};

/* Adds a run behind the last. -ENOBUFS when there is no room: ask again from todo->end on.
 * -EINVAL if it isn't what follows. */
int todo_add(struct todo *todo, uint64_t offset, uint64_t len, bool zero);

/* All that isn't known is data. */
void todo_add_rest(struct todo *todo);

/* Takes the next piece: data up to the next multiple of max_data, a power of two, or at most
 * max_zero zeroes. False when nothing is known. */
bool todo_take(struct todo *todo, uint64_t max_data, uint64_t max_zero, uint64_t *offset,
	       uint64_t *len, bool *zero);

#endif
