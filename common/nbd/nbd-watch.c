/* nbd-watch: a thread that looks at all connections a few times a second, with the lock held, and
 * shuts the sockets of those that are late. Who enters libnbd sets until before and 0 after, without
 * the lock. A descriptor stays open while it is in the list, so another's is never shut. */
#include "nbd/nbd-watch.h"

#include <assert.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/thread.h"

void nbd_watch_init(struct nbd_watch *watch)
{
	memset(watch, 0, sizeof(*watch));
	pthread_mutex_init(&watch->lock, NULL);
	pthread_cond_init(&watch->changed, NULL);
}

void nbd_watch_destroy(struct nbd_watch *watch)
{
	assert(watch->users == 0 && !watch->first);
	pthread_cond_destroy(&watch->changed);
	pthread_mutex_destroy(&watch->lock);
}

bool nbd_watched_is_over(struct nbd_watched *watched, int64_t now, int64_t ms)
{
	int64_t until = atomic_load_explicit(&watched->until, memory_order_relaxed);

	if (until != watched->seen)
		watched->grace = 0;
	watched->seen = until;
	if (ms > NBD_WATCH_MS)
		watched->grace += ms - NBD_WATCH_MS;
	return until != 0 && now >= until + watched->grace;
}

static void watch_look(struct nbd_watch *watch, int64_t now, int64_t ms)
{
	for (struct nbd_watched *each = watch->first; each; each = each->next) {
		if (!nbd_watched_is_over(each, now, ms))
			continue;
		atomic_store(&each->cut, true);
		shutdown(each->fd, SHUT_RDWR);
	}
}

static void *watch_run(void *opaque)
{
	struct nbd_watch *watch = opaque;
	int64_t before = clock_ms(), now;

	pthread_mutex_lock(&watch->lock);
	while (!watch->stop) {
		clock_wait(&watch->changed, &watch->lock, before + NBD_WATCH_MS);
		now = clock_ms();
		watch_look(watch, now, now - before);
		before = now;
	}
	pthread_mutex_unlock(&watch->lock);
	return NULL;
}

int nbd_watch_start(struct nbd_watch *watch, struct error *err)
{
	int ret = 0;

	if (watch->users == 0) {
		watch->stop = false;
		ret = thread_start(&watch->thread, watch_run, watch);
	}
	if (ret)
		return error_set(err, ret, "no thread to watch the connections: %s", strerror(ret));
	watch->users++;
	return 0;
}

void nbd_watch_stop(struct nbd_watch *watch)
{
	bool last;

	pthread_mutex_lock(&watch->lock);
	watch->stop = --watch->users == 0;
	last = watch->stop;
	pthread_cond_signal(&watch->changed);
	pthread_mutex_unlock(&watch->lock);
	if (last)
		pthread_join(watch->thread, NULL);
}

void nbd_watch_add(struct nbd_watch *watch, struct nbd_watched *watched, int fd)
{
	*watched = (struct nbd_watched){ .fd = fd };
	pthread_mutex_lock(&watch->lock);
	watched->next = watch->first;
	watch->first = watched;
	pthread_mutex_unlock(&watch->lock);
}

void nbd_watch_remove(struct nbd_watch *watch, struct nbd_watched *watched)
{
	pthread_mutex_lock(&watch->lock);
	for (struct nbd_watched **at = &watch->first; *at; at = &(*at)->next)
		if (*at == watched) {
			*at = watched->next;
			break;
		}
	pthread_mutex_unlock(&watch->lock);
}
