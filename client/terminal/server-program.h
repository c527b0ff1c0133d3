/* server-program: where the server is, ndio-serve, a program of its own: the two ends share no code but the
 * engine's, and who only uses a disk needn't have a server. */
#ifndef NDIO_SERVER_PROGRAM_H
#define NDIO_SERVER_PROGRAM_H

#include <limits.h>

#include "base/error.h"

/* Beside this program, where `make` leaves it, or where it is installed. 0, or a negative errno with a message
 * that names it. */
int server_program_find(char path[PATH_MAX], struct error *err);

#endif
