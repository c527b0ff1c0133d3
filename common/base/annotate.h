/* annotate: what only some compilers understand. The build asks; the word vanishes otherwise. */
#ifndef NDIO_ANNOTATE_H
#define NDIO_ANNOTATE_H

#ifdef HAVE_COUNTED_BY_PTR
#define COUNTED_BY(member) __attribute__((counted_by(member)))
#else
#define COUNTED_BY(member)
#endif

#endif
