/* thread: starts threads of a library inside somebody's program, and waits in them. */
#ifndef NDIO_THREAD_H
#define NDIO_THREAD_H

#include <pthread.h>
#include <semaphore.h>

/* Like pthread_create(), but no signal is ever delivered to the thread: they are the
 * program's. 0 or a positive errno. */
int thread_start(pthread_t *thread, void *(*run)(void *opaque), void *opaque);

/* Until it is posted, whatever signals the program handles meanwhile. */
void thread_wait(sem_t *sem);

#endif
