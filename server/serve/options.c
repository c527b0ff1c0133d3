#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/path.h"
#include "luks/luks-slots.h"
#include "say.h"

#define STATUS_USAGE    2
#define THREADS_MAX     64
#define CONNECTIONS_MAX 65536

static const char help[] =
	"Usage: ndio serve [OPTION...] LOCATOR...\n"
	"       ndio serve [OPTION...] --exports FILE\n"
	"Serve disks to NBD clients: files, block devices, or other NBD servers' exports. With a\n"
	"key they are unlocked as LUKS, and clients see what is in them; without one they get\n"
	"their bytes as they are. Of several each has the name of its file.\n"
	"\n"
	"  -l, --listen ADDRESS      HOST:PORT, HOST, :PORT; again for more (default: the local\n"
	"                            host, port 10809)\n"
	"  -s, --socket PATH         or a Unix socket\n"
	"  -e, --export NAME         the export's name (default: none)\n"
	"      --exports FILE        a table of exports: NAME LOCATOR KEYFILE [OPTIONS] a line\n"
	"      --tls-psk FILE        only by TLS, to users that have a key in the file (ndio psk)\n"
	"      --tls-certificates DIR  or with the certificate server-cert.pem in the folder\n"
	"      --verify-peer         to clients that have a certificate of its ca-cert.pem's\n"
	"      --tls-optional        a client may go without TLS\n"
	"  -k, --key-file FILE       a file whose bytes are the key; -: standard input\n"
	"      --key-fd N            a descriptor that it is read from\n"
	"      --ask N               a socket over which another program is asked for a passphrase\n"
	"      --volume-key-file FILE\n"
	"                            ... that are the volume key itself: no key slot is opened\n"
	"      --keyfile-offset N    pass over so many bytes first\n"
	"      --keyfile-size N      and take no more than so many\n"
	"      --header FILE         a detached LUKS header\n"
	"      --trust FILE          it has to be what it was when FILE was last written\n"
	"      --slot N              the only key slot to try\n"
	"      --token N|any         unlock by one of its tokens, or any; by a key where that fails\n"
	"      --max-kdf-time SEC    how long deriving keys may take (default: 120)\n"
	"  -r, --read-only           take no writes\n"
	"      --discard             pass trims of an encrypted disk on\n"
	"      --no-discard          don't, though its header says so\n"
	"      --integrity-cache SIZE\n"
	"                            memory for tags of a disk with integrity (default: 32M)\n"
	"      --direct MODE         auto, on or off: past the page cache (default: auto)\n"
	"      --no-lock-image       don't keep other writers off the file\n"
	"      --connections N       to another server, if it allows several (default: 4)\n"
	"      --answer-timeout SEC  when another server that is silent is lost (default: 30)\n"
	"      --reconnect SEC       how long one that is away is waited for (default: 60)\n"
	"      --unflushed SIZE      memory for what it may lose meanwhile (default: 64M)\n"
	"      --wait SEC            for one that isn't there yet (default: 0)\n"
	"      --no-zero             take no requests for zeroes: clients write them\n"
	"      --lock                lock all memory: for disks that this machine's kernel mounts\n"
	"      --threads N           that serve clients, for each disk (default: one a core)\n"
	"      --max-connections N   of clients at once (default: 256)\n"
	"      --metrics WHERE       statistics: HOST:PORT or a socket's path, for HTTP, or a file\n"
	"                            whose name ends in .prom\n"
	"      --pid-file FILE       write the process's number there once it listens\n"
	"      --background          go there once clients can connect; what is said goes to syslog\n"
	"      --run COMMAND         run a command of the shell's, with $uri, and end with it\n"
	"  -h, --help                show this\n"
	"  -V, --version             show the version\n";

