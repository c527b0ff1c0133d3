/* ndio-client: what the test clients of the library share. An error that no test expects ends
 * the program. */
#ifndef NDIO_TESTS_NDIO_CLIENT_H
#define NDIO_TESTS_NDIO_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../lib/fail.h"
#include <ndio.h>

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* xorshift64*: the state is any number but 0. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1d;
}

/* 0 to below - 1 */
static inline uint64_t random_below(uint64_t *state, uint64_t below)
{
	return (random_next(state) >> 16) % below;
}

/* What every client's options say of the volume. */
struct opening {
	const char *locator, *key_path, *header, *trust;
	unsigned connections;
	unsigned flags; /* enum ndio_open_flag */
	size_t copy_memory;
	const char *slot; /* the only key slot to try, or NULL */
	unsigned answer_timeout;
	bool waits; /* for a server that goes away, so long: */
	unsigned reconnect;
	void (*event)(void *opaque, int server, const char *message);
	void *opaque;
};

static inline int try_open(const struct opening *opening, struct ndio_volume **volume)
{
	struct ndio_options options = {
		.struct_size = sizeof(options),
		.header = opening->header,
		.trust = opening->trust,
		.connections = opening->connections,
		.flags = opening->flags | (opening->slot ? NDIO_OPEN_KEY_SLOT : 0) |
			 (opening->waits ? 0 : NDIO_OPEN_NO_RECONNECT),
		.copy_memory = opening->copy_memory,
		.key_slot = opening->slot ? strtoul(opening->slot, NULL, 10) : 0,
		.answer_timeout = opening->answer_timeout,
		.reconnect = opening->reconnect,
		.event = opening->event,
		.opaque = opening->opaque,
	};
	char key[512];
	FILE *file;

	if (opening->key_path) {
		file = fopen(opening->key_path, "r");
		if (!file)
			fail("%s: can't be opened", opening->key_path);
		options.key = key;
		options.key_len = fread(key, 1, sizeof(key), file);
		fclose(file);
	}
	return ndio_open(opening->locator, &options, volume);
}

static inline struct ndio_volume *open_volume(const struct opening *opening)
{
	struct ndio_volume *volume;

	if (try_open(opening, &volume) < 0)
		fail("%s", ndio_error());
	return volume;
}

static inline struct ndio_info info_of(struct ndio_volume *volume)
{
	struct ndio_info info = { .struct_size = sizeof(info) };

	if (ndio_get_info(volume, &info) < 0)
		fail("%s", ndio_error());
	return info;
}

static inline struct ndio_stats stats_of(struct ndio_volume *volume)
{
	struct ndio_stats stats = { .struct_size = sizeof(stats) };

	if (ndio_get_stats(volume, &stats) < 0)
		fail("%s", ndio_error());
	return stats;
}

/* A request is freed a moment after its completion is told. */
static inline void wait_until_freed(struct ndio_volume *volume)
{
	double deadline = now() + 5;

	while (stats_of(volume).in_flight && now() < deadline)
		usleep(100);
	if (stats_of(volume).in_flight)
		fail("%llu requests are never freed",
		     (unsigned long long)stats_of(volume).in_flight);
}

#endif
