/* cmd-bench: ndio bench. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/bench.h"
#include "command/cmd.h"
#include "command/open-options.h"
#include "copy/unlocking.h"
#include "engine/cipher.h"
#include "locator/locator.h"
#include "terminal/json.h"
#include "terminal/key-input.h"
#include "terminal/key-try.h"
#include "terminal/number.h"
#include "terminal/overwrite.h"
#include "terminal/say.h"

const char help_bench[] =
	"Usage: ndio bench [OPTION...] LOCATOR\n"
	"Measure what a disk does, in half a minute, beside what the cipher could.\n"
	"\n"
	"  --json             as JSON\n"
	"  --seconds N        for each line, 0.1 to 600 (default 3)\n"
	"  --connections N    to a server that allows several (default 4)\n"
	"  --write-and-destroy\n"
	"                     measure writes, too: what the disk holds is LOST\n"
	"  --unlock           open it, with a passphrase that is asked for\n"
	"  --key-file FILE    open it: every byte of FILE is the key; - is standard input\n" OPEN_HELP_KEY_PART
		OPEN_HELP_TOKEN OPEN_HELP_HEADER OPEN_HELP_TRUST OPEN_HELP_VOLUME_KEY OPEN_HELP_SLOT
			OPEN_HELP_MAX_KDF_TIME OPEN_HELP_ANSWER_TIMEOUT
	"  -h, --help         show this\n"
	"\n"
	"See ndio-bench(1).\n";

enum { OPT_BENCH_JSON = 256, OPT_BENCH_UNLOCK, OPT_SECONDS, OPT_BENCH_CONNECTIONS, OPT_DESTROY };

#define MS_MIN          100
#define MS_MAX          600000
#define CONNECTIONS_MAX 64
/* Of a disk without a key: what ndio format makes. */
#define USUAL_CIPHER "aes-xts-plain64"
#define USUAL_BITS   512
#define USUAL_SECTOR 4096

static const struct bench_pattern patterns[] = {
	{ .name = "sequential read", .block = 1024 * 1024, .depth = 1 },
	{ .name = "sequential read", .block = 256 * 1024, .depth = 16 },
	{ .name = "random read", .random = true, .block = 4096, .depth = 1 },
	{ .name = "random read", .random = true, .block = 4096, .depth = 8 },
	{ .name = "random read", .random = true, .block = 4096, .depth = 64 },
	{ .name = "sequential write", .write = true, .block = 256 * 1024, .depth = 16 },
	{ .name = "random write", .random = true, .write = true, .block = 4096, .depth = 1 },
	{ .name = "random write", .random = true, .write = true, .block = 4096, .depth = 64 },
};

struct bench {
	const char *locator, *header;
	struct key_source key_source;
	struct unlock_options how;
	unsigned answer_timeout, connections, ms; /* for each line */
	bool json, unlock, destroy;
	struct ndio_volume *volume;
	struct ndio_info info;
	struct json_object *array;
};

/* ---- showing ---- */

static void show_result(struct bench *bench, const struct bench_pattern *pattern,
			const struct bench_result *result)
{
	double rate = result->requests / result->seconds;
	struct json_object *object;

	if (!bench->json) {
		printf("%-17s %7" PRIu32 " %6u %10.1f %11.0f %11.1f %11.1f\n", pattern->name,
		       pattern->block, pattern->depth, rate * pattern->block / (1 << 20), rate,
		       result->mean_ns / 1e3, result->worst_ns / 1e3);
		fflush(stdout);
		return;
	}
	object = json_object_new_object();
	json_add_text(object, "what", pattern->name);
	json_add_number(object, "block", pattern->block);
	json_add_number(object, "depth", pattern->depth);
	json_add_number(object, "bytes_per_second", rate * pattern->block);
	json_add_number(object, "requests_per_second", rate);
	json_add_number(object, "mean_ns", result->mean_ns);
	json_add_number(object, "worst_ns", result->worst_ns);
	json_object_array_add(bench->array, object);
}

