/* nbd-link: a connection at work, for one thread at a time.
 *
 *	server <-- fd --> tls <-- pair of sockets --> libnbd      nbds
 *	server <-- fd --> libnbd                                  nbd
 *
 * nbd_link_look() is a round: pump out, sleep in poll(), pump in, let libnbd read or write. While
 * answers are due it looks at the clock, and counts what moves once they are late (silence).
 *
 * However a connection ends (TLS fails, the server is silent or cut by nbd-watch's thread, the user
 * cancels), what is shut is a socket: libnbd finds the end, and it alone fails the commands in
 * flight. So nobody touches their memory after that. */
#include "nbd/nbd-link.h"

#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

int nbd_link_errno(void)
{
	int errnum = nbd_get_errno();

	return errnum ? errnum : EIO;
}

static void free_link(struct nbd_link *link)
{
	nbd_close(link->nbd);
	tls_close(link->tls);
	if (link->fd >= 0) {
		nbd_watch_remove(&link->server->watch, &link->watched);
		close(link->fd);
	}
	free(link);
}

void nbd_link_close(struct nbd_link *link)
{
	if (!link)
		return;
	/* Sends NBD_CMD_DISC, if it can, and waits for nothing. */
	if (link->nbd && nbd_aio_is_ready(link->nbd))
		nbd_aio_disconnect(link->nbd, 0);
	if (link->tls)
		tls_goodbye(link->tls);
	free_link(link);
}

void nbd_link_reset(struct nbd_link *link)
{
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	free_link(link);
}

bool nbd_link_is_up(const struct nbd_link *link)
{
	return !nbd_aio_is_dead(link->nbd) && !nbd_aio_is_closed(link->nbd);
}

void nbd_link_cut(struct nbd_link *link)
{
	if (nbd_link_is_up(link))
		shutdown(nbd_aio_get_fd(link->nbd), SHUT_RDWR);
}

/* ---- a server that says nothing ---- */

void nbd_link_asked(struct nbd_link *link, uint64_t bytes)
{
	if (link->silence.owed == 0)
		link->now = clock_ms();
	silence_asked(&link->silence, bytes, link->now);
}

void nbd_link_answered(struct nbd_link *link, uint64_t bytes)
{
	silence_answered(&link->silence, bytes, link->now);
}

/* SIOCOUTQ, to be sent, or SIOCINQ, to be read. */
static uint64_t bytes_in_socket(const struct nbd_link *link, unsigned long which)
{
	int bytes = 0;

	return ioctl(link->fd, which, &bytes) < 0 || bytes < 0 ? 0 : bytes;
}

/* What has gone out since before the sleep, and what has come in and is about to be read. */
static void count_moved(struct nbd_link *link, uint64_t queued_before)
{
	uint64_t queued = bytes_in_socket(link, SIOCOUTQ);

	silence_moved(&link->silence, queued_before > queued ? queued_before - queued : 0,
		      bytes_in_socket(link, SIOCINQ));
}

static void give_up_if_silent(struct nbd_link *link)
{
	if (atomic_load_explicit(&link->server->hurry, memory_order_relaxed) &&
	    link->silence.limit > NBD_HURRY_MS)
		link->silence.limit = NBD_HURRY_MS;
	if (!atomic_load_explicit(&link->watched.cut, memory_order_relaxed) &&
	    !(link->stop && atomic_load(link->stop)) && !silence_is_over(&link->silence, link->now))
		return;
	link->silent = true;
	nbd_link_cut(link);
}

/* ---- running ---- */

void nbd_link_submit(struct nbd_link *link)
{
	if (link->tls)
		tls_pump_out(link->tls);
}

static void link_tell_failure(struct nbd_link *link)
{
	const char *failure = tls_failure(link->tls);

	if (!failure || !link->connected || atomic_exchange(&link->server->told, true))
		return;
	notice_tell(&link->server->notice, "%s: %s", link->server->name, failure);
}

/* A failure of these kills the connection, which fails all that is in flight. */
static void link_notify(struct nbd_link *link, unsigned direction, bool readable, short revents)
{
	bool guard = link->connected && link->silence.owed;

	if (guard)
		atomic_store_explicit(&link->watched.until, clock_ms() + link->silence.limit,
				      memory_order_relaxed);
	if ((direction & LIBNBD_AIO_DIRECTION_READ) &&
	    (readable || (revents & (POLLIN | POLLHUP | POLLERR))))
		nbd_aio_notify_read(link->nbd);
	else if (revents & (POLLOUT | POLLHUP | POLLERR))
		nbd_aio_notify_write(link->nbd);
	if (guard)
		atomic_store_explicit(&link->watched.until, 0, memory_order_relaxed);
}

static int shorter(int timeout_ms, int64_t left)
{
	if (left < 0 || (timeout_ms >= 0 && timeout_ms < left))
		return timeout_ms;
	return left < INT_MAX ? left : INT_MAX;
}

/* Sleeps, and counts what moves meanwhile where that matters. */
static int wait_for_any(struct nbd_link *link, struct pollfd fds[4], int timeout_ms)
{
	int64_t before = link->now;
	uint64_t queued = 0;
	bool late;
	int ret;

	if (link->silence.owed == 0)
		return poll(fds, 4, timeout_ms);
	late = silence_is_late(&link->silence, before);
	if (late)
		queued = bytes_in_socket(link, SIOCOUTQ);
	ret = poll(fds, 4, shorter(timeout_ms, silence_left(&link->silence, clock_ms())));
	link->now = clock_ms();
	silence_looked(&link->silence, link->now - before);
	if (late)
		count_moved(link, queued);
	return ret;
}

bool nbd_link_look(struct nbd_link *link, int timeout_ms, int wake_fd)
{
	struct pollfd fds[4] = {
		{ .fd = -1 },
		{ .fd = wake_fd, .events = POLLIN },
		{ .fd = -1 },
		{ .fd = link->nudge_fd, .events = POLLIN },
	};
	unsigned direction = 0;
	bool readable = false;

	if (link->tls) {
		tls_pump_out(link->tls);
		if (tls_poll_fd(link->tls, &fds[2]))
			timeout_ms = 0;
	}
	if (nbd_link_is_up(link)) {
		direction = nbd_aio_get_direction(link->nbd);
		fds[0].fd = nbd_aio_get_fd(link->nbd);
		fds[0].events = (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				(direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
	}
	if (wait_for_any(link, fds, timeout_ms) < 0)
		return false;
	if (link->tls) {
		readable = tls_pump_in(link->tls, fds[2].revents);
		link_tell_failure(link);
	}
	link_notify(link, direction, readable, fds[0].revents);
	if (link->silence.owed)
		give_up_if_silent(link);
	link->nudged = fds[3].revents;
	return fds[1].revents;
}
