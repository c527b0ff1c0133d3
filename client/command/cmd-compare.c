/* cmd-compare: ndio compare, see ndio-compare_disks(1). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command/cmd.h"
#include "command/endpoint-options.h"
#include "copy/compare.h"

#define DIFFER         1 /* exit statuses, as those of cmp(1) and qemu-img compare */
#define TROUBLE        2
#define PROGRESS_WRONG "--progress takes json, or a descriptor that is open for writing"

const char help_compare[] =
	"Usage: ndio compare [OPTION...] SRC DST\n"
	"Tells whether two disks, encrypted or not, local or remote, hold the same bytes.\n"
	"\n"
	"SRC and DST are the path of a file or block device, an NBD URI, or - for standard input.\n"
	"Nothing is written. What was copied is compared by the options that copied it.\n"
	"\n"
	"A side without a key is compared as it is: ciphertext, where it is encrypted.\n" ENDPOINT_HELP
	"                        the same for DST\n"
	"\n"
	"  -s, --strict          they differ, too, if their sizes do; else what one is longer has to\n"
	"                        be zero\n"
	"  -q, --quiet           only tell by the exit status, and what goes wrong\n"
	"  -p, --progress        show a progress bar, or now and then a line if stderr is no terminal\n"
	"      --progress=json, --progress=FD\n"
	"                        a line of JSON each second, on stderr or a descriptor\n"
	"  -h, --help            show this\n"
	"\n"
	"Exit status: 0 they are the same, 1 they differ, 2 it isn't known, or the command line\n"
	"makes no sense.\n";

static const struct option options[] = { ENDPOINT_OPTIONS,
					 { "strict", no_argument, NULL, 's' },
					 { "quiet", no_argument, NULL, 'q' },
					 { "progress", optional_argument, NULL, 'p' },
					 CMD_OPTIONS_END };

struct arguments {
	struct endpoint_spec source, destination;
	struct compare_options compare;
	bool quiet;
};

static const char *compare_option(void *opaque, int option, const char *value)
{
	struct arguments *args = opaque;

	switch (option) {
	case 's':
		args->compare.strict = true;
		return NULL;
	case 'q':
		args->quiet = true;
		return NULL;
	case 'p':
		return progress_parse(value, &args->compare.progress) ? NULL : PROGRESS_WRONG;
	default:
		return endpoint_option(&args->source, &args->destination, option, value);
	}
}

static bool is_input(const struct endpoint_spec *spec)
{
	return strcmp(spec->locator, "-") == 0;
}

static int check_compare(const char *self, const struct arguments *args)
{
	const struct endpoint_spec *src = &args->source, *dst = &args->destination;
	const struct key_source input = { .file = "-", .fd = -1 };

	if (strcmp(src->locator, "null:") == 0 || strcmp(dst->locator, "null:") == 0)
		return cmd_usage(self, "null: holds nothing to compare");
	if (endpoint_check(self, src) != CMD_OK || endpoint_check(self, dst) != CMD_OK)
		return TROUBLE;
	if (key_sources_clash(&src->key, &dst->key) || (is_input(src) && is_input(dst)) ||
	    ((is_input(src) || is_input(dst)) &&
	     (key_sources_clash(&src->key, &input) || key_sources_clash(&dst->key, &input))))
		return cmd_usage(self, "one stream can't be read for two things");
	return CMD_GO_ON;
}

static int parse_compare(int argc, char **argv, struct arguments *args)
{
	int status;

	*args = (struct arguments){
		.source = ENDPOINT_SPEC_NONE,
		.destination = ENDPOINT_SPEC_NONE,
	};
	status = cmd_options(argc, argv, help_compare, options, compare_option, args);
	if (status != CMD_GO_ON)
		return status;
	if (argc - optind != 2)
		return cmd_usage(argv[0], "it takes two disks");
	args->source.locator = argv[optind];
	args->destination.locator = argv[optind + 1];
	return check_compare(argv[0], args);
}

static void tell_equal(const struct compare_report *report)
{
	unsigned longer = report->size[1] > report->size[0];

	printf("the same");
	if (report->size[0] != report->size[1])
		printf(", but the %s has %" PRIu64 " bytes more, which are zero",
		       longer ? "second" : "first", report->size[longer] - report->size[!longer]);
	putchar('\n');
}

static void tell_difference(const struct compare_report *report)
{
	const char *ended = report->offset >= report->size[0] ? ", where the first has ended" :
			    report->offset >= report->size[1] ? ", where the second has ended" :
								"";

	printf("they differ, first at offset %" PRIu64 "%s\n", report->offset, ended);
}

/* A message that can't be printed is trouble, and not a difference. */
static int tell_outcome(const struct arguments *args, const struct compare_report *report)
{
	if (!args->quiet && report->outcome == COMPARE_EQUAL)
		tell_equal(report);
	else if (!args->quiet && report->outcome == COMPARE_CONTENT)
		tell_difference(report);
	else if (!args->quiet)
		printf("they differ in size: %" PRIu64 " and %" PRIu64 " bytes\n", report->size[0],
		       report->size[1]);
	if (fflush(stdout) != 0)
		return TROUBLE;
	return report->outcome == COMPARE_EQUAL ? CMD_OK : DIFFER;
}

static int trouble(const struct error *err)
{
	cmd_error("%s", err->text);
	return TROUBLE;
}

static int compare_disks(struct endpoint *source, struct endpoint *destination,
			 const struct arguments *args)
{
	struct compare_report report;
	struct error err = { 0 };

	if (compare_run(source, destination, &args->compare, &report, &err) == 0)
		return tell_outcome(args, &report);
	trouble(&err);
	cmd_error("stopped: everything below offset %" PRIu64 " is the same", report.offset);
	return TROUBLE;
}

int cmd_compare(int argc, char **argv)
{
	struct endpoint source = { 0 }, destination = { 0 };
	struct arguments args;
	struct error err = { 0 };
	int status = parse_compare(argc, argv, &args);

	if (status == CMD_OK && fflush(stdout) != 0)
		status = TROUBLE; /* the help: 1 would be an answer */
	if (status != CMD_GO_ON)
		return status;
	progress_catch_signal();
	if (endpoint_open_source(&source, &args.source, &err) < 0 ||
	    endpoint_open_source(&destination, &args.destination, &err) < 0)
		status = trouble(&err);
	else
		status = compare_disks(&source, &destination, &args);
	endpoint_close(&destination);
	endpoint_close(&source);
	return status;
}
