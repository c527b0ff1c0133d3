#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"
#include "locator/locator.h"
#include "luks/luks.h"
#include "say.h"

#define STATUS_USAGE    2
#define THREADS_MAX     64
#define CONNECTIONS_MAX 65536

static const char help[] =
	"Usage: ndio serve [OPTION...] LOCATOR\n"
	"Serve a disk to NBD clients: a file, a block device, or another NBD server's export.\n"
	"With a key it is unlocked as LUKS, and clients see what is in it; without one they\n"
	"get its bytes as they are.\n"
	"\n"
	"  -l, --listen ADDRESS      HOST:PORT, HOST, :PORT; again for more (default: the local\n"
	"                            host, port 10809)\n"
	"  -s, --socket PATH         or a Unix socket\n"
	"  -e, --export NAME         the export's name (default: none)\n"
	"      --tls-psk FILE        only by TLS, to users that have a key in the file (ndio psk)\n"
	"      --tls-certificates DIR  or with the certificate server-cert.pem in the folder\n"
	"      --verify-peer         to clients that have a certificate of its ca-cert.pem's\n"
	"      --tls-optional        a client may go without TLS\n"
	"  -k, --key-file FILE       a file whose bytes are the key; -: standard input\n"
	"      --key-fd N            a descriptor that it is read from\n"
	"      --keyfile-offset N    pass over so many bytes first\n"
	"      --keyfile-size N      and take no more than so many\n"
	"      --header FILE         a detached LUKS header\n"
	"      --slot N              the only key slot to try\n"
	"      --max-kdf-time SEC    how long deriving keys may take (default: 120)\n"
	"  -r, --read-only           take no writes\n"
	"      --discard             pass trims of an encrypted disk on\n"
	"      --no-discard          don't, though its header says so\n"
	"      --direct MODE         auto, on or off: past the page cache (default: auto)\n"
	"      --no-lock-image       don't keep other writers off the file\n"
	"      --connections N       to another server, if it allows several (default: 4)\n"
	"      --answer-timeout SEC  when another server that is silent is lost (default: 30)\n"
	"      --reconnect SEC       how long one that is away is waited for (default: 60)\n"
	"      --threads N           that serve clients (default: one a core)\n"
	"      --max-connections N   of clients at once (default: 256)\n"
	"      --metrics WHERE       statistics: HOST:PORT or a socket's path, for HTTP, or a file\n"
	"                            whose name ends in .prom\n"
	"      --pid-file FILE       write the process's number there once it listens\n"
	"      --run COMMAND         run a command of the shell's, with $uri, and end with it\n"
	"  -h, --help                show this\n"
	"  -V, --version             show the version\n";

enum {
	KEY_FD = 256,
	KEYFILE_OFFSET,
	KEYFILE_SIZE,
	HEADER,
	SLOT,
	MAX_KDF_TIME,
	DISCARD,
	NO_DISCARD,
	DIRECT,
	NO_LOCK_IMAGE,
	CONNECTIONS,
	ANSWER_TIMEOUT,
	RECONNECT,
	THREADS,
	MAX_CONNECTIONS,
	RUN,
	TLS_PSK,
	TLS_CERTIFICATES,
	VERIFY_PEER,
	TLS_OPTIONAL,
	PID_FILE,
	METRICS,
};