static void show_cipher(struct bench *bench, const char *cipher, unsigned bits, unsigned threads,
			double per_second)
{
	struct json_object *object;

	if (!bench->json) {
		printf("%s, %u bits, in memory, %u thread%s: %.1f MiB/s\n", cipher, bits, threads,
		       threads == 1 ? "" : "s", per_second / (1 << 20));
		return;
	}
	object = json_object_new_object();
	json_add_text(object, "what", "cipher");
	json_add_text(object, "cipher", cipher);
	json_add_number(object, "key_bits", bits);
	json_add_number(object, "threads", threads);
	json_add_number(object, "bytes_per_second", per_second);
	json_object_array_add(bench->array, object);
}

/* ---- measuring ---- */

static int measure_cipher(struct bench *bench, unsigned threads, struct error *err)
{
	/* One that makes tags, too, isn't tried without its disk. */
	bool luks = bench->info.luks &&
		    cipher_supported(bench->info.cipher, bench->info.key_bits / 8, err) == 0;
	const char *cipher = luks ? bench->info.cipher : USUAL_CIPHER;
	unsigned bits = luks ? bench->info.key_bits : USUAL_BITS;
	double per_second;
	int ret = bench_cipher(cipher, bits, luks ? bench->info.sector : USUAL_SECTOR, threads,
			       bench->ms / 2, &per_second, err);

	if (ret == 0)
		show_cipher(bench, cipher, bits, threads, per_second);
	return ret;
}

static int measure_patterns(struct bench *bench, struct error *err)
{
	struct bench_result result;
	int ret = 0;

	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]) && ret == 0; i++) {
		if (patterns[i].write && !bench->destroy)
			continue;
		ret = bench_volume(bench->volume, bench->locator, bench->info.size, &patterns[i],
				   bench->ms, &result, err);
		if (ret == 0)
			show_result(bench, &patterns[i], &result);
	}
	return ret;
}

static int bench_measure(struct bench *bench, struct error *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int ret;

	if (bench->info.size < 1024 * 1024)
		return error_set(err, EINVAL, "%s: it has %" PRIu64 " bytes, too few to measure",
				 bench->locator, bench->info.size);
	if (bench->destroy && !(bench->info.can & NDIO_CAN_WRITE))
		return error_set(err, EROFS, "%s: it is read-only", bench->locator);
	if (!bench->json)
		printf("%-17s %7s %6s %10s %11s %11s %11s\n", "", "block", "depth", "MiB/s",
		       "requests/s", "mean us", "worst us");
	fflush(stdout);
	ret = measure_patterns(bench, err);
	if (ret == 0)
		ret = measure_cipher(bench, 1, err);
	if (ret == 0 && cores > 1)
		ret = measure_cipher(bench, cores, err);
	return ret;
}

/* ---- opening ---- */

static bool with_key(const struct bench *bench)
{
	return bench->unlock || bench->how.by_tokens || key_source_given(&bench->key_source);
}

static int open_to_measure(void *opaque, const struct key *key, struct error *err)
{
	struct bench *bench = opaque;
	struct ndio_options options = {
		.struct_size = sizeof(options),
		.header = bench->header,
		.flags = (bench->destroy ? 0 : NDIO_OPEN_READONLY) | NDIO_OPEN_NO_RECONNECT,
		.connections = bench->connections,
		.answer_timeout = bench->answer_timeout,
		.notice = say_notice,
	};
	int ret;

	if (with_key(bench))
		unlocking_set(&bench->how, key, &options);
	ret = ndio_open(bench->locator, &options, &bench->volume);

	bench->info.struct_size = sizeof(bench->info);
	if (ret == 0)
		ret = ndio_get_info(bench->volume, &bench->info);
	return ret < 0 ? error_set(err, -ret, "%s", ndio_error()) : 0;
}

static int open_with_key(struct bench *bench, struct error *err)
{
	struct key key = { 0 };
	char prompt[4200];
	int ret;

	if (!with_key(bench))
		return open_to_measure(bench, &key, err);
	snprintf(prompt, sizeof(prompt), "Passphrase for %s", bench->locator);
	ret = key_try(&bench->key_source, &bench->how, prompt, &key, open_to_measure, bench, err);
	key_clear(&key);
	return ret;
}

