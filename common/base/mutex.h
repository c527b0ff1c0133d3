/* mutex: locks that are held for some dozen instructions. */
#ifndef NDIO_MUTEX_H
#define NDIO_MUTEX_H

#include <pthread.h>

/* Spins a little before it sleeps: whoever holds it is about to let go, and a sleep costs two
 * system calls and a change of threads. */
static inline void mutex_init_short(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(mutex, &attr);
	pthread_mutexattr_destroy(&attr);
}

#endif