enum {
	KEY_FD = 256,
	VOLUME_KEY_FILE,
	KEYFILE_OFFSET,
	KEYFILE_SIZE,
	HEADER,
	TRUST,
	SLOT,
	TOKEN,
	MAX_KDF_TIME,
	DISCARD,
	NO_DISCARD,
	DIRECT,
	NO_LOCK_IMAGE,
	CONNECTIONS,
	ANSWER_TIMEOUT,
	RECONNECT,
	UNFLUSHED,
	TAG_CACHE,
	WAIT,
	NO_ZERO,
	ASK,
	BACKGROUND,
	EXPORTS,
	LOCK,
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
	{ "exports", required_argument, NULL, EXPORTS },
	{ "key-file", required_argument, NULL, 'k' },
	{ "key-fd", required_argument, NULL, KEY_FD },
	{ "ask", required_argument, NULL, ASK },
	{ "volume-key-file", required_argument, NULL, VOLUME_KEY_FILE },
	{ "keyfile-offset", required_argument, NULL, KEYFILE_OFFSET },
	{ "keyfile-size", required_argument, NULL, KEYFILE_SIZE },
	{ "header", required_argument, NULL, HEADER },
	{ "trust", required_argument, NULL, TRUST },
	{ "slot", required_argument, NULL, SLOT },
	{ "token", required_argument, NULL, TOKEN },
	{ "max-kdf-time", required_argument, NULL, MAX_KDF_TIME },
	{ "read-only", no_argument, NULL, 'r' },
	{ "discard", no_argument, NULL, DISCARD },
	{ "no-discard", no_argument, NULL, NO_DISCARD },
	{ "direct", required_argument, NULL, DIRECT },
	{ "no-lock-image", no_argument, NULL, NO_LOCK_IMAGE },
	{ "connections", required_argument, NULL, CONNECTIONS },
	{ "answer-timeout", required_argument, NULL, ANSWER_TIMEOUT },
	{ "reconnect", required_argument, NULL, RECONNECT },
	{ "unflushed", required_argument, NULL, UNFLUSHED },
	{ "integrity-cache", required_argument, NULL, TAG_CACHE },
	{ "wait", required_argument, NULL, WAIT },
	{ "no-zero", no_argument, NULL, NO_ZERO },
	{ "lock", no_argument, NULL, LOCK },
	{ "threads", required_argument, NULL, THREADS },
	{ "max-connections", required_argument, NULL, MAX_CONNECTIONS },
	{ "background", no_argument, NULL, BACKGROUND },
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

static int options_take_direct(struct serve_options *options, const char *value)
{
	return direct_mode_parse(value, &options->disk.open.direct) ?
		       -1 :
		       usage("--direct takes auto, on or off, not \"%s\"", value);
}

static int options_take_token(struct serve_options *options, const char *value)
{
	return disk_set_token(&options->disk, value) ?
		       -1 :
		       usage("--token takes a number from 0 to 31, or any, not \"%s\"", value);
}

static int options_take_number(struct serve_options *options, int option, const char *value)
{
	const struct {
		int option;
		const char *name;
		uint64_t min, max;
		unsigned *into;
	} numbers[] = {
		{ KEY_FD, "--key-fd", 0, INT_MAX, (unsigned *)&options->disk.key_fd },
		{ ASK, "--ask", 0, INT_MAX, (unsigned *)&options->disk.asker.fd },
		{ SLOT, "--slot", 0, DISK_SLOT_MAX, (unsigned *)&options->disk.open.slot },
		{ MAX_KDF_TIME, "--max-kdf-time", 1, UINT_MAX, &options->disk.open.max_kdf_time },
		{ CONNECTIONS, "--connections", 1, DISK_CONNECTIONS_MAX,
		  &options->disk.open.connections },
		{ ANSWER_TIMEOUT, "--answer-timeout", 1, NBD_ANSWER_TIMEOUT_MAX,
		  &options->disk.open.answer_timeout },
		{ RECONNECT, "--reconnect", 0, NBD_RECONNECT_MAX, &options->disk.open.reconnect },
		{ WAIT, "--wait", 0, NBD_ANSWER_TIMEOUT_MAX, &options->disk.open.wait },
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
	options->disk.open.one_slot = options->disk.open.slot != LUKS_ANY_SLOT;
	return -1;
}

static int options_take_size(struct serve_options *options, int option, const char *value)
{
	struct key_part *part = &options->disk.key_part;
	uint64_t *unflushed = &options->disk.open.unflushed;
	uint64_t *cache = &options->disk.open.integrity_cache;

	if (option == UNFLUSHED)
		return parse_size(value, unflushed) && *unflushed >= TARGET_UNFLUSHED_MIN ?
			       -1 :
			       usage("--unflushed takes a size, 1M or more, not \"%s\"", value);
	if (option == TAG_CACHE)
		return parse_size(value, cache) && *cache >= INTEGRITY_CACHE_MIN ?
			       -1 :
			       usage("--integrity-cache takes a size, 1M or more, not \"%s\"",
				     value);
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

/* Of each disk. */
static int take_of_disk(struct serve_options *options, int option, const char *value)
{
	struct disk *disk = &options->disk;

	switch (option) {
	case 'e':
		disk->name = value;
		return -1;
	case VOLUME_KEY_FILE:
		disk->open.volume_key = true;
		disk->key_file = value;
		return -1;
	case 'k':
		disk->key_file = value;
		return -1;
	case KEYFILE_OFFSET:
	case KEYFILE_SIZE:
	case UNFLUSHED:
	case TAG_CACHE:
		return options_take_size(options, option, value);
	case HEADER:
		disk->open.header = value;
		return -1;
	case TRUST:
		disk->open.trust = value;
		return -1;
	case 'r':
		disk->open.readonly = true;
		return -1;
	case DISCARD:
	case NO_DISCARD:
		options->discard = option == DISCARD;
		return -1;
	case NO_LOCK_IMAGE:
		disk->open.locking = LOCK_IMAGE_OFF;
		return -1;
	case TOKEN:
		return options_take_token(options, value);
	case DIRECT:
		return options_take_direct(options, value);
	default:
		return options_take_number(options, option, value);
	}
}

static int options_take_one(struct serve_options *options, int option, const char *value)
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
	case EXPORTS:
		options->table = value;
		return -1;
	case LOCK:
		options->lock = options->disk.open.memory_ready = true;
		return -1;
	case NO_ZERO:
		options->no_zero = true;
		return -1;
	case BACKGROUND:
		options->background = true;
		return -1;
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
		return take_of_disk(options, option, value);
	}
}

/* What only goes together, of keys. */
static int options_check_key(struct serve_options *options)
{
	struct disk *disk = &options->disk;
	bool is_asked = disk->asker.fd >= 0;
	bool has_file = disk->key_file || disk->key_fd >= 0;
	bool has_key = has_file || is_asked || disk->open.by_tokens;

	if (disk->key_file && disk->key_fd >= 0)
		return usage("--key-file or --key-fd, not both");
	if (is_asked && has_file)
		return usage("--ask, or --key-file or --key-fd, not both");
	if (!has_key && (disk->open.header || disk->open.one_slot || disk->open.trust))
		return usage("--header, --trust and --slot need --key-file, --key-fd, --ask or "
			     "--token");
	if (!has_file && (disk->key_part.offset || disk->key_part.size))
		return usage("--keyfile-offset and --keyfile-size need --key-file or --key-fd");
	disk->open.unlock = has_key;
	disk->open.discard = options->discard == 1;
	disk->open.no_discard = options->discard == 0;
	return -1;
}

/* And of the rest. */
static int options_check(const struct serve_options *options)
{
	if (options->tls.psk_file && options->tls.certificates)
		return usage("--tls-psk or --tls-certificates, not both");
	if (options->tls.verify_peer && !options->tls.certificates)
		return usage("--verify-peer needs --tls-certificates");
	if (options->tls_optional && !options->tls.psk_file && !options->tls.certificates)
		return usage("--tls-optional needs --tls-psk or --tls-certificates");
	if (options->background && options->run)
		return usage("--background or --run, not both");
	return -1;
}

/* And of disks. */
static int options_check_disks(const struct serve_options *options)
{
	bool is_named = *options->disk.name;

	if (options->nr_locators > 0 && options->table)
		return usage("--exports or disks, not both");
	if (options->nr_locators == 0 && !options->table)
		return usage("which disk?");
	if (options->nr_locators > EXPORTS_MAX)
		return usage("no more than %d disks", EXPORTS_MAX);
	if (options->table && (is_named || options->disk.open.unlock))
		return usage("--exports: names and keys are in the table");
	if (options->nr_locators > 1 &&
	    (is_named || options->disk.open.header || options->disk.open.trust))
		return usage("--export, --header and --trust are for one disk; for several there "
			     "is --exports");
	if (options->nr_locators > 1 && options->disk.asker.fd >= 0)
		return usage("--ask is for one disk");
	return -1;
}

static int check_asker(const struct asker *asker)
{
	struct error err;

	return asker->fd >= 0 && ask_take(asker, &err) < 0 ? usage("%s", err.text) : -1;
}

/* ---- what is served ---- */

/* Of several: what a client would call it. */
static int name_disk(struct disk *disk, struct error *err)
{
	const char *slash = strrchr(disk->locator, '/');

	if (disk->open.uri)
		return error_set(
			err, EINVAL,
			"%s: beside other disks it needs a name, which a table (--exports) "
			"gives it",
			disk->locator);
	disk->name = slash ? slash + 1 : disk->locator;
	return disk_check_name(disk->name, err);
}

static int add_disk(struct serve_options *options, const char *locator, struct error *err)
{
	struct disks *disks = &options->disks;
	struct disk *disk = &disks->all[disks->count];
	int ret;

	*disk = options->disk;
	ret = disk_set_locator(disk, locator, err);
	if (ret == 0 && options->nr_locators > 1)
		ret = name_disk(disk, err);
	else if (ret == 0)
		ret = disk_check_name(disk->name, err);
	for (unsigned i = 0; i < disks->count && ret == 0; i++)
		if (strcmp(disks->all[i].name, disk->name) == 0)
			ret = error_set(err, EINVAL,
					"%s and %s: both would be \"%.100s\": a table (--exports) "
					"gives them names",
					disks->all[i].locator, locator, disk->name);
	disks->count++;
	return ret;
}

static int take_locators(struct serve_options *options, char **locators)
{
	struct error err;

	for (int i = 0; i < options->nr_locators; i++)
		if (add_disk(options, locators[i], &err) < 0)
			return usage("%s", err.text);
	return -1;
}

/* ---- what is used later ---- */

static int keep_path(const char **path)
{
	const char *absolute = *path ? path_absolute(*path) : NULL;

	if (*path && !absolute)
		return usage("%s: %s", *path, strerror(errno));
	*path = absolute;
	return -1;
}

/* By then the process is elsewhere. */
static int keep_paths(struct serve_options *options)
{
	const char **const paths[] = { &options->socket, &options->pid_file, &options->tls.psk_file,
				       &options->tls.certificates };
	int status = -1;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]) && status < 0; i++)
		status = keep_path(paths[i]);
	return status;
}

/* ---- the whole ---- */

int options_take(int argc, char **argv, struct serve_options *options)
{
	int option, status = -1;

	*options = (struct serve_options){
		.disk = { .open = { .connections = 4,
				    .reconnect = NBD_RECONNECT,
				    .slot = LUKS_ANY_SLOT,
				    .locking = LOCK_IMAGE },
			  .name = "",
			  .key_fd = -1,
			  .asker = { .fd = -1, .name = "--ask" } },
		.discard = -1,
		.max_connections = 256,
	};
	while (status < 0 && (option = getopt_long(argc, argv, "l:s:e:k:rhV", table, NULL)) >= 0)
		status = options_take_one(options, option, optarg);
	options->nr_locators = argc - optind;
	if (status < 0)
		status = options_check_key(options);
	if (status < 0)
		status = options_check(options);
	if (status < 0)
		status = options_check_disks(options);
	if (status < 0)
		status = check_asker(&options->disk.asker);
	if (status < 0 && options->background)
		status = keep_paths(options);
	return status < 0 ? take_locators(options, argv + optind) : status;
}
