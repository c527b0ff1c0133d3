#include "library/queue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "library/callback.h"
#include "library/message.h"

struct ndio_queue {
	int fd; /* an eventfd, readable while there are entries, and perhaps once more */

	/* Entries come in by a stack that any thread pushes to without a lock, so that a worker
	 * never waits for a program that fetches slowly. */
	struct queue_entry *_Atomic inbox;
	atomic_bool signaled; /* fd was written since it was read last */
	atomic_uint adding;   /* threads that still have to signal an entry */

	pthread_mutex_t lock;              /* of those who fetch */
	struct queue_entry *first, **last; /* taken from the inbox, oldest first */
};

int ndio_queue_new(struct ndio_queue **result)
{
	struct ndio_queue *queue;

	if (!result)
		return message_set(EINVAL, "no place for the completion queue");
	*result = NULL;
	queue = calloc(1, sizeof(*queue));
	if (!queue)
		return message_set(ENOMEM, "no memory for a completion queue");
	queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->fd < 0) {
		int errnum = errno;

		free(queue);
		return message_set(errnum, "no descriptor for a completion queue: %s",
				   strerror(errnum));
	}
	pthread_mutex_init(&queue->lock, NULL);
	queue->last = &queue->first;
	*result = queue;
	return 0;
}

int ndio_queue_fd(const struct ndio_queue *queue)
{
	return queue ? queue->fd : message_set(EINVAL, "no completion queue");
}

static void signal_fd(struct ndio_queue *queue)
{
	const uint64_t one = 1;

	if (!atomic_exchange(&queue->signaled, true))
		while (write(queue->fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
}

/* The queue that this thread has yet to tell of an entry. */
static _Thread_local struct ndio_queue *untold;

void queue_tell(void)
{
	if (!untold)
		return;
	signal_fd(untold);
	atomic_fetch_sub(&untold->adding, 1);
	untold = NULL;
}

void queue_add_later(struct ndio_queue *queue, struct queue_entry *entry)
{
	struct queue_entry *head = atomic_load(&queue->inbox);

	if (untold != queue) {
		queue_tell();
		/* Whoever fetches the entry may free the queue, but not before it was told. */
		atomic_fetch_add(&queue->adding, 1);
		untold = queue;
	}
	do
		entry->next = head;
	while (!atomic_compare_exchange_weak(&queue->inbox, &head, entry));
}

void queue_add(struct ndio_queue *queue, struct queue_entry *entry)
{
	queue_add_later(queue, entry);
	queue_tell();
}

/* Moves the inbox behind what was taken before. Under the lock. */
static void empty_inbox(struct ndio_queue *queue)
{
	struct queue_entry *stack = atomic_exchange(&queue->inbox, NULL);
	struct queue_entry *oldest = NULL, *next;

	for (; stack; stack = next) {
		next = stack->next;
		stack->next = oldest;
		oldest = stack;
	}
	*queue->last = oldest;
	while (*queue->last)
		queue->last = &(*queue->last)->next;
}

/* Nothing is there: the descriptor may be quiet, unless something has come since. Whoever adds
 * first pushes and then looks at the flag; here it is the other way round. */
static void queue_quiet(struct ndio_queue *queue)
{
	uint64_t count;

	while (read(queue->fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
	atomic_store(&queue->signaled, false);
	empty_inbox(queue);
	if (queue->first)
		signal_fd(queue);
}

/* Takes up to max entries off, in the order of their completion; unless touch is set only up to the
 * first for which memory of the program's is touched. */
static struct queue_entry *queue_take(struct ndio_queue *queue, int max, bool touch)
{
	struct queue_entry *list, **end = &list;

	pthread_mutex_lock(&queue->lock);
	empty_inbox(queue);
	if (!queue->first)
		queue_quiet(queue);
	list = queue->first;
	for (int i = 0; i < max && *end && (touch || !(*end)->touches); i++)
		end = &(*end)->next;
	queue->first = *end;
	*end = NULL;
	if (!queue->first)
		queue->last = &queue->first;
	pthread_mutex_unlock(&queue->lock);
	return list;
}

void ndio_queue_free(struct ndio_queue *queue)
{
	struct queue_entry *entry;

	if (!queue)
		return;
	/* Or two threads wait for ever that each free what the other has to tell of. */
	queue_tell();
	while ((entry = queue_take(queue, 1, true)))
		entry->reaped(entry, NULL);
	while (atomic_load(&queue->adding))
		sched_yield();
	close(queue->fd);
	pthread_mutex_destroy(&queue->lock);
	free(queue);
}

/* Milliseconds, 0 when it is past. */
static int until(int64_t deadline)
{
	int64_t left = deadline - clock_ms();

	return left > 0 ? left : 0;
}

int ndio_queue_reap(struct ndio_queue *queue, struct ndio_event *events, int max, int timeout_ms)
{
	bool touch = !callback_is_running();
	struct queue_entry *list, *next;
	int64_t deadline = 0;
	int count = 0, left = timeout_ms;

	if (!queue)
		return message_set(EINVAL, "no completion queue");
	if (!events || max <= 0)
		return message_set(EINVAL, "no room for events");
	if (timeout_ms != 0 && callback_refuse("waiting for completions") < 0)
		return -EDEADLK;
	list = queue_take(queue, max, touch);
	if (!list && timeout_ms > 0)
		deadline = clock_ms() + timeout_ms;
	while (!list && left != 0) {
		struct pollfd fd = { .fd = queue->fd, .events = POLLIN };
		int ret = poll(&fd, 1, left);

		if (ret < 0)
			return message_set(errno, "waiting for completions: %s", strerror(errno));
		list = queue_take(queue, max, touch);
		/* It may have been readable for what was fetched before. */
		if (timeout_ms > 0)
			left = until(deadline);
	}
	for (; list; list = next) {
		next = list->next;
		list->reaped(list, &events[count++]);
	}
	return count;
}
