/* interrupt: SIGINT, SIGTERM and SIGHUP as something that can be waited for, and of which the program
 * dies only when it has cleaned up: who started it, like a shell's loop, learns that from its status.
 * One at a time, on the main thread. */
#ifndef NDIO_INTERRUPT_H
#define NDIO_INTERRUPT_H

/* From now on the first of them adds to wake_fd, an eventfd or -1; one that comes seconds later kills,
 * as without this. One that was ignored stays ignored. */
void interrupt_catch(int wake_fd);

/* What is begun now isn't left half done: the first that comes from now on stops nothing. One that
 * comes seconds after the first kills. */
void interrupt_defer(void);

/* The number of the one that came before interrupt_defer(), or 0. */
int interrupt_caught(void);

/* Ends the program by the one that came, whenever that was; returns if none did. Everything is
 * cleaned up and written. */
void interrupt_die(void);

#endif