static int run_bench(struct bench *bench)
{
	struct error err = { 0 };
	int ret = locator_kind(bench->locator, &err);

	if (ret >= 0 && bench->destroy)
		ret = overwrite_check_claims(bench->locator, &err);
	if (ret >= 0)
		ret = open_with_key(bench, &err);
	if (bench->json)
		bench->array = json_object_new_array();
	if (ret >= 0)
		ret = bench_measure(bench, &err);
	ndio_close(bench->volume, NDIO_CLOSE_CANCEL);
	if (ret >= 0 && bench->json)
		json_print(bench->array);
	else
		json_object_put(bench->array);
	return ret < 0 ? cmd_error("%s", err.text) : CMD_OK;
}

/* ---- the command line ---- */

static const char *take_number(unsigned *number, const char *value, unsigned max, const char *wrong)
{
	uint64_t parsed;

	if (!parse_number(value, max, &parsed) || parsed == 0)
		return wrong;
	*number = parsed;
	return NULL;
}

static const char *take_seconds(struct bench *bench, const char *value)
{
	char *end;
	double ms = strtod(value, &end) * 1000;

	if (*end || end == value || !(ms >= MS_MIN && ms <= MS_MAX))
		return "--seconds takes 0.1 to 600";
	bench->ms = ms;
	return NULL;
}

static const char *bench_option(void *opaque, int option, const char *value)
{
	struct bench *bench = opaque;
	const struct open_options open = {
		.key = &bench->key_source,
		.how = &bench->how,
		.header = &bench->header,
		.answer_timeout = &bench->answer_timeout,
		.twice = "a key comes from one --key-file or --key-fd",
	};

	switch (option) {
	case OPT_BENCH_JSON:
		bench->json = true;
		return NULL;
	case OPT_BENCH_UNLOCK:
		bench->unlock = true;
		return NULL;
	case OPT_DESTROY:
		bench->destroy = true;
		return NULL;
	case OPT_SECONDS:
		return take_seconds(bench, value);
	case OPT_BENCH_CONNECTIONS:
		return take_number(&bench->connections, value, CONNECTIONS_MAX,
				   "--connections takes 1 to 64");
	default:
		return open_option(&open, option, value);
	}
}

static const char *check_bench(const struct bench *bench)
{
	bool key = with_key(bench);

	if (bench->unlock && key_source_given(&bench->key_source))
		return "--unlock asks for a passphrase: it isn't for a key from a file or descriptor";
	if (bench->header && !key)
		return "a header without a key";
	if (bench->how.trust && !key)
		return "a trust file without a key";
	if (unlock_by_one_slot(&bench->how) && !key)
		return "a key slot without a key";
	return key_source_check(&bench->key_source);
}

static const struct option options[] = { { "json", no_argument, NULL, OPT_BENCH_JSON },
					 { "seconds", required_argument, NULL, OPT_SECONDS },
					 { "connections", required_argument, NULL,
					   OPT_BENCH_CONNECTIONS },
					 { "write-and-destroy", no_argument, NULL, OPT_DESTROY },
					 { "unlock", no_argument, NULL, OPT_BENCH_UNLOCK },
					 OPEN_OPTIONS_KEY("", 0),
					 OPEN_OPTION_HEADER("header", 0),
					 OPEN_OPTION_TRUST("trust", 0),
					 OPEN_OPTION_SLOT("slot", 0),
					 OPEN_OPTION_TOKEN("token", 0),
					 OPEN_OPTION_VOLUME_KEY("volume-key-file", 0),
					 OPEN_OPTION_MAX_KDF_TIME,
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

int cmd_bench(int argc, char **argv)
{
	struct bench bench = {
		.key_source = KEY_SOURCE_NONE, .how = UNLOCK_DEFAULT, .ms = 3000, .connections = 4
	};
	int status = cmd_options(argc, argv, help_bench, options, bench_option, &bench);
	const char *wrong;

	if (status != CMD_GO_ON)
		return status;
	wrong = argc - optind == 1 ? check_bench(&bench) : "it takes one locator";
	if (wrong)
		return cmd_usage(argv[0], "%s", wrong);
	bench.locator = argv[optind];
	return run_bench(&bench);
}
