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
	pid_t gateway;               /* or 0 */
	bool tells;                  /* the gateway, of its server: */
	struct lasting_facts server; /* that */
	struct attachment_facts facts;
	struct kernel_device_facts device;
};

/* While the server is away a read would only wait. */
static enum gateway_health look_at_gateway(const char *socket, struct row *row)
{
	enum gateway_health health;

	row->tells = gateway_server(socket, ANSWER_MS, &row->server, &health);
	if (health != GATEWAY_WELL || (row->tells && row->server.state != SESSION_UP))
		return health;
	return gateway_check(socket, ANSWER_MS);
}

static const char *row_state(const struct attachment *attachment, struct row *row)
{
	enum gateway_health health = look_at_gateway(attachment->socket, row);

	if (!kernel_device_attached(attachment->index))
		return "detached";
	switch (health) {
	case GATEWAY_WELL:
		if (kernel_device_readers(attachment->index) == 0)
			return "failing";
		return row->tells && row->server.state != SESSION_UP ?
			       lasting_state_word(row->server.state) :
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

#define COLUMNS "%-8s %-10s %-13s %-20s %10s %10s  %-11s %5s %10s  "

static void print_head(void)
{
	printf(COLUMNS "LOCATOR\n", "DEVICE", "SIZE", "STATE", "SINCE", "READ", "WRITTEN",
	       "SURVIVES", "LOST", "UNFLUSHED");
}

/* What the promise for its server is, and what that has come to. */
static void server_words(const struct row *row, char grade[16], char lost[24], char unflushed[16])
{
	snprintf(grade, 16, "%s", row->tells ? lasting_grade_word(row->server.fences) : "-");
	snprintf(lost, 24, "-");
	snprintf(unflushed, 16, "-");
	if (!row->tells)
		return;
	snprintf(lost, 24, "%" PRIu64, row->server.times_lost);
	size_text(row->server.unflushed, unflushed);
}

/* "waiting 12 s" */
static const char *state_words(const struct row *row, char text[40])
{
	if (strcmp(row->state, lasting_state_word(SESSION_WAITING)) != 0)
		return row->state;
	snprintf(text, 40, "%s %" PRIi64 " s", row->state, row->server.lost_ms / 1000);
	return text;
}

static void print_row(const struct row *row)
{
	char name[16], size[16], read[16], written[16], locator[1024];
	char state[40], grade[16], lost[24], unflushed[16];

	snprintf(name, sizeof(name), "nbd%u", row->index);
	server_words(row, grade, lost, unflushed);
	printf(COLUMNS "%s%s\n", name, size_text(row->device.size, size), state_words(row, state),
	       row->facts.locator ? row->facts.since : "?",
	       size_text(row->device.counts.read_bytes, read),
	       size_text(row->device.counts.written_bytes, written), grade, lost, unflushed,
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
	if (row->tells)
		json_object_object_add(object, "server", json_server_facts(&row->server));
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
