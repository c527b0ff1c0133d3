/* cmd-trust: ndio trust. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attach/clash.h"
#include "command/cmd.h"
#include "command/header-run.h"
#include "command/open-options.h"
#include "command/trust-make.h"
#include "locator/locator.h"
#include "terminal/key-input.h"
#include "terminal/key-try.h"

const char help_trust[] =
	"Usage: ndio trust [--trust FILE] [OPTION...] LOCATOR\n"
	"Seal the header of an encrypted disk that one has reason to believe in, and keep what all of\n"
	"the disk is now in a file: from then on another header, or an older disk, is found out.\n"
	"\n"
	"  --trust FILE       the file to make; without it only the header is sealed, in itself\n"
	"  --again            the header, or the disk, was changed elsewhere: what it is now is\n"
	"                     believed, and FILE is made anew\n"
	"  --header-only      with --again: only the header was; what FILE knows of the data stays\n"
	"  --yes              do not ask\n"
	"  --key-file FILE    a key that opens it: every byte of FILE; - is standard input\n" OPEN_HELP_KEY_PART
		OPEN_HELP_VOLUME_KEY OPEN_HELP_SLOT OPEN_HELP_TOKEN OPEN_HELP_MAX_KDF_TIME
			OPEN_HELP_HEADER OPEN_HELP_NO_LOCK OPEN_HELP_ANSWER_TIMEOUT
	"  -h, --help         show this\n"
	"\n"
	"Without a key file or descriptor the passphrase is asked for. A disk with integrity is read\n"
	"whole. See ndio-trust(1).\n";

enum { OPT_AGAIN = 256, OPT_HEADER_ONLY, OPT_TRUST_NO_LOCK, OPT_TRUST_YES };

struct request {
	struct trust_job job;
	struct key_source key_source;
	struct unlock_options how;
	bool yes;
};

/* What is written may be neither a key nor a disk. */
static int check_trust_names(const struct request *request, struct error *err)
{
	const struct header_place *place = &request->job.place;
	const char *header = header_place_name(place), *trust = request->how.trust;
	int ret = locator_kind(header, err);

	if (ret >= 0 && place->header)
		ret = locator_kind(place->locator, err);
	if (ret >= 0)
		ret = clash_refuse_key(header, &request->key_source, err);
	if (ret < 0 || !trust)
		return ret;
	ret = locator_check_path(trust, "a trust file", err);
	if (ret == 0)
		ret = clash_refuse(trust, header, "the disk", err);
	if (ret == 0)
		ret = clash_refuse_key(trust, &request->key_source, err);
	return ret;
}

/* What is given up. */
static int ask_to_believe(const struct request *request, struct error *err)
{
	const char *locator = request->job.place.locator;
	char question[1024];
	int ret;

	if (!request->job.again || request->yes)
		return 0;
	snprintf(
		question, sizeof(question),
		"%s will be believed as it is now, whoever has made it so: an older disk or another "
		"header isn't found out any more. Type YES to go on:",
		locator);
	ret = terminal_confirm(question);
	if (ret == 1)
		return 0;
	return ret == 0 ?
		       error_set(err, ECANCELED, "%s: nothing was done", locator) :
		       error_set(err, EEXIST,
				 "%s: it would be believed as it is now, whoever has made it so; "
				 "without a terminal to ask at, --yes is needed",
				 locator);
}

static int run_trust(struct request *request)
{
	struct error err = { 0 };
	char prompt[4200];
	struct key key = { 0 };
	int ret = check_trust_names(request, &err);

	trust_job_init(&request->job);
	if (ret >= 0)
		ret = trust_job_look(&request->job, &err);
	if (ret == 0)
		ret = ask_to_believe(request, &err);
	snprintf(prompt, sizeof(prompt), "Passphrase for %s", request->job.place.locator);
	if (ret == 0)
		ret = key_try(&request->key_source, &request->how, prompt, &key, trust_job_try_key,
			      &request->job, &err);
	key_clear(&key);
	if (ret == 0)
		ret = trust_job_run(&request->job, &err);
	trust_job_end(&request->job);
	if (ret < 0)
		cmd_error("%s", err.text);
	return ret < 0 ? CMD_FAILED : CMD_OK;
}

static const char *trust_option(void *opaque, int option, const char *value)
{
	struct request *request = opaque;
	const struct open_options open = {
		.key = &request->key_source,
		.how = &request->how,
		.header = &request->job.place.header,
		.answer_timeout = &request->job.place.answer_timeout,
		.twice = "a key comes from one --key-file or --key-fd",
	};

	switch (option) {
	case OPT_AGAIN:
		request->job.again = true;
		return NULL;
	case OPT_HEADER_ONLY:
		request->job.header_only = true;
		return NULL;
	case OPT_TRUST_YES:
		request->yes = true;
		return NULL;
	case OPT_TRUST_NO_LOCK:
		request->job.place.no_lock = true;
		return NULL;
	default:
		return open_option(&open, option, value);
	}
}

static const struct option options[] = { OPEN_OPTION_TRUST("trust", 0),
					 { "again", no_argument, NULL, OPT_AGAIN },
					 { "header-only", no_argument, NULL, OPT_HEADER_ONLY },
					 { "yes", no_argument, NULL, OPT_TRUST_YES },
					 OPEN_OPTIONS_KEY("", 0),
					 OPEN_OPTION_VOLUME_KEY("volume-key-file", 0),
					 OPEN_OPTION_SLOT("slot", 0),
					 OPEN_OPTION_TOKEN("token", 0),
					 OPEN_OPTION_MAX_KDF_TIME,
					 OPEN_OPTION_HEADER("header", 0),
					 { "no-lock-image", no_argument, NULL, OPT_TRUST_NO_LOCK },
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

int cmd_trust(int argc, char **argv)
{
	struct request request = {
		.job.place.writes = true,
		.key_source = KEY_SOURCE_NONE,
		.how = UNLOCK_DEFAULT,
	};
	int status = cmd_options(argc, argv, help_trust, options, trust_option, &request);

	if (status != CMD_GO_ON)
		return status;
	if (argc - optind != 1)
		return cmd_usage(argv[0], "it takes one locator");
	if (key_source_check(&request.key_source))
		return cmd_usage(argv[0], "%s", key_source_check(&request.key_source));
	if (request.job.header_only && (!request.job.again || !request.how.trust))
		return cmd_usage(argv[0], "--header-only goes with --again and --trust");
	if (request.yes && !request.job.again)
		return cmd_usage(argv[0], "--yes is for --again");
	request.job.place.locator = argv[optind];
	request.job.path = request.how.trust;
	request.job.how = &request.how;
	return run_trust(&request);
}
