#include "interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
#define NR_SIGNALS (sizeof(signals) / sizeof(signals[0]))

static volatile sig_atomic_t caught;
static time_t caught_at; /* seconds, on the monotonic clock */
static int caught_fd;

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* Who sends one to a process and to its group, like timeout(1), means only one. */
static void on_signal(int number)
{
	const uint64_t one = 1;
	int before = errno;
	ssize_t n;

	if (caught && now() - caught_at > 1) {
		signal(number, SIG_DFL);
		raise(number); /* comes when this returns */
	} else if (!caught) {
		caught_at = now();
		caught = number;
		n = write(caught_fd, &one, sizeof(one));
		(void)n; /* it is only full when it is readable anyway */
	}
	errno = before;
}

void interrupt_catch(int wake_fd)
{
	const struct sigaction action = { .sa_handler = on_signal };
	struct sigaction before;

	caught = 0;
	caught_fd = wake_fd;
	for (size_t i = 0; i < NR_SIGNALS; i++) {
		sigaction(signals[i], NULL, &before);
		if (before.sa_handler != SIG_IGN)
			sigaction(signals[i], &action, NULL);
	}
}

void interrupt_ignore(void)
{
	for (size_t i = 0; i < NR_SIGNALS; i++)
		signal(signals[i], SIG_IGN);
}

int interrupt_caught(void)
{
	return caught;
}
