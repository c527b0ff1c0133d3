/* file-limit: how long a file may be that this process makes longer. It counts for a memfd as well,
 * and not for what is long enough already, a block device or a server. */
#ifndef NDIO_FILE_LIMIT_H
#define NDIO_FILE_LIMIT_H

#include <stdint.h>
#include <sys/resource.h>

#define FILE_LIMIT_LOW "the limit on the size of files (ulimit -f) is too low"

/* Bytes; UINT64_MAX: no limit. */
static inline uint64_t file_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ?
		       UINT64_MAX :
		       limit.rlim_cur;
}

#endif
