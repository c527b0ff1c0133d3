/* cmd-convert: ndio convert. */
#include <errno.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "attach/clash.h"
#include "command/cmd.h"
#include "command/header-run.h"
#include "command/open-options.h"
#include "header/header-backup.h"
#include "header/header-edit.h"
#include "terminal/key-input.h"

const char help_convert[] =
	"Usage: ndio convert --backup FILE [OPTION...] LOCATOR\n"
	"Make a LUKS1 header one of LUKS2, or back where that is possible.\n"
	"\n"
	"  --backup FILE      keep the header as it was there; needed\n"
	"  --type TYPE        luks2 (default) or luks1\n"
	"  --key-file FILE    a key that has to open it afterwards: every byte of FILE; - is standard\n"
	"                     input\n" OPEN_HELP_KEY_PART OPEN_HELP_HEADER OPEN_HELP_NO_LOCK
		OPEN_HELP_ANSWER_TIMEOUT "  -h, --help         show this\n"
	"\n"
	"The data stay as they are. See ndio-convert(1).\n";

enum { OPT_BACKUP = 256, OPT_CONVERT_TYPE, OPT_CONVERT_NO_LOCK };

struct convert {
	struct header_place place;
	const char *backup, *type;
	struct key_source key_source;
	struct key key;
};

static int find_end(struct header *header, uint64_t old_len, struct error *err)
{
	int ret = header_measure(header, err);

	if (ret < 0)
		return ret;
	/* What lay behind the shorter one is written, too. */
	if (header->len < old_len)
		header->len = old_len;
	if (header->len > header->size)
		return error_set(err, EINVAL, "%s: too small for the converted header",
				 header->name);
	header->first_is_stale = header->second_is_stale = false;
	return header_load_before(header, header->len, err);
}

/* In the memfd, where it can fail. */
static int convert_memfd(struct header *header, const struct convert *convert, struct error *err)
{
	const char *type = strcmp(convert->type, "luks1") == 0 ? CRYPT_LUKS1 : CRYPT_LUKS2;
	uint64_t old_len = header->len;
	int ret;

	header->memfd.log[0] = '\0';
	ret = crypt_convert(header->memfd.cd, type, NULL);
	if (ret < 0)
		return error_set(err, -ret, "%s: it can't be made %s: %s", header->name,
				 convert->type, luks_memfd_reason(&header->memfd, ret));
	return find_end(header, old_len, err);
}

static int write_converted(struct header *header, const struct convert *convert, struct error *err)
{
	const struct header_proof proof = { .key = &convert->key, .slot = LUKS_ANY_SLOT };
	bool proves = key_source_given(&convert->key_source);
	int ret = proves ? header_prove_memfd(header, &proof, err) : 0;

	return ret < 0 ? ret :
			 header_write_back(header, HEADER_CONVERTED, proves ? &proof : NULL, err);
}

static int convert_run(struct header *header, void *opaque, struct error *err)
{
	const struct convert *convert = opaque;
	bool written = false;
	int ret = header_run_load(header, &convert->place, err);

	if (ret < 0)
		return ret;
	if (header->version == (strcmp(convert->type, "luks1") == 0 ? 1 : 2))
		return error_set(err, EINVAL, "%s: it is %s already", header->name, convert->type);
	ret = header_backup(header, convert->backup, err);
	if (ret < 0)
		return ret;
	ret = convert_memfd(header, convert, err);
	if (ret == 0) {
		written = true;
		ret = write_converted(header, convert, err);
	}
	if (ret < 0 && !written)
		unlink(convert->backup);
	if (ret == 0)
		printf("%s: it is %s now; %s has the header as it was\n", convert->place.locator,
		       convert->type, convert->backup);
	return ret;
}

/* ---- the command line ---- */

static const char *convert_option(void *opaque, int option, const char *value)
{
	struct convert *convert = opaque;
	const struct open_options open = {
		.key = &convert->key_source,
		.header = &convert->place.header,
		.answer_timeout = &convert->place.answer_timeout,
		.twice = "a key comes from one --key-file or --key-fd",
	};

	switch (option) {
	case OPT_BACKUP:
		convert->backup = value;
		return NULL;
	case OPT_CONVERT_TYPE:
		convert->type = value;
		return strcmp(value, "luks1") == 0 || strcmp(value, "luks2") == 0 ?
			       NULL :
			       "--type takes luks2 or luks1";
	case OPT_CONVERT_NO_LOCK:
		convert->place.no_lock = true;
		return NULL;
	default:
		return open_option(&open, option, value);
	}
}

static int convert_with_key(struct convert *convert)
{
	struct error err = { 0 };
	int ret = 0, status;

	if (key_source_given(&convert->key_source)) {
		ret = clash_refuse_key(header_place_name(&convert->place), &convert->key_source,
				       &err);
		if (ret == 0)
			ret = key_read(&convert->key_source, "", false, &convert->key, &err);
	}
	status = ret < 0 ? cmd_error("%s", err.text) :
			   header_run(&convert->place, convert_run, convert);
	key_clear(&convert->key);
	return status;
}

static const struct option options[] = { { "backup", required_argument, NULL, OPT_BACKUP },
					 { "type", required_argument, NULL, OPT_CONVERT_TYPE },
					 OPEN_OPTIONS_KEY("", 0),
					 OPEN_OPTION_HEADER("header", 0),
					 { "no-lock-image", no_argument, NULL,
					   OPT_CONVERT_NO_LOCK },
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

int cmd_convert(int argc, char **argv)
{
	struct convert convert = { .place.writes = true,
				   .type = "luks2",
				   .key_source = KEY_SOURCE_NONE };
	int status = cmd_options(argc, argv, help_convert, options, convert_option, &convert);

	if (status != CMD_GO_ON)
		return status;
	if (argc - optind != 1)
		return cmd_usage(argv[0], "it takes one locator");
	if (!convert.backup)
		return cmd_usage(argv[0],
				 "--backup is needed: a crash in the middle leaves neither "
				 "header whole");
	if (key_source_check(&convert.key_source))
		return cmd_usage(argv[0], "%s", key_source_check(&convert.key_source));
	convert.place.locator = argv[optind];
	return convert_with_key(&convert);
}
