/* Preloaded into nbdkit: the FAIL_AT'th time that the plugin's own code asks for memory it gets none;
 * with FAIL_CHILD, counted in a child of the process alone. */
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *aligned_alloc(size_t alignment, size_t size);

static pid_t first;
static bool in_child;
static long fail_at;
static atomic_long count;
static _Atomic uintptr_t plugin_start, plugin_end; /* 0 until it is loaded */

__attribute__((constructor)) static void configure(void)
{
	const char *at = getenv("FAIL_AT");

	first = getpid();
	in_child = getenv("FAIL_CHILD");
	fail_at = at ? atol(at) : 0;
}

static int find_plugin(struct dl_phdr_info *info, size_t size, void *opaque)
{
	(void)size;
	(void)opaque;
	if (!strstr(info->dlpi_name, "nbdkit-ndio-plugin"))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X)) {
			plugin_end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr +
				     info->dlpi_phdr[i].p_memsz;
			plugin_start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
		}
	return 1;
}

static bool fails(const void *caller)
{
	if (!fail_at || (in_child && getpid() == first))
		return false;
	if (!plugin_start)
		dl_iterate_phdr(find_plugin, NULL);
	if ((uintptr_t)caller < plugin_start || (uintptr_t)caller >= plugin_end ||
	    atomic_fetch_add(&count, 1) + 1 != fail_at)
		return false;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t many, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(many, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}