static const struct option table[] = {
	{ "listen", required_argument, NULL, 'l' },
	{ "socket", required_argument, NULL, 's' },
	{ "export", required_argument, NULL, 'e' },
	{ "key-file", required_argument, NULL, 'k' },
	{ "key-fd", required_argument, NULL, KEY_FD },
	{ "keyfile-offset", required_argument, NULL, KEYFILE_OFFSET },
	{ "keyfile-size", required_argument, NULL, KEYFILE_SIZE },
	{ "header", required_argument, NULL, HEADER },
	{ "slot", required_argument, NULL, SLOT },
	{ "max-kdf-time", required_argument, NULL, MAX_KDF_TIME },
	{ "read-only", no_argument, NULL, 'r' },
	{ "discard", no_argument, NULL, DISCARD },
	{ "no-discard", no_argument, NULL, NO_DISCARD },
	{ "direct", required_argument, NULL, DIRECT },
	{ "no-lock-image", no_argument, NULL, NO_LOCK_IMAGE },
	{ "connections", required_argument, NULL, CONNECTIONS },
	{ "answer-timeout", required_argument, NULL, ANSWER_TIMEOUT },
	{ "reconnect", required_argument, NULL, RECONNECT },
	{ "threads", required_argument, NULL, THREADS },
	{ "max-connections", required_argument, NULL, MAX_CONNECTIONS },
	{ "run", required_argument, NULL, RUN },
	{ "pid-file", required_argument, NULL, PID_FILE },
	{ "metrics", required_argument, NULL, METRICS },
	{ "tls-psk", required_argument, NULL, TLS_PSK },
	{ "tls-certificates", required_argument, NULL, TLS_CERTIFICATES },
	{ "verify-peer", no_argument, NULL, VERIFY_PEER },
	{ "tls-optional", no_argument, NULL, TLS_OPTIONAL },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ 0 },
};

static int __attribute__((format(printf, 1, 2))) usage(const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	say("%s", text);
	fprintf(stderr, "Try \"ndio serve --help\".\n");
	return STATUS_USAGE;
}

static int take_direct(struct serve_options *options, const char *value)
{
	return direct_mode_parse(value, &options->open.direct) ?
		       -1 :
		       usage("--direct takes auto, on or off, not \"%s\"", value);
}

static int take_number(struct serve_options *options, int option, const char *value)
{
	const struct {
		int option;
		const char *name;
		uint64_t min, max;
		unsigned *into;
	} numbers[] = {
		{ KEY_FD, "--key-fd", 0, INT_MAX, (unsigned *)&options->key_fd },
		{ SLOT, "--slot", 0, 31, (unsigned *)&options->open.slot },
		{ MAX_KDF_TIME, "--max-kdf-time", 1, UINT_MAX, &options->open.max_kdf_time },
		{ CONNECTIONS, "--connections", 1, 64, &options->open.connections },
		{ ANSWER_TIMEOUT, "--answer-timeout", 1, NBD_ANSWER_TIMEOUT_MAX,
		  &options->open.answer_timeout },
		{ RECONNECT, "--reconnect", 0, NBD_RECONNECT_MAX, &options->open.reconnect },
		{ THREADS, "--threads", 1, THREADS_MAX, &options->threads },
		{ MAX_CONNECTIONS, "--max-connections", 1, CONNECTIONS_MAX,
		  &options->max_connections },
	};
	uint64_t n;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (numbers[i].option != option)
			continue;
		if (!parse_number(value, numbers[i].max, &n) || n < numbers[i].min)
			return usage("%s takes a number from %" PRIu64 " to %" PRIu64
				     ", not \"%s\"",
				     numbers[i].name, numbers[i].min, numbers[i].max, value);
		*numbers[i].into = n;
	}
	options->open.one_slot = options->open.slot != LUKS_ANY_SLOT;
	return -1;
}

static int take_key_part(struct serve_options *options, int option, const char *value)
{
	struct key_part *part = &options->key_part;

	if (option == KEYFILE_OFFSET)
		return parse_size(value, &part->offset) ?
			       -1 :
			       usage("--keyfile-offset takes bytes, also with K, M, G or T, "
				     "not \"%s\"",
				     value);
	return parse_size(value, &part->size) && part->size > 0 && part->size <= KEY_MAX ?
		       -1 :
		       usage("--keyfile-size takes from 1 byte to 8M, not \"%s\"", value);
}

static int take_address(struct serve_options *options, const char *value)
{
	if (options->nr_addresses == LISTEN_MAX)
		return usage("--listen: no more than %d", LISTEN_MAX);
	options->addresses[options->nr_addresses++] = value;
	return -1;
}

