/* cmd-header: ndio header backup|restore|erase|config. */
#include <errno.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <string.h>

#include "attach/clash.h"
#include "command/cmd.h"
#include "command/header-run.h"
#include "command/open-options.h"
#include "header/header-backup.h"
#include "header/header-edit.h"
#include "terminal/key-input.h"
#include "terminal/number.h"
#include "terminal/overwrite.h"
#include "terminal/unlock.h"

const char help_header[] =
	"Usage: ndio header backup  [OPTION...] LOCATOR FILE\n"
	"       ndio header restore [OPTION...] LOCATOR FILE\n"
	"       ndio header erase   [OPTION...] LOCATOR\n"
	"       ndio header config  [OPTION...] LOCATOR\n"
	"Keep a volume's LUKS header in a file, put it back, erase all its key slots, or change its\n"
	"label.\n"
	"\n" OPEN_HELP_HEADER
	"  --force            restore: also the header of another volume, or where none is; erase: do\n"
	"                     not ask\n"
	"  --label TEXT       config: the volume's label; empty: none\n"
	"  --subsystem TEXT   config: its subsystem's\n"
	"  --slot N           config: the key slot that gets a priority\n"
	"  --priority NAME    config: prefer, normal or ignore, in which it is tried only if asked for\n" OPEN_HELP_NO_LOCK
		OPEN_HELP_ANSWER_TIMEOUT "  -h, --help         show this\n"
	"\n"
	"FILE is what cryptsetup luksHeaderBackup makes and luksHeaderRestore takes. See\n"
	"ndio-header(1).\n";

enum { OPT_HEADER_FORCE = 256, OPT_LABEL, OPT_SUBSYSTEM, OPT_PRIORITY, OPT_HEADER_NO_LOCK };

struct header_action {
	const char *name;
	header_run_fn *run;
	int operands;
	bool writes, configures;
};

struct header_request {
	const struct header_action *action;
	struct header_place place;
	const char *file; /* the backup */
	const char *label, *subsystem;
	const char *priority;
	struct unlock_options how; /* its slot */
	bool force;
};

static const struct {
	const char *name;
	crypt_keyslot_priority priority;
} priorities[] = {
	{ "prefer", CRYPT_SLOT_PRIORITY_PREFER },
	{ "normal", CRYPT_SLOT_PRIORITY_NORMAL },
	{ "ignore", CRYPT_SLOT_PRIORITY_IGNORE },
};

/* ---- backup and restore ---- */

static int backup_header(struct header *header, void *opaque, struct error *err)
{
	const struct header_request *request = opaque;
	int ret = header_load(header, err);

	if (ret == 0)
		ret = header_load_areas(header, err);
	return ret < 0 ? ret : header_backup(header, request->file, err);
}

/* May it be put there? */
static int check_match(const struct header *header, const struct header_request *request,
		       enum backup_match match, struct error *err)
{
	bool other = match == BACKUP_OTHER;
	char question[1024];
	int ret;

	if (match == BACKUP_SAME || request->force)
		return 0;
	snprintf(question, sizeof(question),
		 "%s has %s. With the wrong one its data are lost. Type YES to put this one there:",
		 header->name, other ? "the header of another volume" : "no LUKS header now");
	ret = terminal_confirm(question);
	if (ret == 1)
		return 0;
	if (ret == 0)
		return error_set(err, ECANCELED, "%s: left as it is", header->name);
	return error_set(err, EEXIST,
			 other ? "%s: it has the header of another volume than %s, or of this one "
				 "with another volume key or size; --force puts it there" :
				 "%s: it has no LUKS header to compare %s with; --force puts it "
				 "there",
			 header->name, request->file);
}

static int restore_header(struct header *header, void *opaque, struct error *err)
{
	const struct header_request *request = opaque;
	enum backup_match match;
	int ret = clash_refuse(header->name, request->file, "the backup", err);

	if (ret == 0)
		ret = header_load_backup(header, request->file, &match, err);
	if (ret == 0)
		ret = check_match(header, request, match, err);
	return ret < 0 ? ret : header_write_back(header, HEADER_RESTORED, NULL, err);
}

/* ---- erase ---- */

