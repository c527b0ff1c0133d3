/* A handler notes the first signal and rings the caller's eventfd; whoever waits cleans up,
 * and in the end interrupt_die() sends it once more, with the handler gone, so that the status
 * says it. caught is the signal, once there was one; stopping is it, unless all was deferred
 * before it came. */
#include "terminal/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
#define NR_SIGNALS (sizeof(signals) / sizeof(signals[0]))

static volatile sig_atomic_t caught;
static volatile sig_atomic_t deferred; /* it stops nothing */
static volatile sig_atomic_t stopping; /* the one that stops, or 0 */
static time_t caught_at;               /* seconds, on the monotonic clock */
static int caught_fd = -1;

static time_t seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void die_of(int number)
{
	sigset_t it;

	signal(number, SIG_DFL);
	sigemptyset(&it);
	sigaddset(&it, number);
	raise(number);
	sigprocmask(SIG_UNBLOCK, &it, NULL); /* in its handler, or if our caller has blocked it */
}

/* Who sends one to a process and to its group, like timeout(1), means only one. */
static void on_signal(int number)
{
	const uint64_t one = 1;
	int before = errno;
	ssize_t n;

	if (caught && seconds_now() - caught_at > 1)
		die_of(number);
	if (!caught) {
		caught_at = seconds_now();
		caught = number;
		if (!deferred) {
			stopping = number;
			n = write(caught_fd, &one, sizeof(one));
			(void)n; /* it is only full when it is readable anyway */
		}
	}
	errno = before;
}

/* No SA_RESTART: what waits in a system call is woken. */
static void install(void)
{
	const struct sigaction action = { .sa_handler = on_signal };
	struct sigaction before;

	for (size_t i = 0; i < NR_SIGNALS; i++) {
		sigaction(signals[i], NULL, &before);
		if (before.sa_handler != SIG_IGN)
			sigaction(signals[i], &action, NULL);
	}
}

void interrupt_catch(int wake_fd)
{
	caught = stopping = deferred = 0;
	caught_fd = wake_fd;
	install();
}

void interrupt_defer(void)
{
	deferred = 1;
	caught_fd = -1; /* may be closed from here on */
	install();
}

int interrupt_caught(void)
{
	return stopping;
}

void interrupt_die(void)
{
	if (caught)
		die_of(caught);
}
