/* A request is in flight that has begun and not ended. Both counters only grow, perhaps in different
 * meters; what has ended is read first, so that there are never fewer begun. Whoever counts an end has
 * seen the beginning: release and acquire carry that over to who reads. */
#include "metrics/meter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const uint32_t meter_bounds[METER_BOUNDS] = {
	10,    20,    50,     100,    200,    500,     1000,    2000,    5000,     10000,
	20000, 50000, 100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000, 60000000,
};

const struct meter_error meter_errors[METER_ERRORS] = {
	{ EIO, "EIO" },
	{ EPERM, "EPERM" },
	{ ENOMEM, "ENOMEM" },
	{ EINVAL, "EINVAL" },
	{ ENOSPC, "ENOSPC" },
	{ EOVERFLOW, "EOVERFLOW" },
	{ EROFS, "EROFS" },
	{ EFBIG, "EFBIG" },
	{ EDQUOT, "EDQUOT" },
	{ ETIMEDOUT, "ETIMEDOUT" },
	{ EOPNOTSUPP, "EOPNOTSUPP" },
	{ ESHUTDOWN, "ESHUTDOWN" },
};

struct meters *meters_make(unsigned count, bool shared)
{
	struct meters *meters = calloc(1, sizeof(*meters) + count * sizeof(meters->meter[0]));

	if (!meters)
		return NULL;
	meters->count = count;
	for (unsigned i = 0; i < count; i++)
		meters->meter[i].is_shared = shared;
	return meters;
}

/* Without a branch that depends on it. */
unsigned meter_bucket(uint64_t ns)
{
	uint64_t us = ns / 1000 + (ns % 1000 > 0);
	unsigned bucket = 0;

	for (unsigned i = 0; i < METER_BOUNDS; i++)
		bucket += us > meter_bounds[i];
	return bucket;
}

static unsigned error_of(int errnum)
{
	for (unsigned i = 1; i < METER_ERRORS; i++)
		if (meter_errors[i].errnum == errnum)
			return i;
	return 0;
}

/* What has ended last: whoever sees that, sees the rest of it. */
void meter_end(struct meter *meter, unsigned kind, int64_t since, uint64_t bytes, int errnum)
{
	struct meter_kind *of = &meter->kind[kind];
	int64_t ns = clock_ns() - since;

	meter_add(meter, &of->ns, ns);
	if (errnum)
		meter_add(meter, &of->errors[error_of(errnum)], 1);
	else
		meter_add(meter, &of->bytes, bytes);
	meter_add(meter, &of->ended[meter_bucket(ns)], 1);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_acquire);
}

static void add_ended(const struct meter_kind *kind, struct meter_kind_sum *sum)
{
	for (unsigned i = 0; i <= METER_BOUNDS; i++) {
		uint64_t ended = get(&kind->ended[i]);

		sum->ended[i] += ended;
		sum->in_flight -= ended;
	}
	sum->ns += get(&kind->ns);
	sum->bytes += get(&kind->bytes);
	for (unsigned i = 0; i < METER_ERRORS; i++)
		sum->errors[i] += get(&kind->errors[i]);
}

void meters_sum(const struct meters *meters, struct meter_sum *sum)
{
	uint64_t closed = get(&meters->closed);

	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < meters->count; i++)
		for (unsigned kind = 0; kind < METER_KINDS; kind++)
			add_ended(&meters->meter[i].kind[kind], &sum->kind[kind]);
	for (unsigned i = 0; i < meters->count; i++)
		for (unsigned kind = 0; kind < METER_KINDS; kind++)
			sum->kind[kind].in_flight += get(&meters->meter[i].kind[kind].begun);
	sum->opened = get(&meters->opened);
	sum->connections = sum->opened - closed;
}

/* ---- the door's ---- */

void door_meter_failed(struct door_meter *meter)
{
	if (meter)
		atomic_fetch_add(&meter->failed, 1);
}

void door_meter_tls(struct door_meter *meter, const char *version, const char *cipher)
{
	unsigned count, i = 0;

	if (!meter)
		return;
	count = meter->nr_suites;
	while (i < count && (strcmp(meter->suites[i].version, version) != 0 ||
			     strcmp(meter->suites[i].cipher, cipher) != 0))
		i++;
	if (i == METER_SUITES)
		return;
	if (i == count) {
		meter->suites[i].version = version;
		meter->suites[i].cipher = cipher;
		atomic_store(&meter->nr_suites, count + 1);
	}
	atomic_fetch_add(&meter->suites[i].count, 1);
}
