/* cmd-attach: ndio attach. */
#include <stdio.h>
#include <string.h>

#include "attach/attach.h"
#include "attach/kernel-device.h"
#include "attach/ndiotab.h"
#include "command/cmd.h"
#include "command/open-options.h"
#include "nbd/target-nbd.h"
#include "terminal/number.h"

const char help_attach[] =
	"Usage: ndio attach [OPTION...] LOCATOR [DEVICE]\n"
	"       ndio attach --tab [--tab-file FILE] DEVICE\n"
	"Make the plaintext of an encrypted disk a block device, /dev/nbdN, and print its name.\n"
	"DEVICE is nbd0, nbd1, ...; without it the first one that is free is taken.\n"
	"\n"
	"  --key-file FILE    every byte of FILE is the key; - is standard input\n" OPEN_HELP_KEY_PART
		OPEN_HELP_VOLUME_KEY OPEN_HELP_SLOT OPEN_HELP_TOKEN OPEN_HELP_MAX_KDF_TIME
			OPEN_HELP_HEADER OPEN_HELP_TRUST "  --read-only        never write\n"
	"  --discard          pass trims on: the server sees which sectors are unused\n"
	"  --connections N    to the server, if it allows several (1 to 64, default 4)\n"
	"  --block-size BYTES\n"
	"                     the device's: 512, 1024, 2048 or 4096 (default: the volume's sector)\n"
	"  --timeout SECONDS  until a connection that doesn't answer is given up (default 90);\n"
	"                     a request fails when all of them are\n" OPEN_HELP_ANSWER_TIMEOUT
	"  --reconnect SECONDS\n"
	"                     one that is away is waited for so long (default 300)\n"
	"  --unflushed SIZE   memory for what it may lose when it is restarted (default 64M)\n"
	"  --metrics WHERE    statistics: HOST:PORT or a socket's path, for HTTP, or a file\n"
	"                     whose name ends in .prom\n"
	"  --tab              attach it as its line in /etc/ndiotab says\n"
	"  --tab-file FILE    or in this file\n"
	"  -h, --help         show this\n"
	"\n"
	"Without a key file or descriptor the passphrase is asked for. Not for swap.\n"
	"See ndio-attach(8).\n";

enum {
	OPT_READ_ONLY = 256,
	OPT_DISCARD,
	OPT_CONNECTIONS,
	OPT_BLOCK_SIZE,
	OPT_TIMEOUT,
	OPT_RECONNECT,
	OPT_UNFLUSHED,
	OPT_METRICS,
	OPT_TAB,
	OPT_TAB_FILE
};

