#include "memory/huge.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/align.h"

#define HUGE_PAGE ((size_t)2 << 20) /* x86-64 and most others; elsewhere it is only an alignment */

void *huge_map(size_t len)
{
	uint8_t *area;
	size_t lead;

	len = round_up(len, sysconf(_SC_PAGESIZE));
	area = mmap(NULL, len + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (area == MAP_FAILED)
		return NULL;
	lead = round_up((uintptr_t)area, HUGE_PAGE) - (uintptr_t)area;
	if (lead)
		munmap(area, lead);
	munmap(area + lead + len, HUGE_PAGE - lead);
	/* All of it, before it is touched: a huge page lies in one kind of mapping only. */
	madvise(area + lead, len, MADV_DONTDUMP);
	madvise(area + lead, len, MADV_HUGEPAGE);
	return area + lead;
}
