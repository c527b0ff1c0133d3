/* cmd-detach: ndio detach. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>

#include "attach/attach.h"
#include "command/cmd.h"
#include "attach/kernel-device.h"

const char help_detach[] =
	"Usage: ndio detach [OPTION...] DEVICE\n"
	"Flush a device that ndio attach has made, and let it go. One that is mounted or used\n"
	"otherwise is refused.\n"
	"\n"
	"  --force     even so, and without a flush: what isn't on the disk yet is lost\n"
	"  -h, --help  show this\n"
	"\n"
	"See ndio-attach(8).\n";

enum { OPT_FORCE = 256 };

static const struct option options[] = {
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

int cmd_detach(int argc, char **argv)
{
	struct error err = { 0 };
	bool force = false;
	unsigned index;
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == '?')
			return cmd_usage_hint(argv[0]);
		if (option == 'h') {
			fputs(help_detach, stdout);
			return CMD_OK;
		}
		force = true;
	}
	if (argc - optind != 1 || !kernel_device_parse(argv[optind], &index))
		return cmd_usage(argv[0], "it takes one device: nbd0, nbd1, ...");
	return detach(index, force, &err) < 0 ? cmd_error("%s", err.text) : CMD_OK;
}
