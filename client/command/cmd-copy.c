/* cmd-copy: ndio copy, see ndio-copy_disk(1). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "attach/clash.h"
#include "base/align.h"
#include "command/cmd.h"
#include "command/endpoint-options.h"
#include "command/guard.h"
#include "copy/copy.h"
#include "copy/source.h"
#include "terminal/number.h"

#define DEFAULT_SPARSE   4096
#define CONNECTIONS_MAX  64
#define REQUESTS_MAX     1024 /* for each */
#define REQUEST_SIZE_MIN 4096
#define REQUEST_SIZE_MAX (32 * 1024 * 1024)

const char help_copy[] =
	"Usage: ndio copy [OPTION...] SRC DST\n"
	"Copies a disk, encrypted or not, local or remote, to another.\n"
	"\n"
	"SRC and DST are the path of a file or block device, an NBD URI, or - for standard\n"
	"input or output. DST can also be null:, which keeps nothing.\n"
	"\n"
	"A side without a key is copied as it is: to copy ciphertext, give none.\n" ENDPOINT_HELP
	"                        the same for DST, which has to be formatted before\n"
	"\n"
	"  -p, --progress        show a progress bar, or now and then a line if stderr is no terminal\n"
	"      --progress=json, --progress=FD\n"
	"                        a line of JSON each second, on stderr or a descriptor\n"
	"  -S, --sparse=N        do not write runs of at least N zero bytes as data; a power of\n"
	"                        two from 512 to 256K, or 0: copy them (default 4K)\n"
	"      --destination-is-zero\n"
	"                        DST reads as zeroes everywhere: do not write zeroes\n"
	"      --resume[=OFFSET] a copy that was stopped goes on\n"
	"  -C, --connections=N   to each server that allows several (default 4)\n"
	"  -R, --requests=N      at once, for each connection (default 16)\n"
	"      --request-size=N  of each; a power of two from 4K to 32M (default 256K)\n"
	"      --rate=N          read no more than N bytes a second, such as 20M\n"
	"      --checksum=NAME   tell the checksum of all that SRC holds, such as sha256\n"
	"      --skip-holes      holes of SRC are not written at all: DST keeps what it has there\n"
	"      --only-changes    read both sides, and write only what differs\n"
	"      --overwrite       DST may hold a LUKS volume, a file system or a partition table\n"
	"                        that SRC has nothing in place of\n"
	"  -h, --help            show this\n"
	"\n"
	"Exit status: 0 all was copied and flushed, 1 it was not, 2 the command line makes no\n"
	"sense.\n";

enum {
	OPT_DESTINATION_IS_ZERO = ENDPOINT_END,
	OPT_OVERWRITE,
	OPT_RESUME,
	OPT_REQUEST_SIZE,
	OPT_RATE,
	OPT_CHECKSUM,
	OPT_SKIP_HOLES,
	OPT_ONLY_CHANGES,
};

