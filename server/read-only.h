/* read-only: was nbdkit told to let nobody write (nbdkit -r)? It tells a plugin only when a client
 * has connected. */
#ifndef NDIO_READ_ONLY_H
#define NDIO_READ_ONLY_H

#include <stdbool.h>

/* By its command line. It can be mistaken: whoever opens for writing still has to be looked at. */
bool read_only_looks_so(void);

#endif
