/* cmd-detach: ndio detach. */
#include <stdbool.h>
#include <stdio.h>

#include "attach/attach.h"
#include "attach/kernel-device.h"
#include "command/cmd.h"

const char help_detach[] =
	"Usage: ndio detach [OPTION...] DEVICE\n"
	"Flush a device that ndio attach has made, and let it go. One that is mounted or used\n"
	"otherwise is refused.\n"
	"\n"
	"  --force     even so, and without a flush: what isn't on the disk yet is lost\n"
	"  -h, --help  show this\n"
	"\n"
	"See ndio-attach(8).\n";

static int force;

static const struct option options[] = { { "force", no_argument, &force, true }, CMD_OPTIONS_END };

int cmd_detach(int argc, char **argv)
{
	struct error err = { 0 };
	unsigned index;
	int status = cmd_options(argc, argv, help_detach, options, NULL, NULL);

	if (status != CMD_GO_ON)
		return status;
	if (argc - optind != 1 || !kernel_device_parse(argv[optind], &index))
		return cmd_usage(argv[0], "it takes one device: nbd0, nbd1, ...");
	return detach(index, force, &err) < 0 ? cmd_error("%s", err.text) : CMD_OK;
}
