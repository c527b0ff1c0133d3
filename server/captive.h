/* captive: nbdkit --run, where one nbdkit runs a command against its child. */
#ifndef NDIO_CAPTIVE_H
#define NDIO_CAPTIVE_H

/* By the process that loads the plugin, before nbdkit forks. */
void captive_loaded(void);

/* The server is about to end before it serves. Under --run the command's nbdkit holds the listening
 * socket open as well, so that who connects to it would wait for ever: they are refused instead.
 * Without --run it does nothing. */
void captive_refuse(void);

#endif
