/* What the library tells though nothing failed, from any of its threads, until Python asks for it: the
 * newest of it.
 */
#ifndef NDIO_PYTHON_NOTICES_H
#define NDIO_PYTHON_NOTICES_H

#include "extension.h"

#include <pthread.h>

#define NOTICES 64

struct notices {
	pthread_mutex_t lock;
	char *text[NOTICES]; /* a ring; NULL where there is none */
	unsigned next;
};

void notices_add(void *notices, const char *message); /* a callback of the library's */
PyObject *notices_list(struct notices *notices);      /* and forgets them */
void notices_clear(struct notices *notices);

#endif
