#include "engine/stats.h"

#include <inttypes.h>

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
#define COUNTER(name)                                                                              \
	{                                                                                          \
#name, offsetof(struct stat_counters, name)                                        \
	}
	COUNTER(reads),         COUNTER(writes),  COUNTER(others),    COUNTER(bytes_read),
	COUNTER(bytes_written), COUNTER(bounced), COUNTER(zero_copy), COUNTER(partial),
	COUNTER(helped),        COUNTER(pins),    COUNTER(unpins),    COUNTER(in_flight),
	COUNTER(errors),
#undef COUNTER
};

uint64_t stats_sum(const struct stats *stats, size_t offset)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < STAT_SLOTS; i++)
		sum += atomic_load_explicit(
			(const _Atomic uint64_t *)((const char *)&stats->slot[i] + offset),
			memory_order_relaxed);
	return sum;
}

void stats_print(const struct stats *stats, const char *prefix, FILE *out)
{
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		fprintf(out, "%s%s=%" PRIu64 "\n", prefix, counters[i].name,
			stats_sum(stats, counters[i].offset));
}
