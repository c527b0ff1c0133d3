/* cmd-map: ndio map. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/cmd.h"
#include "command/endpoint-options.h"
#include "command/open-options.h"
#include "copy/endpoint.h"
#include "terminal/json.h"

#define KINDS 4 /* of struct extent's type: two bits */

const char help_map[] =
	"Usage: ndio map [OPTION...] LOCATOR\n"
	"Show where a disk has data, zeroes and holes.\n"
	"\n"
	"  --totals           only how much there is of each\n"
	"  --json             as JSON\n"
	"  --unlock           open it, with a passphrase that is asked for: show what it decrypts to\n"
	"  --key-file FILE    the same: every byte of FILE is the key; - is standard input\n" OPEN_HELP_KEY_PART
		OPEN_HELP_TOKEN OPEN_HELP_HEADER OPEN_HELP_TRUST OPEN_HELP_VOLUME_KEY OPEN_HELP_SLOT
			OPEN_HELP_MAX_KDF_TIME OPEN_HELP_ANSWER_TIMEOUT
	"  -h, --help         show this\n"
	"\n"
	"The lines are those of nbdinfo. Nothing is written. See ndio-map(1).\n";

enum { OPT_TOTALS = ENDPOINT_END, OPT_MAP_JSON, OPT_MAP_UNLOCK };

struct map {
	struct endpoint_spec spec;
	struct endpoint endpoint;
	bool json, totals;
	struct json_object *array;
	/* The extent that may get longer. */
	uint64_t start, len;
	unsigned type;
	uint64_t of[KINDS]; /* bytes */
};

/* ---- showing ---- */

/* nbdinfo's word for each. */
static const char *const kinds[KINDS] = {
	[0] = "data",
	[NDIO_EXTENT_HOLE] = "hole",
	[NDIO_EXTENT_ZERO] = "zero",
	[NDIO_EXTENT_HOLE | NDIO_EXTENT_ZERO] = "hole,zero",
};

static void show_extent(struct map *map)
{
	struct json_object *object;

	if (map->len == 0)
		return;
	map->of[map->type] += map->len;
	if (map->totals)
		return;
	if (!map->json) {
		printf("%10" PRIu64 "  %10" PRIu64 "  %3u  %s\n", map->start, map->len, map->type,
		       kinds[map->type]);
		return;
	}
	object = json_object_new_object();
	json_add_number(object, "offset", map->start);
	json_add_number(object, "length", map->len);
	json_add_number(object, "type", map->type);
	json_add_text(object, "description", kinds[map->type]);
	json_object_array_add(map->array, object);
}

/* Neighbours of one type are one. On a thread of the library's, while the main thread waits. */
static int found(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct map *map = opaque;

	type %= KINDS;
	if (map->len && map->type == type && map->start + map->len == offset) {
		map->len += len;
		return 0;
	}
	show_extent(map);
	map->start = offset;
	map->len = len;
	map->type = type;
	return 0;
}

static void show_totals(struct map *map)
{
	for (unsigned type = 0; type < KINDS; type++) {
		double percent = 100.0 * map->of[type] / map->endpoint.size;
		struct json_object *object;
		char text[16];

		if (map->of[type] == 0)
			continue;
		snprintf(text, sizeof(text), "%g", percent);
		if (!map->json) {
			printf("%10" PRIu64 " %5.1f%% %3u %s\n", map->of[type], percent, type,
			       kinds[type]);
			continue;
		}
		object = json_object_new_object();
		json_add_number(object, "size", map->of[type]);
		json_object_object_add(object, "percent",
				       json_object_new_double_s(atof(text), text));
		json_add_number(object, "type", type);
		json_add_text(object, "description", kinds[type]);
		json_object_array_add(map->array, object);
	}
}

/* ---- finding out ---- */

