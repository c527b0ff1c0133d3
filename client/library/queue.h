/* queue: where completions wait to be fetched by ndio_queue_reap(). */
#ifndef NDIO_QUEUE_H
#define NDIO_QUEUE_H

#include <stdbool.h>

#include "library/ndio.h"

/* An entry, inside whatever completes. Linked here from queue_add() until it is reaped. */
struct queue_entry {
	struct queue_entry *next;
	struct ndio_event event;
	bool touches; /* reaped() touches memory of the program's: not in a callback */
	/* Called when it is fetched, in the fetching thread, before the event is handed out:
	 * finishes what only that thread may do, and frees. event.error may be changed before.
	 * event is NULL when the queue is freed and nobody will know: only frees. */
	void (*reaped)(struct queue_entry *entry, struct ndio_event *event);
};

/* Any thread; allocates nothing. */
void queue_add(struct ndio_queue *queue, struct queue_entry *entry);

/* The same, but its descriptor is told by this thread's next queue_tell(), which must follow soon:
 * waking somebody for each entry costs more than the entry. */
void queue_add_later(struct ndio_queue *queue, struct queue_entry *entry);
void queue_tell(void);

#endif