static const struct option options[] = { OPEN_OPTIONS_KEY("", 0),
					 OPEN_OPTION_SLOT("slot", 0),
					 OPEN_OPTION_TOKEN("token", 0),
					 OPEN_OPTION_VOLUME_KEY("volume-key-file", 0),
					 OPEN_OPTION_MAX_KDF_TIME,
					 OPEN_OPTION_HEADER("header", 0),
					 OPEN_OPTION_TRUST("trust", 0),
					 { "read-only", no_argument, NULL, OPT_READ_ONLY },
					 { "discard", no_argument, NULL, OPT_DISCARD },
					 { "connections", required_argument, NULL,
					   OPT_CONNECTIONS },
					 { "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
					 { "timeout", required_argument, NULL, OPT_TIMEOUT },
					 { "reconnect", required_argument, NULL, OPT_RECONNECT },
					 { "unflushed", required_argument, NULL, OPT_UNFLUSHED },
					 { "metrics", required_argument, NULL, OPT_METRICS },
					 { "tab", no_argument, NULL, OPT_TAB },
					 { "tab-file", required_argument, NULL, OPT_TAB_FILE },
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

struct command_line {
	struct attach_spec spec;
	bool tab; /* the argument is the device of a line */
	const char *tab_file;
	bool has_spec; /* an option was given that such a line has itself */
};

static bool attach_take_number(const char *value, unsigned min, unsigned max, unsigned *number)
{
	uint64_t n;

	if (!parse_number(value, max, &n) || n < min)
		return false;
	*number = n;
	return true;
}

/* What is wrong with it, or NULL. */
static const char *take_spec(struct attach_spec *spec, int option, const char *value)
{
	const struct open_options open = {
		.key = &spec->key,
		.how = &spec->unlock,
		.header = &spec->header,
		.answer_timeout = &spec->answer_timeout,
		.twice = "a key comes from one --key-file or --key-fd",
	};

	switch (option) {
	case OPT_READ_ONLY:
		spec->read_only = true;
		return NULL;
	case OPT_DISCARD:
		spec->discard = true;
		return NULL;
	case OPT_CONNECTIONS:
		return attach_take_number(value, 1, ATTACH_CONNECTIONS_MAX, &spec->connections) ?
			       NULL :
			       "--connections takes a number from 1 to 64";
	case OPT_BLOCK_SIZE:
		return attach_take_number(value, 0, UINT_MAX, &spec->block_size) &&
				       attach_block_size_valid(spec->block_size) ?
			       NULL :
			       "--block-size takes 512, 1024, 2048 or 4096";
	case OPT_TIMEOUT:
		return attach_take_number(value, ATTACH_TIMEOUT_MIN, ATTACH_TIMEOUT_MAX,
					  &spec->timeout) ?
			       NULL :
			       "--timeout takes seconds, from 5 to 86400";
	case OPT_RECONNECT:
		return attach_take_number(value, 0, ATTACH_RECONNECT_MAX, &spec->reconnect) ?
			       NULL :
			       "--reconnect takes seconds, from 0 to 86400";
	case OPT_UNFLUSHED:
		return parse_size(value, &spec->unflushed) &&
				       spec->unflushed >= TARGET_UNFLUSHED_MIN ?
			       NULL :
			       "--unflushed takes a size, 1M or more";
	case OPT_METRICS:
		spec->metrics = value;
		return NULL;
	default:
		return open_option(&open, option, value);
	}
}

static const char *attach_option(void *opaque, int option, const char *value)
{
	struct command_line *line = opaque;

	switch (option) {
	case OPT_TAB_FILE:
		line->tab = true;
		line->tab_file = value;
		return NULL;
	case OPT_TAB:
		line->tab = true;
		return NULL;
	default:
		line->has_spec = true;
		return take_spec(&line->spec, option, value);
	}
}

static const char *take_arguments(struct command_line *line, int argc, char **argv)
{
	unsigned index;

	if (line->tab) {
		if (line->has_spec)
			return "with --tab all else is said in the file";
		return argc == 1 && kernel_device_parse(argv[0], &index) ?
			       NULL :
			       "with --tab it takes one device: nbd0, nbd1, ...";
	}
	if (argc < 1 || argc > 2)
		return "it takes a locator, and perhaps a device";
	line->spec.locator = argv[0];
	if (argc == 2 && !kernel_device_parse(argv[1], &line->spec.index))
		return "a device is nbd0, nbd1, ...";
	if (line->spec.discard && line->spec.read_only)
		return "--discard is nothing for a device that can only be read";
	return key_source_check(&line->spec.key);
}

static int attach_disk(const struct attach_spec *spec)
{
	struct error err = { 0 };
	unsigned index;

	if (attach(spec, &index, &err) < 0)
		return cmd_error("%s", err.text);
	printf("/dev/nbd%u\n", index);
	return CMD_OK;
}

static int run_tab(const char *path, const char *device, struct attach_spec *spec)
{
	struct ndiotab_entry entry;
	struct error err = { 0 };
	int status;

	if (ndiotab_find(path, device, &entry, &err) < 0)
		return cmd_error("%s", err.text);
	kernel_device_parse(entry.device, &spec->index);
	spec->locator = entry.locator;
	spec->header = entry.header;
	spec->metrics = entry.metrics;
	spec->key.file = entry.key_file;
	spec->key.part = entry.key_part;
	spec->key.agents = true;
	spec->unlock.slot = entry.slot;
	spec->unlock.max_kdf_time = entry.max_kdf_time;
	spec->unlock.trust = entry.trust;
	if (entry.token)
		unlock_take_token(&spec->unlock, entry.token); /* it was checked */
	spec->read_only = entry.read_only;
	spec->discard = entry.discard;
	spec->block_size = entry.block_size;
	if (entry.connections)
		spec->connections = entry.connections;
	spec->answer_timeout = entry.answer_timeout;
	if (entry.reconnect != NDIOTAB_USUAL)
		spec->reconnect = entry.reconnect;
	spec->unflushed = entry.unflushed;
	spec->wait_first = true;
	if (entry.timeout)
		spec->timeout = entry.timeout;
	status = attach_disk(spec);
	ndiotab_entry_clear(&entry);
	return status;
}

int cmd_attach(int argc, char **argv)
{
	struct command_line line = {
		.spec = {
			.key = KEY_SOURCE_NONE,
			.unlock = UNLOCK_DEFAULT,
			.index = ATTACH_ANY,
			.connections = ATTACH_CONNECTIONS,
			.timeout = ATTACH_TIMEOUT,
			.reconnect = ATTACH_RECONNECT,
		},
		.tab_file = NDIOTAB_PATH,
	};
	int status = cmd_options(argc, argv, help_attach, options, attach_option, &line);
	const char *wrong;

	if (status != CMD_GO_ON)
		return status;
	wrong = take_arguments(&line, argc - optind, argv + optind);
	if (wrong)
		return cmd_usage(argv[0], "%s", wrong);
	return line.tab ? run_tab(line.tab_file, argv[optind], &line.spec) :
			  attach_disk(&line.spec);
}