static int take_tls(struct serve_options *options, int option, const char *value)
{
	switch (option) {
	case TLS_PSK:
		options->tls.psk_file = value;
		return -1;
	case TLS_CERTIFICATES:
		options->tls.certificates = value;
		return -1;
	case VERIFY_PEER:
		options->tls.verify_peer = true;
		return -1;
	default:
		options->tls_optional = true;
		return -1;
	}
}

static int take(struct serve_options *options, int option, const char *value)
{
	switch (option) {
	case TLS_PSK:
	case TLS_CERTIFICATES:
	case VERIFY_PEER:
	case TLS_OPTIONAL:
		return take_tls(options, option, value);
	case 'l':
		return take_address(options, value);
	case 's':
		options->socket = value;
		return -1;
	case 'e':
		options->export = value;
		return -1;
	case 'k':
		options->key_file = value;
		return -1;
	case KEYFILE_OFFSET:
	case KEYFILE_SIZE:
		return take_key_part(options, option, value);
	case HEADER:
		options->open.header = value;
		return -1;
	case 'r':
		options->open.readonly = true;
		return -1;
	case DISCARD:
	case NO_DISCARD:
		options->discard = option == DISCARD;
		return -1;
	case NO_LOCK_IMAGE:
		options->open.locking = LOCK_IMAGE_OFF;
		return -1;
	case DIRECT:
		return take_direct(options, value);
	case PID_FILE:
		options->pid_file = value;
		return -1;
	case METRICS:
		options->metrics = value;
		return -1;
	case RUN:
		options->run = value;
		return -1;
	case 'h':
		fputs(help, stdout);
		return 0;
	case 'V':
		puts("ndio " NDIO_VERSION);
		return 0;
	case '?':
		fprintf(stderr, "Try \"ndio serve --help\".\n");
		return STATUS_USAGE;
	default:
		return take_number(options, option, value);
	}
}

/* What only goes together. */
static int check(struct serve_options *options)
{
	bool has_key = options->key_file || options->key_fd >= 0;

	if (options->key_file && options->key_fd >= 0)
		return usage("--key-file or --key-fd, not both");
	if (!has_key && (options->open.header || options->open.one_slot))
		return usage("--header and --slot need --key-file or --key-fd");
	if (!has_key && (options->key_part.offset || options->key_part.size))
		return usage("--keyfile-offset and --keyfile-size need --key-file or --key-fd");
	if (options->tls.psk_file && options->tls.certificates)
		return usage("--tls-psk or --tls-certificates, not both");
	if (options->tls.verify_peer && !options->tls.certificates)
		return usage("--verify-peer needs --tls-certificates");
	if (options->tls_optional && !options->tls.psk_file && !options->tls.certificates)
		return usage("--tls-optional needs --tls-psk or --tls-certificates");
	options->open.unlock = has_key;
	options->open.discard = options->discard == 1;
	options->open.no_discard = options->discard == 0;
	return -1;
}

static int take_locator(struct serve_options *options, int count, char **locators)
{
	struct error err;
	int kind;

	if (count != 1)
		return usage(count ? "one disk at a time" : "which disk?");
	options->locator = locators[0];
	kind = locator_kind(options->locator, &err);
	if (kind < 0)
		return usage("%s", err.text);
	if (kind == LOCATOR_URI)
		options->open.uri = options->locator;
	else
		options->open.file = options->locator;
	return -1;
}

int options_take(int argc, char **argv, struct serve_options *options)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int option, status = -1;

	*options = (struct serve_options){
		.open = { .connections = 4,
			  .reconnect = NBD_RECONNECT,
			  .slot = LUKS_ANY_SLOT,
			  .locking = LOCK_IMAGE },
		.key_fd = -1,
		.export = "",
		.discard = -1,
		.threads = cores < 1 ? 1 :
			   cores > 8 ? 8 :
				       cores,
		.max_connections = 256,
	};
	while (status < 0 && (option = getopt_long(argc, argv, "l:s:e:k:rhV", table, NULL)) >= 0)
		status = take(options, option, optarg);
	if (status < 0)
		status = take_locator(options, argc - optind, argv + optind);
	return status < 0 ? check(options) : status;
}
