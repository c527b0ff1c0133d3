#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

int thread_start(pthread_t *thread, void *(*run)(void *opaque), void *opaque)
{
	sigset_t all, before;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(thread, NULL, run, opaque);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ret;
}

void thread_wait(sem_t *sem)
{
	while (sem_wait(sem) < 0 && errno == EINTR)
		;
}
