/* probe: USDT probes at a request's turning points, provider "ndio"; see ARCHITECTURE.md for
 * the list. One nop each until a tracer (bpftrace, perf, systemtap) attaches. */
#ifndef NDIO_PROBE_H
#define NDIO_PROBE_H

#ifdef HAVE_SDT
#include <sys/sdt.h>
#define PROBE2(name, a, b)       DTRACE_PROBE2(ndio, name, a, b)
#define PROBE3(name, a, b, c)    DTRACE_PROBE3(ndio, name, a, b, c)
#define PROBE4(name, a, b, c, d) DTRACE_PROBE4(ndio, name, a, b, c, d)
#else
#define PROBE2(name, a, b)       ((void)(a), (void)(b))
#define PROBE3(name, a, b, c)    ((void)(a), (void)(b), (void)(c))
#define PROBE4(name, a, b, c, d) ((void)(a), (void)(b), (void)(c), (void)(d))
#endif

#endif
