/* host: what nbdkit doesn't tell a plugin, and how it is found out. Its main thread's alone. */
#ifndef NDIO_HOST_H
#define NDIO_HOST_H

#include <stdbool.h>

/* By the process that loads the plugin, before nbdkit forks. */
void host_loaded(void);

/* Was nbdkit told to let nobody write (nbdkit -r)? It tells that only when a client has connected. By
 * its command line, which can mislead: whoever opens for writing still has to be looked at. */
bool host_looks_read_only(void);

/* The server is about to end before it serves. Under --run, where one nbdkit runs a command against
 * another one, its child, the command's nbdkit holds the listening socket open as well, so that who
 * connects to it would wait for ever: they are refused instead. Without --run it does nothing. */
void host_refuse_clients(void);

#endif
