#include "memory/mapping.h"

#include <stdint.h>
#include <stdio.h>

static bool touches(const struct iovec *iov, size_t count, uintptr_t start, uintptr_t end)
{
	for (size_t i = 0; i < count; i++)
		if ((uintptr_t)iov[i].iov_base < end &&
		    (uintptr_t)iov[i].iov_base + iov[i].iov_len > start)
			return true;
	return false;
}

bool mapping_is_shared(const struct iovec *iov, size_t count)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	bool shared = false;
	char mode[5];

	if (!maps)
		return true;
	while (!shared && fscanf(maps, "%lx-%lx %4s%*[^\n]", &start, &end, mode) == 3)
		shared = mode[3] == 's' && touches(iov, count, start, end);
	fclose(maps);
	return shared;
}
