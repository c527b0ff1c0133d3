#include "statistics.h"

#include "metrics/metrics.h"
#include "say.h"

struct door_meter statistics_door;

static struct metrics *metrics;
static struct metrics_volume volumes[EXPORTS_MAX];

int statistics_start(const char *where, const struct exports *exports, const char *listener,
		     struct error *err)
{
	const struct metrics_served served = {
		.program = "ndio serve",
		.volumes = volumes,
		.count = exports->count,
		.door = &statistics_door,
		.door_name = listener,
	};
	int ret = metrics_open(where, &serve_notice, &metrics, err);

	for (unsigned i = 0; i < exports->count; i++)
		volumes[i] = (struct metrics_volume){
			.name = exports->all[i]->name,
			.volume = exports->all[i]->volume,
			.meters = loops_meters(exports->all[i]->loops),
		};
	return ret < 0 ? ret : metrics_start(metrics, &served, err);
}

void statistics_end(void)
{
	metrics_close(metrics);
	metrics = NULL;
}
