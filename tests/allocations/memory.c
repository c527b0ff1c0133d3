/* malloc and its like, before those of the C library: for the whole program and its libraries. */
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "allocations.h"

#define SEEN __attribute__((visibility("default")))

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static uintptr_t own_start, own_end; /* libndio's code */
static atomic_bool counting[WHOSE], failed;
static enum whose fails_for;
static long fails_at;
static atomic_long counts[WHOSE];
static __thread bool spared;

static int find_own(struct dl_phdr_info *info, size_t size, void *opaque)
{
	(void)size;
	(void)opaque;
	if (!strstr(info->dlpi_name, "libndio"))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];

		if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
			continue;
		own_start = info->dlpi_addr + part->p_vaddr;
		own_end = own_start + part->p_memsz;
	}
	return 1;
}

void memory_fail(enum whose whose, long at)
{
	dl_iterate_phdr(find_own, NULL);
	fails_for = whose;
	fails_at = at;
}

void memory_begin(enum whose whose)
{
	counting[whose] = true;
}

void memory_end(void)
{
	counting[OWN] = counting[ALL] = false;
}

void memory_spare(void)
{
	spared = true;
}

long memory_count(enum whose whose)
{
	return counts[whose];
}

bool memory_has_failed(void)
{
	return failed;
}

static bool is_own(const void *caller)
{
	return (uintptr_t)caller >= own_start && (uintptr_t)caller < own_end;
}

static bool fails(const void *caller)
{
	bool now = false;

	if (spared)
		return false;
	for (enum whose whose = OWN; whose < WHOSE; whose++)
		if (counting[whose] && (whose == ALL || is_own(caller)))
			now |= atomic_fetch_add(&counts[whose], 1) + 1 == fails_at &&
			       whose == fails_for;
	if (!now)
		return false;
	failed = true;
	errno = ENOMEM;
	return true;
}

SEEN void *malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

SEEN void *calloc(size_t many, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(many, size);
}

SEEN void *realloc(void *memory, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}

SEEN void *aligned_alloc(size_t alignment, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

SEEN int posix_memalign(void **memory, size_t alignment, size_t size)
{
	void *got = fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);

	if (!got)
		return ENOMEM;
	*memory = got;
	return 0;
}
