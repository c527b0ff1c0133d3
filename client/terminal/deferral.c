#include "terminal/deferral.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"

static const int deferred[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
#define NR_DEFERRED (sizeof(deferred) / sizeof(deferred[0]))

static bool begun;
static sigset_t before;
static _Atomic int64_t since_ms; /* the first one was seen; 0: none was */

void deferral_begin(void)
{
	sigset_t signals;

	if (begun)
		return;
	sigemptyset(&signals);
	for (size_t i = 0; i < NR_DEFERRED; i++)
		sigaddset(&signals, deferred[i]);
	pthread_sigmask(SIG_BLOCK, &signals, &before);
	since_ms = 0;
	begun = true;
}

/* The library's threads let none of them in, so that what has come is pending. */
static bool has_come(void)
{
	sigset_t pending;

	if (sigpending(&pending) < 0)
		return false;
	for (size_t i = 0; i < NR_DEFERRED; i++)
		if (sigismember(&pending, deferred[i]) && !sigismember(&before, deferred[i]))
			return true;
	return false;
}

bool deferral_is_over(void)
{
	if (!begun || !has_come())
		return false;
	if (!since_ms)
		since_ms = clock_ms();
	return clock_ms() - since_ms >= DEFERRAL_MS;
}

void deferral_end(void)
{
	if (begun)
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	begun = false;
}