static int max_slots(const struct header *header)
{
	return crypt_keyslot_max(crypt_get_type(header->memfd.cd));
}

static int count_slots(const struct header *header)
{
	int count = 0;

	for (int slot = 0; slot < max_slots(header); slot++)
		if (crypt_keyslot_status(header->memfd.cd, slot) >= CRYPT_SLOT_ACTIVE)
			count++;
	return count;
}

static int erase_slots(struct header *header, struct error *err)
{
	int ret = 0;

	for (int slot = 0; slot < max_slots(header) && ret == 0; slot++) {
		if (crypt_keyslot_status(header->memfd.cd, slot) < CRYPT_SLOT_ACTIVE)
			continue;
		ret = crypt_keyslot_destroy(header->memfd.cd, slot);
		if (ret < 0)
			error_set(err, -ret, "%s: erasing key slot %d: %s", header->name, slot,
				  luks_memfd_reason(&header->memfd, ret));
	}
	return ret;
}

static int erase_header(struct header *header, void *opaque, struct error *err)
{
	const struct header_request *request = opaque;
	int ret = header_run_load(header, &request->place, err);
	char what[128];
	int count;

	if (ret < 0)
		return ret;
	count = count_slots(header);
	snprintf(what, sizeof(what), "%d key slot%s, without which nothing opens it any more",
		 count, count == 1 ? "" : "s");
	if (count && !request->force)
		ret = overwrite_ask(header->name, what, "--force", err);
	if (ret == 0)
		ret = erase_slots(header, err);
	if (ret == 0)
		ret = header_write_back(header, HEADER_ERASED, NULL, err);
	if (ret == 0)
		printf("%d key slot%s erased\n", count, count == 1 ? "" : "s");
	return ret;
}

/* ---- config ---- */

static int set_priority(struct header *header, const struct header_request *request,
			struct error *err)
{
	int slot = request->how.slot, ret = -EINVAL;

	if (crypt_keyslot_status(header->memfd.cd, slot) < CRYPT_SLOT_ACTIVE)
		return error_set(err, ENOENT, "%s: key slot %d is not in use", header->name, slot);
	for (size_t i = 0; i < sizeof(priorities) / sizeof(priorities[0]); i++)
		if (strcmp(priorities[i].name, request->priority) == 0)
			ret = crypt_keyslot_set_priority(header->memfd.cd, slot,
							 priorities[i].priority);
	return ret < 0 ? error_set(err, -ret, "%s: the priority of key slot %d: %s", header->name,
				   slot, luks_memfd_reason(&header->memfd, ret)) :
			 0;
}

/* The new one, or a copy of the old, since libcryptsetup writes to where that is. */
static const char *keep_label(char *copy, size_t size, const char *new, const char *old)
{
	if (new)
		return new;
	snprintf(copy, size, "%s", old ? old : "");
	return copy;
}

/* libcryptsetup sets both: what isn't given stays. */
static int set_label(struct header *header, const struct header_request *request, struct error *err)
{
	struct crypt_device *cd = header->memfd.cd;
	char label[64], subsystem[64]; /* LUKS2's have up to 47 bytes */
	int ret = crypt_set_label(
		cd, keep_label(label, sizeof(label), request->label, crypt_get_label(cd)),
		keep_label(subsystem, sizeof(subsystem), request->subsystem,
			   crypt_get_subsystem(cd)));

	return ret < 0 ? error_set(err, -ret, "%s: the label: %s", header->name,
				   luks_memfd_reason(&header->memfd, ret)) :
			 0;
}

static int config_header(struct header *header, void *opaque, struct error *err)
{
	const struct header_request *request = opaque;
	int ret = header_run_load(header, &request->place, err);

	if (ret == 0 && header->version == 1)
		ret = error_set(err, ENOTSUP,
				"%s: LUKS1 has no labels and no priorities (ndio convert makes it "
				"LUKS2)",
				header->name);
	if (ret == 0 && request->priority)
		ret = set_priority(header, request, err);
	if (ret == 0 && (request->label || request->subsystem))
		ret = set_label(header, request, err);
	return ret < 0 ? ret : header_write_back(header, HEADER_LABELLED, NULL, err);
}

