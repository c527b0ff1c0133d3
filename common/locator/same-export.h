/* same-export: do two NBD URIs lead to the same export, as far as they tell? */
#ifndef NDIO_SAME_EXPORT_H
#define NDIO_SAME_EXPORT_H

#include <stdbool.h>

/* By the addresses of their hosts, all of this machine's being one, or the file of their sockets; and
 * by the export's name. May resolve hosts, so it may block. */
bool same_export(const char *uri, const char *other);

#endif
