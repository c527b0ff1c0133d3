/* Preloaded beside a sanitizer's runtime, and initialised before any other library: starts the
 * runtime. Else p11-kit (nbdkit uses GnuTLS) does, by an allocation in its constructor, inside
 * newlocale(); gcc 12's runtimes then leave that function's lock broken, and libcryptsetup hangs
 * in the next newlocale(). */
#include <stdlib.h>

__attribute__((constructor)) static void start(void)
{
	void *volatile memory = malloc(1);

	free(memory);
}
