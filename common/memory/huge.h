/* huge: memory on huge pages, for what is read into or written from: a piece of it is one run of physical
 * memory, so that the disk is told of one run and not of one a page, of which it takes so many at once. */
#ifndef NDIO_HUGE_H
#define NDIO_HUGE_H

#include <stddef.h>

/* len bytes of zeroes, which begin where a huge page can; on those if the kernel gives them.
 * NULL: no memory. Undone by munmap(), with the same. */
void *huge_map(size_t len);

#endif