/* ---- the command line ---- */

static const struct header_action header_actions[] = {
	{ .name = "backup", .run = backup_header, .operands = 2 },
	{ .name = "restore", .run = restore_header, .operands = 2, .writes = true },
	{ .name = "erase", .run = erase_header, .operands = 1, .writes = true },
	{ .name = "config",
	  .run = config_header,
	  .operands = 1,
	  .writes = true,
	  .configures = true },
};

static const char *take_priority(struct header_request *request, const char *value)
{
	for (size_t i = 0; i < sizeof(priorities) / sizeof(priorities[0]); i++)
		if (strcmp(priorities[i].name, value) == 0)
			request->priority = value;
	return request->priority ? NULL : "--priority takes prefer, normal or ignore";
}

static const char *header_option(void *opaque, int option, const char *value)
{
	struct header_request *request = opaque;
	const struct open_options open = {
		.how = &request->how,
		.header = &request->place.header,
		.answer_timeout = &request->place.answer_timeout,
	};

	switch (option) {
	case OPT_HEADER_FORCE:
		request->force = true;
		return NULL;
	case OPT_HEADER_NO_LOCK:
		request->place.no_lock = true;
		return NULL;
	case OPT_LABEL:
		request->label = value;
		return NULL;
	case OPT_SUBSYSTEM:
		request->subsystem = value;
		return NULL;
	case OPT_PRIORITY:
		return take_priority(request, value);
	default:
		return open_option(&open, option, value);
	}
}

static const char *check_config(const struct header_request *request)
{
	bool slot = unlock_by_one_slot(&request->how);
	bool any = slot || request->priority || request->label || request->subsystem;

	if (any != request->action->configures)
		return any ? "--label, --subsystem, --slot and --priority are only for config" :
			     "config: --label, --subsystem, or --slot and --priority?";
	if ((request->label && strlen(request->label) > LUKS_LABEL_MAX) ||
	    (request->subsystem && strlen(request->subsystem) > LUKS_LABEL_MAX))
		return "--label and --subsystem take 47 bytes at the most";
	if (slot != !!request->priority)
		return "--priority is of a key slot: it needs --slot, and --slot it";
	return NULL;
}

static const char *take_header_operands(struct header_request *request, int count, char **operands)
{
	if (count < 1)
		return "backup, restore, erase or config?";
	for (size_t i = 0; i < sizeof(header_actions) / sizeof(header_actions[0]); i++)
		if (strcmp(operands[0], header_actions[i].name) == 0)
			request->action = &header_actions[i];
	if (!request->action)
		return "it is backup, restore, erase or config";
	if (count - 1 != request->action->operands)
		return request->action->operands == 2 ?
			       "it takes a locator, and the backup's file" :
			       "it takes one locator";
	request->place.locator = operands[1];
	request->place.writes = request->action->writes;
	request->file = count > 2 ? operands[2] : NULL;
	if (request->force && request->action->run != restore_header &&
	    request->action->run != erase_header)
		return "--force is only for restore and erase";
	if (request->place.no_lock && !request->place.writes)
		return "--no-lock-image is for what writes";
	return check_config(request);
}

static const struct option options[] = { OPEN_OPTION_HEADER("header", 0),
					 { "force", no_argument, NULL, OPT_HEADER_FORCE },
					 { "label", required_argument, NULL, OPT_LABEL },
					 { "subsystem", required_argument, NULL, OPT_SUBSYSTEM },
					 OPEN_OPTION_SLOT("slot", 0),
					 { "priority", required_argument, NULL, OPT_PRIORITY },
					 { "no-lock-image", no_argument, NULL, OPT_HEADER_NO_LOCK },
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

int cmd_header(int argc, char **argv)
{
	struct header_request request = { .how = UNLOCK_DEFAULT };
	int status = cmd_options(argc, argv, help_header, options, header_option, &request);
	const char *wrong;

	if (status != CMD_GO_ON)
		return status;
	wrong = take_header_operands(&request, argc - optind, argv + optind);
	return wrong ? cmd_usage(argv[0], "%s", wrong) :
		       header_run(&request.place, request.action->run, &request);
}
