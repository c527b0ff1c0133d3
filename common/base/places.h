/* places: the standard descriptors of a program that was started without some of them. */
#ifndef NDIO_PLACES_H
#define NDIO_PLACES_H

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

/* One that is closed would become the first file that is opened, and what is printed would go there. Its
 * place is taken so that using it is still an error. False: it couldn't be. */
static inline bool keep_places(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return false;
	return true;
}

#endif
