/* cmd-list: ndio list. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "attach/attachment.h"
#include "attach/gateway.h"
#include "attach/kernel-device.h"
#include "base/printable.h"
#include "command/cmd.h"
#include "nbd/lasting-words.h"
#include "terminal/json.h"
#include "terminal/number.h"

const char help_list[] = "Usage: ndio list [OPTION...]\n"
			 "Show the devices that ndio attach has made, and how they are.\n"
			 "\n"
			 "  --json      as JSON\n"
			 "  -h, --help  show this\n"
			 "\n"
			 "See ndio-attach(8).\n";

#define ANSWER_MS 3000

struct row {
	unsigned index;
	const char *state;
	pid_t gateway; /* or 0 */
	struct gateway_facts tells;
	struct attachment_facts facts;
	struct kernel_device_facts device;
};

static bool is_server_away(const struct row *row)
{
	return row->tells.has_server && row->tells.server.state != SESSION_UP;
}

/* While the server is away a read would only wait. */
static enum gateway_health look_at_gateway(const char *socket, struct row *row)
{
	enum gateway_health health = gateway_look(socket, ANSWER_MS, &row->tells);

	if (health != GATEWAY_WELL || is_server_away(row))
		return health;
	return gateway_check(socket, ANSWER_MS, &row->tells);
}

static const char *row_state(const struct attachment *attachment, struct row *row)
{
	enum gateway_health health = look_at_gateway(attachment->socket, row);

	if (!kernel_device_attached(attachment->index))
		return "detached";
	switch (health) {
	case GATEWAY_WELL:
	case GATEWAY_DAMAGED:
		if (kernel_device_readers(attachment->index) == 0)
			return "failing";
		return is_server_away(row) ? lasting_state_word(row->tells.server.state) :
					     "attached";
	case GATEWAY_GONE:
		return "no gateway";
	case GATEWAY_SILENT:
		return "not answering";
	default:
		return "failing";
	}
}

/* A device that was made anew counts from 0 again. */
static void subtract(struct kernel_device_counts *counts, const struct kernel_device_counts *before)
{
	if (counts->reads < before->reads || counts->writes < before->writes)
		return;
	counts->reads -= before->reads;
	counts->read_bytes -= before->read_bytes;
	counts->writes -= before->writes;
	counts->written_bytes -= before->written_bytes;
}

/* -ENOENT: it is gone by now. */
static int read_row(unsigned index, struct row *row, struct error *err)
{
	struct attachment attachment;
	int ret = attachment_init(&attachment, index, err);

	if (ret == 0)
		ret = attachment_load(&attachment, &row->facts, err);
	if (ret < 0 && (ret != -ENOENT || !attachment_exists(&attachment)))
		return ret;
	row->index = index;
	row->state = row_state(&attachment, row);
	row->gateway = gateway_find(attachment.socket);
	kernel_device_facts(index, &row->device);
	subtract(&row->device.counts, &row->facts.before);
	return 0;
}

#define COLUMNS "%-8s %-10s %-13s %-20s %10s %10s  %-11s %5s %10s  %-12s  "

static void print_head(void)
{
	printf(COLUMNS "LOCATOR\n", "DEVICE", "SIZE", "STATE", "SINCE", "READ", "WRITTEN",
	       "SURVIVES", "LOST", "UNFLUSHED", "INTEGRITY");
}

/* What the promise for its server is, and what that has come to. */
static void server_words(const struct row *row, char grade[16], char lost[24], char unflushed[16])
{
	const struct lasting_facts *server = &row->tells.server;

	snprintf(grade, 16, "%s", row->tells.has_server ? lasting_grade_word(server->fences) : "-");
	snprintf(lost, 24, "-");
	snprintf(unflushed, 16, "-");
	if (!row->tells.has_server)
		return;
	snprintf(lost, 24, "%" PRIu64, server->times_lost);
	size_text(server->unflushed, unflushed);
}

static int put_count(char *text, size_t size, uint64_t count, const char *what)
{
	return count ? snprintf(text, size, "%" PRIu64 " %s%s", count, what, count > 1 ? "s" : "") :
		       0;
}

/* "3 bad blocks, 1 stale area" */
static const char *integrity_words(const struct row *row, char text[80])
{
	const struct integrity_found *found = &row->tells.found;
	int len = put_count(text, 80, found->bad_blocks, "bad block");

	if (!row->tells.has_integrity)
		return "-";
	if (!found->bad_blocks && !found->stale_areas)
		return "good";
	if (found->bad_blocks && found->stale_areas)
		len += snprintf(text + len, 80 - len, ", ");
	put_count(text + len, 80 - len, found->stale_areas, "stale area");
	return text;
}