/* A server may tell of less than it is asked, but each time of something. */
static int find_extents(struct map *map, struct error *err)
{
	struct endpoint *endpoint = &map->endpoint;
	uint64_t end = 0;
	int ret = 0;

	while (ret == 0 && end < endpoint->size) {
		ret = ndio_extents(endpoint->volume, end, endpoint->size - end, found, map);
		if (ret == 0 && map->start + map->len <= end)
			ret = -EPROTO;
		end = map->start + map->len;
	}
	return ret < 0 ? error_set(err, -ret, "%s: extents at %" PRIu64 ": %s", endpoint->name, end,
				   ndio_reason(endpoint->volume, ret)) :
			 0;
}

static int find_map(struct map *map, struct error *err)
{
	const struct endpoint *endpoint = &map->endpoint;

	if (!endpoint->volume)
		return error_set(err, EINVAL, "%s: it can't be read anywhere, and has no map",
				 endpoint->name);
	if (endpoint->encrypted) /* a hole is zero ciphertext, which decrypts to something */
		return endpoint->size ? found(map, 0, endpoint->size, 0) : 0;
	if (endpoint->size && !(endpoint->can & NDIO_CAN_EXTENTS))
		return error_set(err, ENOTSUP,
				 "%s: the server doesn't tell where there are data and holes "
				 "(base:allocation)",
				 endpoint->name);
	return find_extents(map, err);
}

static int show_map(struct map *map)
{
	struct error err = { 0 };
	int ret = endpoint_open_source(&map->endpoint, &map->spec, &err);

	if (map->json)
		map->array = json_object_new_array();
	if (ret == 0)
		ret = find_map(map, &err);
	if (ret == 0)
		show_extent(map);
	if (ret == 0 && map->totals)
		show_totals(map);
	if (ret == 0 && map->json)
		json_print(map->array);
	else
		json_object_put(map->array);
	endpoint_close(&map->endpoint);
	return ret < 0 ? cmd_error("%s", err.text) : CMD_OK;
}

/* ---- the command line ---- */

static const char *map_option(void *opaque, int option, const char *value)
{
	struct map *map = opaque;
	const struct open_options open = {
		.key = &map->spec.key,
		.how = &map->spec.how,
		.header = &map->spec.header,
		.answer_timeout = &map->spec.answer_timeout,
		.twice = "a key comes from one --key-file or --key-fd",
	};

	if (option == OPT_TOTALS)
		map->totals = true;
	else if (option == OPT_MAP_JSON)
		map->json = true;
	else if (option == OPT_MAP_UNLOCK)
		map->spec.ask = map->spec.unlock = true;
	else
		return open_option(&open, option, value);
	return NULL;
}

static const struct option options[] = { { "totals", no_argument, NULL, OPT_TOTALS },
					 { "json", no_argument, NULL, OPT_MAP_JSON },
					 { "unlock", no_argument, NULL, OPT_MAP_UNLOCK },
					 OPEN_OPTIONS_KEY("", 0),
					 OPEN_OPTION_HEADER("header", 0),
					 OPEN_OPTION_TRUST("trust", 0),
					 OPEN_OPTION_SLOT("slot", 0),
					 OPEN_OPTION_TOKEN("token", 0),
					 OPEN_OPTION_VOLUME_KEY("volume-key-file", 0),
					 OPEN_OPTION_MAX_KDF_TIME,
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

int cmd_map(int argc, char **argv)
{
	struct map map = { .spec = ENDPOINT_SPEC_NONE };
	int status = cmd_options(argc, argv, help_map, options, map_option, &map);

	if (status != CMD_GO_ON)
		return status;
	if (argc - optind != 1)
		return cmd_usage(argv[0], "it takes one locator");
	map.spec.locator = argv[optind];
	map.spec.connections = 1;
	map.spec.reconnect = 0;
	map.spec.unlock |= key_source_given(&map.spec.key) || map.spec.how.by_tokens;
	if (endpoint_is_special(map.spec.locator))
		return cmd_usage(argv[0], "%s: it takes a file, a block device or an NBD URI",
				 map.spec.locator);
	status = endpoint_check(argv[0], &map.spec);
	return status == CMD_OK ? show_map(&map) : status;
}
