/* exposition: what was counted, as text that Prometheus and others read.
 *
 * There are two formats: OpenMetrics 1.0, and Prometheus' own of before (0.0.4), which node-exporter
 * takes from files. They differ in little: how counters are named where they are described, units, and
 * the mark of the end. */
#ifndef NDIO_EXPOSITION_H
#define NDIO_EXPOSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "metrics/meter.h"

enum exposition_format { EXPOSITION_OPENMETRICS, EXPOSITION_PROMETHEUS };

/* As HTTP names it. */
extern const char *const exposition_types[];

/* A volume, at some moment. */
struct exposition_volume {
	const char *name; /* any bytes */
	struct meter_sum sum;

	bool has_server; /* another one, that is waited for when it goes away: */
	bool waiting;    /* it is away now */
	uint64_t reconnects;
	uint64_t unflushed;                   /* bytes */
	char tls_version[16], tls_cipher[48]; /* of the connections to it; "": none */

	bool has_integrity, is_trusted; /* so these are looked for: */
	uint64_t bad_blocks;            /* read with a tag that is wrong */
	uint64_t stale_areas;           /* that aren't what the trust file says */
};

struct exposition {
	const char *program;
	const char *const *kinds; /* names, METER_KINDS of them */
	const struct exposition_volume *volumes;
	size_t count;
	const struct door_meter *door; /* or NULL */
	const char *door_name;
};

/* To be freed, with its length; or NULL: no memory. */
char *exposition_write(const struct exposition *exposition, enum exposition_format format,
		       size_t *len);

#endif