/* "waiting 12 s" */
static const char *state_words(const struct row *row, char text[40])
{
	if (strcmp(row->state, lasting_state_word(SESSION_WAITING)) != 0)
		return row->state;
	snprintf(text, 40, "%s %" PRIi64 " s", row->state, row->tells.server.lost_ms / 1000);
	return text;
}

static void print_row(const struct row *row)
{
	char name[16], size[16], read[16], written[16], locator[1024];
	char state[40], grade[16], lost[24], unflushed[16], integrity[80];

	snprintf(name, sizeof(name), "nbd%u", row->index);
	server_words(row, grade, lost, unflushed);
	printf(COLUMNS "%s%s\n", name, size_text(row->device.size, size), state_words(row, state),
	       row->facts.locator ? row->facts.since : "?",
	       size_text(row->device.counts.read_bytes, read),
	       size_text(row->device.counts.written_bytes, written), grade, lost, unflushed,
	       integrity_words(row, integrity),
	       row->facts.locator ? printable(row->facts.locator, locator, sizeof(locator)) : "?",
	       row->device.read_only ? " (read-only)" : "");
}

static struct json_object *json_server_facts(const struct lasting_facts *server)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "state", lasting_state_word(server->state));
	json_add_number(object, "away", server->lost_ms / 1000);
	json_add_number(object, "times_lost", server->times_lost);
	json_add_number(object, "unflushed", server->unflushed);
	json_add_text(object, "survives", lasting_grade_word(server->fences));
	return object;
}

static struct json_object *json_found(const struct integrity_found *found)
{
	struct json_object *object = json_object_new_object();

	json_add_flag(object, "trusted", found->trusted);
	json_add_number(object, "bad_blocks", found->bad_blocks);
	json_add_number(object, "bad_reads", found->bad_reads);
	json_add_number(object, "stale_areas", found->stale_areas);
	return object;
}

static struct json_object *json_row(const struct row *row)
{
	struct json_object *object = json_object_new_object();
	char name[32];

	snprintf(name, sizeof(name), "/dev/nbd%u", row->index);
	json_add_text(object, "device", name);
	json_add_text(object, "locator", row->facts.locator ? row->facts.locator : "");
	json_add_text(object, "state", row->state);
	json_add_text(object, "since", row->facts.since);
	json_add_number(object, "size", row->device.size);
	json_add_flag(object, "read_only", row->device.read_only);
	json_add_number(object, "reads", row->device.counts.reads);
	json_add_number(object, "read_bytes", row->device.counts.read_bytes);
	json_add_number(object, "writes", row->device.counts.writes);
	json_add_number(object, "written_bytes", row->device.counts.written_bytes);
	json_add_number(object, "gateway_pid", row->gateway);
	json_add_number(object, "timeout", row->facts.timeout);
	json_add_number(object, "reconnect", row->facts.reconnect);
	json_add_number(object, "connections", row->facts.connections);
	if (row->tells.has_server)
		json_object_object_add(object, "server", json_server_facts(&row->tells.server));
	if (row->tells.has_integrity)
		json_object_object_add(object, "integrity", json_found(&row->tells.found));
	return object;
}

static int list_devices(bool json)
{
	struct json_object *array = json ? json_object_new_array() : NULL;
	unsigned indices[KERNEL_DEVICES_MAX];
	struct error err = { 0 };
	int count, status = CMD_OK;

	if (geteuid() != 0)
		return cmd_error("only root can see what is attached");
	count = attachment_list(indices, KERNEL_DEVICES_MAX, &err);
	if (count < 0)
		return cmd_error("%s", err.text);
	if (!json && count > 0)
		print_head();
	for (int i = 0; i < count; i++) {
		struct row row = { .index = indices[i] };
		int ret = read_row(indices[i], &row, &err);

		if (ret < 0 && ret != -ENOENT)
			status = cmd_error("%s", err.text);
		else if (ret == 0 && json)
			json_object_array_add(array, json_row(&row));
		else if (ret == 0)
			print_row(&row);
		attachment_facts_clear(&row.facts);
	}
	if (json)
		json_print(array);
	return status;
}

static int json;

static const struct option options[] = { { "json", no_argument, &json, true }, CMD_OPTIONS_END };

int cmd_list(int argc, char **argv)
{
	int status = cmd_options(argc, argv, help_list, options, NULL, NULL);

	if (status != CMD_GO_ON)
		return status;
	if (optind < argc)
		return cmd_usage(argv[0], "it takes no %s", argv[optind]);
	return list_devices(json);
}
