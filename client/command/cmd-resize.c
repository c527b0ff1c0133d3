/* cmd-resize: ndio resize. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "attach/clash.h"
#include "base/align.h"
#include "command/cmd.h"
#include "command/header-run.h"
#include "command/open-options.h"
#include "header/facts.h"
#include "header/header-edit.h"
#include "header/header-json.h"
#include "luks/luks-json.h"

const char help_resize[] =
	"Usage: ndio resize [OPTION...] LOCATOR\n"
	"Let a volume have all of a disk that has grown.\n"
	"\n" OPEN_HELP_HEADER OPEN_HELP_NO_LOCK OPEN_HELP_ANSWER_TIMEOUT
	"  -h, --help         show this\n"
	"\n"
	"No key is needed. What would cut off data is refused. See ndio-resize(1).\n";

enum { OPT_RESIZE_NO_LOCK = 256 };

struct resize {
	struct header_place place;
	uint64_t disk; /* bytes */
};

/* With a detached header the data's disk is another. */
static int measure_disk(struct resize *resize, const struct header *header, struct error *err)
{
	struct header disk;
	int ret;

	resize->disk = header->size;
	if (!resize->place.header)
		return 0;
	header_init(&disk, resize->place.locator);
	disk.answer_timeout = resize->place.answer_timeout;
	ret = header_open(&disk, true, err);
	resize->disk = disk.size;
	header_close(&disk);
	return ret;
}

/* What the data have room for, in whole sectors. */
static int find_room(const struct resize *resize, const struct header_facts *facts, uint64_t *room,
		     struct error *err)
{
	uint64_t needed = facts->data_offset + facts->data_size;

	if (resize->disk < needed || resize->disk <= facts->data_offset)
		return error_set(err, EINVAL,
				 "%s: it has %" PRIu64 " bytes, and the data %s byte %" PRIu64
				 ": they would be cut, and nothing is changed",
				 resize->place.locator, resize->disk,
				 facts->data_size ? "end at" : "start at", needed);
	*room = round_down(resize->disk - facts->data_offset, facts->sector ? facts->sector : 512);
	return 0;
}

static int refuse_kind(const struct header *header, const struct header_facts *facts,
		       struct json_object *segments, struct error *err)
{
	if (facts->requirements[0])
		return error_set(err, ENOTSUP, "%s: requirement %s: it isn't resized", header->name,
				 facts->requirements);
	if (facts->integrity[0])
		return error_set(err, ENOTSUP,
				 "%s: it has integrity %s, whose tags are made for one length: it "
				 "isn't resized",
				 header->name, facts->integrity);
	if (!json_object_is_type(segments, json_type_object) ||
	    json_object_object_length(segments) != 1)
		return error_set(err, ENOTSUP, "%s: only one data segment can be resized",
				 header->name);
	return 0;
}

static int set_data_length(struct header *header, const struct header_facts *facts, uint64_t room,
			   struct error *err)
{
	struct json_object *json, *segments;
	char text[24];
	int ret = luks_json_load(&header->memfd, &json, err);

	if (ret < 0)
		return ret;
	segments = luks_json_member(json, "segments");
	ret = refuse_kind(header, facts, segments, err);
	if (ret == 0) {
		struct json_object_iterator first = json_object_iter_begin(segments);

		snprintf(text, sizeof(text), "%" PRIu64, room);
		json_object_object_add(json_object_iter_peek_value(&first), "size",
				       json_object_new_string(text));
		ret = header_set_json(header, json, err);
	}
	json_object_put(json);
	return ret;
}

/* LUKS1 has no length, and most of LUKS2 is "dynamic". */
static void tell_follows(const struct resize *resize, const struct header *header, uint64_t room)
{
	printf("%s: %s: the data end where the disk does, and have %" PRIu64
	       " bytes: nothing is to be changed\n",
	       resize->place.locator,
	       header->version == 1 ? "LUKS1 has no length" : "the header says no length", room);
}

static int resize_run(struct header *header, void *opaque, struct error *err)
{
	struct resize *resize = opaque;
	struct header_facts facts;
	uint64_t room = 0;
	int ret = header_run_load(header, &resize->place, err);

	if (ret == 0)
		ret = facts_read(header, &facts, err);
	if (ret == 0)
		ret = measure_disk(resize, header, err);
	if (ret == 0)
		ret = find_room(resize, &facts, &room, err);
	if (ret < 0)
		return ret;
	if (!facts.data_size) {
		tell_follows(resize, header, room);
		return 0;
	}
	if (room > facts.data_size) {
		ret = set_data_length(header, &facts, room, err);
		if (ret == 0)
			ret = header_write_back(header, HEADER_RESIZED, NULL, err);
	}
	if (ret == 0)
		printf("%s: the data had %" PRIu64 " bytes, and have %" PRIu64 "%s\n",
		       resize->place.locator, facts.data_size, room,
		       room == facts.data_size ? ": nothing is to be changed" : "");
	return ret;
}

static const char *resize_option(void *opaque, int option, const char *value)
{
	struct resize *resize = opaque;
	const struct open_options open = {
		.header = &resize->place.header,
		.answer_timeout = &resize->place.answer_timeout,
	};

	if (option != OPT_RESIZE_NO_LOCK)
		return open_option(&open, option, value);
	resize->place.no_lock = true;
	return NULL;
}

static const struct option options[] = { OPEN_OPTION_HEADER("header", 0),
					 { "no-lock-image", no_argument, NULL, OPT_RESIZE_NO_LOCK },
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

int cmd_resize(int argc, char **argv)
{
	struct resize resize = { .place.writes = true };
	int status = cmd_options(argc, argv, help_resize, options, resize_option, &resize);

	if (status != CMD_GO_ON)
		return status;
	if (argc - optind != 1)
		return cmd_usage(argv[0], "it takes one locator");
	resize.place.locator = argv[optind];
	return header_run(&resize.place, resize_run, &resize);
}
