/* background: the server is a process of its own, and who started it waits until clients can connect. */
#ifndef NDIO_BACKGROUND_H
#define NDIO_BACKGROUND_H

#include "base/error.h"

/* Comes back in a new process. The caller's own waits for background_ready() and ends with status 0, or as the
 * new one ends; if it is killed before that, the new one is told to end. No thread, lock or locked memory crosses
 * this: it comes before any. 0, or a negative errno with a message. */
int background_begin(struct error *err);

/* Lets the caller's process go, and all else that was its: the session, the folder, standard input, output
 * and error. What is said from now on goes to the system's log. 0, or a negative errno with a message. */
int background_ready(struct error *err);

#endif
