#include "stats.h"

#include <inttypes.h>
#include <stddef.h>

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
#define COUNTER(name) { #name, offsetof(struct stats, name) }
	COUNTER(reads),      COUNTER(writes),      COUNTER(others),
	COUNTER(bytes_read), COUNTER(bytes_written),
	COUNTER(bounced),    COUNTER(zero_copy),   COUNTER(partial),
	COUNTER(helped),
	COUNTER(pins),       COUNTER(unpins),
	COUNTER(bvecs_made), COUNTER(bvecs_freed),
	COUNTER(in_flight),  COUNTER(errors),
#undef COUNTER
};

void stats_print(const struct stats *stats, const char *prefix, FILE *out)
{
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		const void *at = (const char *)stats + counters[i].offset;

		fprintf(out, "%s%s=%" PRIu64 "\n", prefix, counters[i].name,
			stat_get((const _Atomic uint64_t *)at));
	}
}