static const struct option options[] = {
	ENDPOINT_OPTIONS,
	{ "progress", optional_argument, NULL, 'p' },
	{ "sparse", required_argument, NULL, 'S' },
	{ "destination-is-zero", no_argument, NULL, OPT_DESTINATION_IS_ZERO },
	{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
	{ "resume", optional_argument, NULL, OPT_RESUME },
	{ "connections", required_argument, NULL, 'C' },
	{ "requests", required_argument, NULL, 'R' },
	{ "request-size", required_argument, NULL, OPT_REQUEST_SIZE },
	{ "rate", required_argument, NULL, OPT_RATE },
	{ "checksum", required_argument, NULL, OPT_CHECKSUM },
	{ "skip-holes", no_argument, NULL, OPT_SKIP_HOLES },
	{ "only-changes", no_argument, NULL, OPT_ONLY_CHANGES },
	CMD_OPTIONS_END
};

struct arguments {
	struct endpoint_spec source, destination;
	struct copy_options copy;
	unsigned connections;
	bool destination_is_zero, overwrite;
};

static bool set_sparse(struct copy_options *copy, const char *value)
{
	uint64_t size;

	if (!parse_size(value, &size) || size > COPY_REQUEST_SIZE)
		return false;
	if (size && (size < 512 || !is_aligned(size, size)))
		return false;
	copy->sparse = size;
	return true;
}

/* OFFSET, or OFFSET/SIZE as a copy that was stopped has told, or nothing. */
static bool set_resume(struct copy_options *copy, const char *value)
{
	const char *slash = value ? strchr(value, '/') : NULL;
	char offset[32];

	copy->resume = true;
	if (!value)
		return true;
	snprintf(offset, sizeof(offset), "%.*s", slash ? (int)(slash - value) : 31, value);
	return parse_number(offset, INT64_MAX, &copy->from.offset) &&
	       (!slash || parse_number(slash + 1, INT64_MAX, &copy->from.size));
}

/* From min to max. */
static bool set_count(unsigned *count, const char *value, unsigned max)
{
	uint64_t number;

	if (!parse_number(value, max, &number) || number == 0)
		return false;
	*count = number;
	return true;
}

static bool set_request_size(struct copy_options *copy, const char *value)
{
	uint64_t size;

	if (!parse_size(value, &size) || size < REQUEST_SIZE_MIN || size > REQUEST_SIZE_MAX ||
	    !is_aligned(size, size))
		return false;
	copy->request_size = size;
	return true;
}

static bool set_rate(struct copy_options *copy, const char *value)
{
	return parse_size(value, &copy->rate) && copy->rate > 0;
}

static bool set_checksum(struct copy_options *copy, const char *value)
{
	copy->checksum = value;
	return digest_is_known(value);
}

/* False where the option's value makes no sense. */
static bool set_copy_option(struct arguments *args, int option, const char *value)
{
	switch (option) {
	case 'p':
		return progress_parse(value, &args->copy.progress);
	case 'S':
		return set_sparse(&args->copy, value);
	case OPT_DESTINATION_IS_ZERO:
		args->destination_is_zero = true;
		return true;
	case OPT_OVERWRITE:
		args->overwrite = true;
		return true;
	case OPT_RESUME:
		return set_resume(&args->copy, value);
	case OPT_RATE:
		return set_rate(&args->copy, value);
	case OPT_CHECKSUM:
		return set_checksum(&args->copy, value);
	case OPT_SKIP_HOLES:
		args->copy.skip_holes = true;
		return true;
	case OPT_ONLY_CHANGES:
		args->copy.only_changes = true;
		return true;
	case 'C':
		return set_count(&args->connections, value, CONNECTIONS_MAX);
	case 'R':
		return set_count(&args->copy.requests, value, REQUESTS_MAX);
	default:
		return set_request_size(&args->copy, value);
	}
}

static const char *option_name(int option)
{
	for (size_t i = 0; options[i].name; i++)
		if (options[i].val == option)
			return options[i].name;
	return "";
}

/* What else can be wrong with an option's value. */
static const char *option_hint(int option)
{
	switch (option) {
	case 'p':
		return ": it takes json, or a descriptor that is open for writing";
	case 'S':
		return ": it takes a power of two from 512 to 256K, or 0";
	case 'C':
	case 'R':
	case OPT_REQUEST_SIZE:
		return ": it takes 1 to 64 connections, 1 to 1024 requests for each, and a power of "
		       "two from 4K to 32M as their size";
	case OPT_RATE:
		return ": it takes bytes a second, such as 500K or 20M";
	case OPT_CHECKSUM:
		return ": it takes one that OpenSSL has, such as sha256 or blake2b512";
	default:
		return ": it takes what a copy that was stopped has told, OFFSET or OFFSET/SIZE";
	}
}

static const char *copy_option(void *opaque, int option, const char *value)
{
	static char wrong[2048];
	struct arguments *args = opaque;

	if (endpoint_has_option(option))
		return endpoint_option(&args->source, &args->destination, option, value);
	if (set_copy_option(args, option, value))
		return NULL;
	snprintf(wrong, sizeof(wrong), "--%s makes no sense with \"%s\"%s", option_name(option),
		 value, option_hint(option));
	return wrong;
}

/* Before anything else is opened, and gets its number. */
static bool descriptor_is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* What same_bytes() can look at. */
static const char *name_of(const struct endpoint_spec *spec, const char *stream)
{
	return strcmp(spec->locator, "-") == 0 ? stream : spec->locator;
}

/* Refuses a destination that is the source, or a header or a key of one of the two, or what one of these
 * is on. -EINVAL with a message. */
static int check_clash(const struct endpoint_spec *source, const struct endpoint_spec *destination,
		       struct error *err)
{
	const char *written = name_of(destination, "/proc/self/fd/1");
	int ret;

	if (strcmp(destination->locator, "null:") == 0)
		return 0;
	ret = clash_refuse(written, name_of(source, "/proc/self/fd/0"), "the source", err);
	if (ret == 0)
		ret = clash_refuse(written, source->header, "the source's header", err);
	if (ret == 0)
		ret = clash_refuse_key(written, &source->key, err);
	if (ret == 0)
		ret = clash_refuse(written, destination->header, "its own header", err);
	if (ret == 0)
		ret = clash_refuse_key(written, &destination->key, err);
	return ret;
}

/* Options that exclude each other, or a side. */
static int check_changes(const char *self, const struct arguments *args)
{
	const struct copy_options *copy = &args->copy;
	const char *src = args->source.locator, *dst = args->destination.locator;

	if (copy->only_changes && (copy->resume || args->destination_is_zero))
		return cmd_usage(self, "--only-changes looks at all of the destination: it isn't "
				       "for --resume or --destination-is-zero");
	if (copy->only_changes && strcmp(src, "-") == 0)
		return cmd_usage(self, "--only-changes needs a source that can be read anywhere");
	if (copy->only_changes && endpoint_is_special(dst))
		return cmd_usage(self, "%s: --only-changes needs a destination that can be read",
				 dst);
	if (copy->skip_holes && strcmp(dst, "-") == 0)
		return cmd_usage(self,
				 "--skip-holes needs a destination that can be written anywhere");
	return CMD_OK;
}

static int check_copy(const char *self, const struct arguments *args)
{
	const struct endpoint_spec *src = &args->source, *dst = &args->destination;
	const struct key_source input = { .file = "-", .fd = -1 };
	bool pipe = strcmp(src->locator, "-") == 0;
	struct error err;
	int status;

	if (strcmp(src->locator, "null:") == 0)
		return cmd_usage(self, "null: can only be a destination");
	status = endpoint_check(self, src);
	if (status == CMD_OK)
		status = endpoint_check(self, dst);
	if (status != CMD_OK)
		return status;
	if (key_sources_clash(&src->key, &dst->key) ||
	    (pipe && key_sources_clash(&dst->key, &input)))
		return cmd_usage(self, "one stream can't be read for two things");
	status = check_changes(self, args);
	if (status != CMD_OK)
		return status;
	if (args->copy.sparse > args->copy.request_size)
		return cmd_usage(self, "--sparse is larger than --request-size");
	if ((uint64_t)args->copy.requests * args->copy.request_size > COPY_MEMORY_MAX)
		return cmd_usage(self,
				 "so many requests of that size take more than 1 GiB of memory");
	if (args->copy.resume && endpoint_is_special(dst->locator))
		return cmd_usage(self, "%s: a copy to there can't go on", dst->locator);
	if (pipe && !descriptor_is_open(STDIN_FILENO))
		return cmd_error("standard input: it is closed");
	if (strcmp(dst->locator, "-") == 0 && !descriptor_is_open(STDOUT_FILENO))
		return cmd_error("standard output: it is closed");
	if (args->copy.progress.how == PROGRESS_JSON && args->copy.progress.fd == STDOUT_FILENO &&
	    strcmp(dst->locator, "-") == 0)
		return cmd_usage(self, "progress can't go where the copy does");
	return check_clash(src, dst, &err) < 0 ? cmd_error("%s", err.text) : CMD_GO_ON;
}

static int parse_copy(int argc, char **argv, struct arguments *args)
{
	int status;

	*args = (struct arguments){
		.source = ENDPOINT_SPEC_NONE,
		.destination = ENDPOINT_SPEC_NONE,
		.connections = COPY_CONNECTIONS,
		.copy = {
			.sparse = DEFAULT_SPARSE,
			.requests = COPY_REQUESTS,
			.request_size = COPY_REQUEST_SIZE,
			.from = { SIZE_UNKNOWN, SIZE_UNKNOWN },
		},
	};
	status = cmd_options(argc, argv, help_copy, options, copy_option, args);
	if (status != CMD_GO_ON)
		return status;
	if (argc - optind != 2)
		return cmd_usage(argv[0], "a source and a destination are needed");
	args->source.locator = argv[optind];
	args->destination.locator = argv[optind + 1];
	args->source.connections = args->destination.connections = args->connections;
	args->copy.requests *= args->connections;
	return check_copy(argv[0], args);
}

/* What differed below is written; the rest is as it was, and this can't be taken for whole. */
static int tell_changes_stopped(const struct error *err, const struct copy_report *report)
{
	cmd_error("%s", err->text);
	return cmd_error("stopped at %" PRIu64 " of %" PRIu64 " bytes: %" PRIu64
			 " bytes that differed are written, but not flushed; the same command "
			 "goes on",
			 report->done, report->total, report->changed);
}

static int tell_stopped(const struct error *err, const struct copy_report *report,
			const struct endpoint *destination)
{
	char of[32] = "", cut[64] = "", hint[128] = "";

	if (report->total != SIZE_UNKNOWN)
		snprintf(of, sizeof(of), " of %" PRIu64, report->total);
	if (destination->file >= 0 && !report->keep)
		snprintf(cut, sizeof(cut), "; the file is cut to %" PRIu64 " bytes", report->below);
	if (destination->file >= 0)
		snprintf(hint, sizeof(hint), "; --resume goes on");
	else if (destination->ops->resume && report->total != SIZE_UNKNOWN)
		snprintf(hint, sizeof(hint),
			 "; --resume=%" PRIu64 "/%" PRIu64 " goes on from there", report->below,
			 report->total);
	cmd_error("%s", err->text);
	return cmd_error("stopped at %" PRIu64 " bytes%s: everything below offset %" PRIu64
			 " is written%s%s%s",
			 report->done, of, report->below,
			 destination->ops->resume ? ", but not flushed" : "", cut, hint);
}

/* It couldn't begin. */
static int tell_unbegun(const struct error *err, struct endpoint *destination)
{
	bool unmade = endpoint_unmake(destination);

	return cmd_error("%s%s", err->text, unmade ? "; no file is left" : "");
}

/* The checksum as sha256sum(1) has it; on stderr, where standard output has the disk. */
static void tell_done(const struct copy_options *copy, const struct copy_report *report,
		      const struct endpoint *source, const struct endpoint *destination)
{
	FILE *out = destination->fd == STDOUT_FILENO ? stderr : stdout;

	if (copy->only_changes)
		printf("%" PRIu64 " of %" PRIu64 " bytes differed, and were written\n",
		       report->changed, report->total);
	if (copy->checksum)
		fprintf(out, "%s  %s\n", report->checksum, source->name);
}

static int copy_disk(struct endpoint *source, struct endpoint *destination,
		     const struct copy_options *copy_options)
{
	struct copy_report report;
	struct error err = { 0 };

	if (copy_run(source, destination, copy_options, &report, &err) < 0) {
		if (!report.begun)
			return tell_unbegun(&err, destination);
		if (copy_options->only_changes && report.keep)
			return tell_changes_stopped(&err, &report);
		if (!report.keep)
			endpoint_cut(destination, report.below);
		return tell_stopped(&err, &report, destination);
	}
	if (!(destination->can & NDIO_CAN_FLUSH))
		cmd_error("warning: %s: the server has no flush: the data may not be on stable "
			  "storage yet",
			  destination->name);
	tell_done(copy_options, &report, source, destination);
	return CMD_OK;
}

/* Where a stream was cut off is nowhere to be seen. */
static int check_sizes(const struct arguments *args, const struct endpoint *source,
		       struct error *err)
{
	if (args->copy.only_changes && source->size == SIZE_UNKNOWN)
		return error_set(err, EINVAL,
				 "%s: --only-changes needs a source that can be read anywhere",
				 source->name);
	if (args->copy.resume && source->size == SIZE_UNKNOWN)
		return error_set(err, EINVAL,
				 "%s: --resume needs a source that can be read anywhere",
				 source->name);
	return 0;
}

/* What is left out of a stream would be missing from it. */
static int check_holes(const struct arguments *args, const struct endpoint *source,
		       const struct endpoint *destination, struct error *err)
{
	if (!args->copy.skip_holes)
		return 0;
	if (destination->ops == &endpoint_stream)
		return error_set(err, EINVAL,
				 "%s: --skip-holes needs a destination that can be written "
				 "anywhere",
				 destination->name);
	if (!(source->can & NDIO_CAN_EXTENTS))
		cmd_error("%s: it doesn't tell where its holes are%s: all of it is copied",
			  source->name, source->encrypted ? ", as it is encrypted" : "");
	return 0;
}

int cmd_copy(int argc, char **argv)
{
	struct endpoint source = { 0 }, destination = { 0 };
	struct arguments args;
	struct error err = { 0 };
	int status = parse_copy(argc, argv, &args);

	if (status != CMD_GO_ON)
		return status;
	progress_catch_signal();
	if (endpoint_open_source(&source, &args.source, &err) < 0 ||
	    check_sizes(&args, &source, &err) < 0 ||
	    endpoint_open_destination(&destination, &args.destination, &source, &err) < 0 ||
	    check_holes(&args, &source, &destination, &err) < 0 ||
	    guard_destination(&source, &destination, args.overwrite, &err) < 0) {
		status = tell_unbegun(&err, &destination);
	} else {
		source_look(&source, &destination);
		/* What a copy that was stopped has written isn't zero; and a stream has no bytes but
		 * those that are written. */
		destination.zeroed |=
			args.destination_is_zero && !args.copy.resume && destination.volume;
		status = copy_disk(&source, &destination, &args.copy);
	}
	endpoint_close(&destination);
	endpoint_close(&source);
	return status;
}
