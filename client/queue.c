#include "queue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "message.h"

struct ndio_queue {
	int fd; /* an eventfd, readable exactly while there are entries */
	pthread_mutex_t lock;
	struct queue_entry *first, **last;
};

int ndio_queue_new(struct ndio_queue **result)
{
	struct ndio_queue *queue = calloc(1, sizeof(*queue));

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

void ndio_queue_free(struct ndio_queue *queue)
{
	struct ndio_event event;

	if (!queue)
		return;
	while (ndio_queue_reap(queue, &event, 1, 0) > 0)
		;
	close(queue->fd);
	pthread_mutex_destroy(&queue->lock);
	free(queue);
}

int ndio_queue_fd(const struct ndio_queue *queue)
{
	return queue->fd;
}

void queue_add(struct ndio_queue *queue, struct queue_entry *entry)
{
	const uint64_t one = 1;

	entry->next = NULL;
	pthread_mutex_lock(&queue->lock);
	/* Under the lock, so that the descriptor never says less than there is, and so that the
	 * queue isn't freed by a reaper that has seen the entry while this still writes. */
	if (!queue->first)
		while (write(queue->fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	*queue->last = entry;
	queue->last = &entry->next;
	pthread_mutex_unlock(&queue->lock);
}

/* Takes up to max entries off, in the order of their completion. */
static struct queue_entry *take(struct ndio_queue *queue, int max)
{
	struct queue_entry *list, **end = &list;
	uint64_t count;

	pthread_mutex_lock(&queue->lock);
	list = queue->first;
	for (int i = 0; i < max && *end; i++)
		end = &(*end)->next;
	queue->first = *end;
	*end = NULL;
	if (!queue->first) {
		queue->last = &queue->first;
		/* Nonblocking: where there was no entry there is nothing to read. */
		while (list && read(queue->fd, &count, sizeof(count)) < 0 && errno == EINTR)
			;
	}
	pthread_mutex_unlock(&queue->lock);
	return list;
}

int ndio_queue_reap(struct ndio_queue *queue, struct ndio_event *events, int max, int timeout_ms)
{
	struct queue_entry *list, *next;
	int count = 0;

	if (max <= 0)
		return message_set(EINVAL, "no room for events");
	list = take(queue, max);
	while (!list && timeout_ms != 0) {
		struct pollfd fd = { .fd = queue->fd, .events = POLLIN };
		int ret = poll(&fd, 1, timeout_ms);

		if (ret < 0)
			return message_set(errno, "waiting for completions: %s", strerror(errno));
		list = take(queue, max);
		if (timeout_ms > 0)
			break;
	}
	for (; list; list = next) {
		next = list->next;
		list->reaped(list, &events[count++]);
	}
	return count;
}
