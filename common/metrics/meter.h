/* meter: what requests do, counted by kind where they run, so that whoever wants to know can sum it up
 * at any time, in any thread, without holding anybody up.
 *
 * A thread that runs many requests has a meter of its own, and counts by plain additions. Threads that
 * come and go share some, a core each. Whoever counts nothing has NULL for all of them, and doesn't look
 * at the clock either. */
#ifndef NDIO_METER_H
#define NDIO_METER_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/align.h"
#include "base/clock.h"

#define METER_KINDS  7  /* the engine's, by their numbers: enum op */
#define METER_BOUNDS 20 /* of times that requests take, see meter_bounds */
#define METER_ERRORS 12 /* errnos, see meter_errors */

/* Microseconds: a request is counted below the first of these that it doesn't exceed, or behind them. */
extern const uint32_t meter_bounds[METER_BOUNDS];

/* What clients are told; all else is EIO, which is the first. */
extern const struct meter_error {
	int errnum;
	const char *name;
} meter_errors[METER_ERRORS];

struct meter_kind {
	_Atomic uint64_t begun;
	_Atomic uint64_t ended[METER_BOUNDS + 1]; /* by how long they took */
	_Atomic uint64_t ns;                      /* of all these */
	_Atomic uint64_t bytes;                   /* of those without an error */
	_Atomic uint64_t errors[METER_ERRORS];
};

struct meter {
	bool is_shared; /* several threads may count at once */
	uint8_t apart[CACHE_LINE];
	struct meter_kind kind[METER_KINDS];
};

/* Of one volume. */
struct meters {
	_Atomic uint64_t opened, closed; /* connections */
	unsigned count;
	struct meter meter[];
};

/* Zeroed. NULL: no memory. */
struct meters *meters_make(unsigned count, bool shared);

/* Which bucket of ended[] a time belongs to. */
unsigned meter_bucket(uint64_t ns);

/* What it took, with bytes that it was about, and what came of it: 0 or a positive errno. */
void meter_end(struct meter *meter, unsigned kind, int64_t since, uint64_t bytes, int errnum);

static inline void meter_add(const struct meter *meter, _Atomic uint64_t *counter, uint64_t n)
{
	if (meter->is_shared)
		atomic_fetch_add_explicit(counter, n, memory_order_release);
	else
		atomic_store_explicit(counter,
				      atomic_load_explicit(counter, memory_order_relaxed) + n,
				      memory_order_release);
}

static inline void meter_begin(struct meter *meter, unsigned kind)
{
	meter_add(meter, &meter->kind[kind].begun, 1);
}

/* ---- shared ones; meters may be NULL ---- */

static inline struct meter *meters_here(struct meters *meters)
{
	return &meters->meter[(unsigned)sched_getcpu() % meters->count];
}

/* When it has begun, for the end. */
static inline int64_t meters_begin(struct meters *meters, unsigned kind)
{
	if (!meters)
		return 0;
	meter_begin(meters_here(meters), kind);
	return clock_ns();
}

static inline void meters_end(struct meters *meters, unsigned kind, int64_t since, uint64_t bytes,
			      int errnum)
{
	if (meters)
		meter_end(meters_here(meters), kind, since, bytes, errnum);
}

static inline void meters_opened(struct meters *meters)
{
	if (meters)
		atomic_fetch_add(&meters->opened, 1);
}

static inline void meters_closed(struct meters *meters)
{
	if (meters)
		atomic_fetch_add(&meters->closed, 1);
}

/* ---- summed up ---- */

struct meter_sum {
	uint64_t opened, connections;
	struct meter_kind_sum {
		uint64_t in_flight;
		uint64_t ended[METER_BOUNDS + 1], ns;
		uint64_t bytes;
		uint64_t errors[METER_ERRORS];
	} kind[METER_KINDS];
};

void meters_sum(const struct meters *meters, struct meter_sum *sum);

/* ---- who comes in, before it is known what he wants; one thread counts ---- */

#define METER_SUITES 16

struct door_meter {
	_Atomic uint64_t failed; /* handshakes */
	atomic_uint nr_suites;
	struct meter_suite {
		const char *version, *cipher; /* static strings */
		_Atomic uint64_t count;       /* connections by TLS */
	} suites[METER_SUITES];
};

void door_meter_failed(struct door_meter *meter); /* NULL is fine */
void door_meter_tls(struct door_meter *meter, const char *version,
		    const char *cipher); /* likewise */

#endif
