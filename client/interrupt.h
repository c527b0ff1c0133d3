/* interrupt: SIGINT, SIGTERM and SIGHUP as something that can be waited for. One at a time, on
 * the main thread. */
#ifndef NDIO_INTERRUPT_H
#define NDIO_INTERRUPT_H

/* From now on the first of them adds to wake_fd, an eventfd; one that comes seconds later kills,
 * as without this. One that was ignored stays ignored. */
void interrupt_catch(int wake_fd);

/* The work is done, or as good as it gets: what comes now is ignored, so that the program ends
 * with the status that it has earned. */
void interrupt_ignore(void);

/* The signal's number, or 0. */
int interrupt_caught(void);

#endif
