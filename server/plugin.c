/* plugin: nbdkit's callbacks turned into requests. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "engine/bounce.h"
#include "captive.h"
#include "engine/cipher.h"
#include "memory/key-file.h"
#include "engine/lender.h"
#include "locator/locator.h"
#include "luks/luks-memfd.h"
#include "memory/pin.h"
#include "read-only.h"
#include "locator/same.h"
#include "memory/secret.h"
#include "shield.h"
#include "nbd/target-nbd.h"
#include "base/thread.h"
#include "engine/volume.h"
#include "engine/worker.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* nbdkit runs 16 threads a connection by default: of one connection each finds a channel. In the
 * wide ones a request of 1 MiB is in flight as a whole; a small one takes a narrow one, which costs
 * so little that there are enough of them for the threads of many connections. */
#define WIDE_CHANNELS 16
#define LARGE         .pieces = 4, .piece_len = 256 * 1024
#define NARROW_PIECE  (16 * 1024)

/* How much is asked of a disk at once for large reads, at least: 3 GB/s from one that answers in a
 * millisecond, and half or less of what clients ask for that have much in flight. Small reads would
 * wait for large ones longer than the disk takes for them. */
#define READ_DEPTH    (3 * 1024 * 1024)
#define READ_PATIENCE 4 /* ms */
#define SMALL_READ    (128 * 1024)

struct channel_sizes {
	struct channel_options wide;
	unsigned narrow_channels;
};

/* From best to least: the locked-memory limit (8 MiB for most users) has to have room for it. */
static const struct channel_sizes all_sizes[] = {
	{ { LARGE, .huge_pages = true }, 256 },
	{ { LARGE }, 256 },
	{ { LARGE }, 64 },
	{ { .pieces = 3, .piece_len = 128 * 1024 }, 64 },
};
#define LEAST (&all_sizes[sizeof(all_sizes) / sizeof(all_sizes[0]) - 1])
static const struct channel_options narrow_options = { .pieces = 1, .piece_len = NARROW_PIECE };

#define MAX_CONNECTIONS 64
#define MAX_SLOT 31
#define MAX_REQUEST (64 * 1024 * 1024) /* nbdkit's own limit */

/* -D ndio.stats=1 prints the counters when the server ends. */
__attribute__((visibility("default"))) int ndio_debug_stats;

/* A connection carries many requests at once; nbdkit's threads share the few there are. */
#define NBD_PIECES    16
#define NBD_PIECE_LEN (256 * 1024)

static struct {
	char *file, *header;
	const char *uri;
	unsigned connections;
	unsigned answer; /* seconds; 0: the usual */
	enum tls_by tls;
	enum direct_mode direct;
	bool pin, lock, lock_image;
	int discard; /* 0 or 1; or -1: as the header says */
	int slot;    /* the key slot that is tried, or LUKS_ANY_SLOT */
	unsigned max_kdf_time; /* seconds, or 0: the default */
	bool have_key;
	const char *keyfile; /* not yet read, or NULL */
	const char *passphrase_file; /* of passphrase=+FILE, or NULL */
	struct key_part keyfile_part;
	struct key pass;
} config = { .connections = 4, .lock_image = true, .discard = -1, .slot = LUKS_ANY_SLOT };

static const struct channel_sizes *sizes = all_sizes;

static struct volume *volume;
static struct lender *wide, *narrow; /* of a file's channels: see channel_sizes; or else */
static struct workers *workers;      /* each with its connection to the server */

static bool forked; /* or as good as, in the foreground */

/* Before nbdkit goes into the background there is somebody at the terminal. Afterwards nobody is at
 * stderr, but nbdkit's errors go where its log goes (syslog, mostly). */
static void notice(void *opaque, const char *message)
{
	(void)opaque;
	if (forked)
		nbdkit_error("%s", message);
	else
		fprintf(stderr, "nbdkit: ndio: %s\n", message);
}

/* ---- configuration ---- */

static int key_given(void)
{
	if (config.have_key) {
		nbdkit_error("passphrase= and keyfile= can be given only once, and not both");
		return -1;
	}
	config.have_key = true;
	return 0;
}

static int config_passphrase(const char *value)
{
	struct error err;
	char *password;
	int ret;

	if (key_given() < 0)
		return -1;
	secret_no_dumps();
	if (nbdkit_read_password(value, &password) < 0)
		return -1;
	ret = key_set(&config.pass, password, strlen(password), &err);
	OPENSSL_cleanse(password, strlen(password));
	free(password);
	if (ret < 0)
		nbdkit_error("%s", err.text);
	return ret < 0 ? -1 : 0;
}

static int config_keyfile(const char *value)
{
	config.keyfile = value;
	return key_given();
}

static int config_key_part(const char *key, uint64_t *number, int64_t max, const char *value)
{
	int64_t n = nbdkit_parse_size(value);

	if (n < 0)
		return -1;
	if (n > max) {
		nbdkit_error("%s=%s: must be at most %" PRIi64, key, value, max);
		return -1;
	}
	*number = n;
	return 0;
}

/* ---- the key file ---- */

/* "-" and "-FD" are descriptors, as with passphrase=. */
static int keyfile_descriptor(const char *value)
{
	unsigned fd = STDIN_FILENO;

	if (value[1] && nbdkit_parse_unsigned("keyfile=-FD", value + 1, &fd) < 0)
		return -1;
	if (fd == STDIN_FILENO && !nbdkit_stdio_safe()) {
		nbdkit_error("keyfile=-: standard input is the client's");
		return -1;
	}
	if (fd == STDOUT_FILENO || fd == STDERR_FILENO || fd > INT_MAX) {
		nbdkit_error("keyfile=%s: no descriptor that a key could come from", value);
		return -1;
	}
	return fd;
}

static int open_keyfile(const char *name, const char *path)
{
	const struct notice listener = { .tell = notice };
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	bool readable = false;
	struct error err;

	if (fd < 0) {
		nbdkit_error("%s: %s", name, strerror(errno));
		return -1;
	}
	if (key_file_look(fd, name, path, &readable, &err) < 0) {
		nbdkit_error("%s", err.text);
		close(fd);
		return -1;
	}
	if (readable)
		notice_tell(&listener, "warning: %s: others may read it", name);
	return fd;
}

/* All its bytes, or those that are asked for, as cryptsetup takes a key file. */
static int read_keyfile(void)
{
	const char *value = config.keyfile;
	char name[PATH_MAX + 16];
	struct error err;
	int fd, ret;

	snprintf(name, sizeof(name), "keyfile: %s", value);
	fd = value[0] == '-' ? keyfile_descriptor(value) : open_keyfile(name, value);
	if (fd < 0)
		return -1;
	secret_no_dumps();
	ret = key_file_read(fd, name, &config.keyfile_part, &config.pass, &err);
	if (ret < 0)
		nbdkit_error("%s", err.text);
	if (fd != STDIN_FILENO)
		close(fd);
	return ret < 0 ? -1 : 0;
}

static int config_direct(const char *value)
{
	if (strcmp(value, "auto") == 0)
		config.direct = DIRECT_AUTO;
	else if (strcmp(value, "on") == 0)
		config.direct = DIRECT_ON;
	else if (strcmp(value, "off") == 0)
		config.direct = DIRECT_OFF;
	else {
		nbdkit_error("direct=%s: must be auto, on or off", value);
		return -1;
	}
	return 0;
}

static int config_tls(const char *value)
{
	if (strcmp(value, "openssl") == 0)
		config.tls = TLS_BY_OPENSSL;
	else if (strcmp(value, "libnbd") == 0)
		config.tls = TLS_BY_LIBNBD;
	else {
		nbdkit_error("tls=%s: must be openssl or libnbd", value);
		return -1;
	}
	return 0;
}

static int config_bool(bool *flag, const char *value)
{
	int ret = nbdkit_parse_bool(value);

	if (ret >= 0)
		*flag = ret;
	return ret < 0 ? -1 : 0;
}

static int config_discard(const char *value)
{
	config.discard = nbdkit_parse_bool(value);
	return config.discard < 0 ? -1 : 0;
}

static int config_slot(const char *value)
{
	if (nbdkit_parse_int("slot", value, &config.slot) < 0)
		return -1;
	if (config.slot < 0 || config.slot > MAX_SLOT) {
		nbdkit_error("slot=%s: must be from 0 to %d", value, MAX_SLOT);
		return -1;
	}
	return 0;
}

static int config_max_kdf_time(const char *value)
{
	if (nbdkit_parse_unsigned("max-kdf-time", value, &config.max_kdf_time) < 0)
		return -1;
	if (config.max_kdf_time == 0) {
		nbdkit_error("max-kdf-time=%s: must be at least 1", value);
		return -1;
	}
	return 0;
}

static int config_path(const char *key, char **path, const char *value)
{
	struct error err;

	if (*path) {
		nbdkit_error("%s= can be given only once", key);
		return -1;
	}
	if (locator_is_uri(value)) {
		nbdkit_error("%s: %s= takes a path; a server's export is uri=URI", value, key);
		return -1;
	}
	if (locator_kind(value, &err) < 0) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	*path = nbdkit_absolute_path(value);
	return *path ? 0 : -1;
}

static int config_uri(const char *value)
{
	struct error err;

	if (config.uri) {
		nbdkit_error("uri= can be given only once");
		return -1;
	}
	if (!locator_is_uri(value)) {
		if (strncasecmp(value, "nbd", 3) == 0 && locator_kind(value, &err) < 0)
			nbdkit_error("uri=%s", err.text);
		else
			nbdkit_error("uri=%s: not an NBD URI (nbd://, nbds://, nbd+unix://, ...)",
				     value);
		return -1;
	}
	config.uri = value;
	return 0;
}

static int config_connections(const char *value)
{
	if (nbdkit_parse_unsigned("connections", value, &config.connections) < 0)
		return -1;
	if (config.connections < 1 || config.connections > MAX_CONNECTIONS) {
		nbdkit_error("connections=%s: must be from 1 to %d", value, MAX_CONNECTIONS);
		return -1;
	}
	return 0;
}

static int config_answer(const char *value)
{
	if (nbdkit_parse_unsigned("answer", value, &config.answer) < 0)
		return -1;
	if (config.answer < 1 || config.answer > NBD_ANSWER_TIMEOUT_MAX) {
		nbdkit_error("answer=%s: must be from 1 to %d", value, NBD_ANSWER_TIMEOUT_MAX);
		return -1;
	}
	return 0;
}

static int take_parameter(const char *key, const char *value)
{
	if (strcmp(key, "file") == 0)
		return config_path(key, &config.file, value);
	if (strcmp(key, "uri") == 0)
		return config_uri(value);
	if (strcmp(key, "connections") == 0)
		return config_connections(value);
	if (strcmp(key, "answer") == 0)
		return config_answer(value);
	if (strcmp(key, "tls") == 0)
		return config_tls(value);
	if (strcmp(key, "header") == 0)
		return config_path(key, &config.header, value);
	if (strcmp(key, "passphrase") == 0) {
		config.passphrase_file = value[0] == '+' ? value + 1 : NULL;
		return config_passphrase(value);
	}
	if (strcmp(key, "keyfile") == 0)
		return config_keyfile(value);
	if (strcmp(key, "keyfile-offset") == 0)
		return config_key_part(key, &config.keyfile_part.offset, INT64_MAX, value);
	if (strcmp(key, "keyfile-size") == 0)
		return config_key_part(key, &config.keyfile_part.size, KEY_MAX, value);
	if (strcmp(key, "direct") == 0)
		return config_direct(value);
	if (strcmp(key, "discard") == 0)
		return config_discard(value);
	if (strcmp(key, "slot") == 0)
		return config_slot(value);
	if (strcmp(key, "max-kdf-time") == 0)
		return config_max_kdf_time(value);
	if (strcmp(key, "pin") == 0)
		return config_bool(&config.pin, value);
	if (strcmp(key, "lock") == 0)
		return config_bool(&config.lock, value);
	if (strcmp(key, "lock-image") == 0)
		return config_bool(&config.lock_image, value);
	nbdkit_error("unknown parameter '%s'", key);
	return -1;
}

/* The first write of a client would be to the key. */
static int check_key_file(void)
{
	const struct same_part disk = { .locator = config.uri ? config.uri : config.file };
	const struct same_part key = {
		.locator = config.keyfile ? config.keyfile : config.passphrase_file,
		.offset = config.keyfile_part.offset,
		.size = config.keyfile_part.size,
	};

	if (!same_bytes(NULL, &disk, &key))
		return 0;
	nbdkit_error("%s and %s: the same, or one is on the other: the key file would be "
		     "overwritten", key.locator, disk.locator);
	return -1;
}

/* Parameters that would be passed over beside, or without, another one. */
static const struct {
	const char *key;
	bool for_uri;
} one_sided[] = {
	{ "connections", true }, { "answer", true }, { "tls", true },
	{ "direct", false }, { "lock-image", false },
};
#define NR_ONE_SIDED (sizeof(one_sided) / sizeof(one_sided[0]))
static bool given[NR_ONE_SIDED];

static int ndio_config(const char *key, const char *value)
{
	for (size_t i = 0; i < NR_ONE_SIDED; i++)
		given[i] = given[i] || strcmp(key, one_sided[i].key) == 0;
	return take_parameter(key, value);
}

static int check_one_sided(void)
{
	for (size_t i = 0; i < NR_ONE_SIDED; i++)
		if (given[i] && one_sided[i].for_uri != !!config.uri) {
			nbdkit_error("%s= is for %s", one_sided[i].key, one_sided[i].for_uri ?
				     "uri=, another server's export" : "a file or block device");
			return -1;
		}
	return 0;
}

static int ndio_config_complete(void)
{
	if (!config.file == !config.uri) {
		nbdkit_error("you must give the disk, once: nbdkit ndio [file=]PATH, or uri=URI");
		return -1;
	}
	if (config.header && !config.have_key) {
		nbdkit_error("header= needs passphrase= or keyfile=");
		return -1;
	}
	if ((config.keyfile_part.offset || config.keyfile_part.size) && !config.keyfile) {
		nbdkit_error("keyfile-offset= and keyfile-size= need keyfile=");
		return -1;
	}
	if (config.slot != LUKS_ANY_SLOT && !config.have_key) {
		nbdkit_error("slot= needs passphrase= or keyfile=");
		return -1;
	}
	if (check_key_file() < 0 || check_one_sided() < 0)
		return -1;
	return config.keyfile ? read_keyfile() : 0;
}

#define ndio_config_help                                                          \
	"[file=]<PATH>       The file or block device to serve; or else\n"        \
	"uri=<URI>           another NBD server's export.\n"                      \
	"connections=<N>     To that server, if it allows several (default: 4).\n" \
	"answer=<SECONDS>    A server that is silent for so long is lost (default: 30).\n" \
	"tls=openssl|libnbd  Whose TLS encrypts nbds URIs (default: openssl).\n"  \
	"passphrase=<SECRET> Unlock it as LUKS; +FILE, -FD or - as usual.\n"      \
	"keyfile=<PATH>      Unlock it with all bytes of a file; -FD or - as well.\n" \
	"keyfile-offset=<N>  But pass over so many bytes of it first,\n"          \
	"keyfile-size=<N>    and take no more than so many.\n"                    \
	"header=<PATH>       A detached LUKS header.\n"                           \
	"direct=auto|on|off  Direct I/O, past the page cache (default: auto).\n"  \
	"slot=<N>            The only key slot to try (default: any).\n"         \
	"max-kdf-time=<SEC>  How long deriving keys may take (default: 120).\n"  \
	"discard=on|off      Pass trims of an encrypted disk on (default: as its header says).\n" \
	"pin=on|off          Pin each request's buffer (default: off).\n"         \
	"lock=on|off         Lock the server's memory (default: off).\n"          \
	"lock-image=on|off   Keep other writers off the file (default: on).\n"    \
	"Without a passphrase or keyfile the bytes are served as they are."

static size_t bounce_memory(const struct channel_sizes *of)
{
	return WIDE_CHANNELS * channel_bounce_len(&of->wide) +
	       of->narrow_channels * channel_bounce_len(&narrow_options);
}

static void ndio_dump_plugin(void)
{
	printf("ndio_ciphers=aes-xts-plain64 aes-cbc-plain64 aes-cbc-essiv:sha256\n");
	printf("ndio_formats=raw luks1 luks2\n");
	printf("ndio_openssl=%s\n", OpenSSL_version(OPENSSL_VERSION_STRING));
	printf("ndio_bounce_memory=%zu\n", bounce_memory(all_sizes));
	printf("ndio_bounce_memory_min=%zu\n", bounce_memory(LEAST));
#ifdef HAVE_SDT
	printf("ndio_usdt=yes\n");
#else
	printf("ndio_usdt=no\n");
#endif
}

/* ---- start and end ---- */

static int open_workers(void)
{
	const struct channel_options options = {
		.pieces = NBD_PIECES,
		.piece_len = NBD_PIECE_LEN,
	};
	struct error err;
	int errnum;

	workers = workers_open(volume, config.connections, &options, NULL, &errnum, &err);
	if (!workers)
		nbdkit_error("%s", err.text);
	return workers ? 0 : -1;
}

/* What waits for a silent server would keep nbdkit from its end: it waits for its clients. */
static pthread_t hurrier;
static bool has_hurrier;

static void *hurry_at_end(void *opaque)
{
	(void)opaque;
	while (nbdkit_nanosleep(3600, 0) == 0) /* until nbdkit is told to end */
		;
	target_nbd_hurry(volume->target);
	return NULL;
}

static int start_hurrier(void)
{
	int ret = thread_start(&hurrier, hurry_at_end, NULL);

	if (ret)
		nbdkit_error("no thread to wait for the end: %s", strerror(ret));
	has_hurrier = ret == 0;
	return ret ? -1 : 0;
}

/* nbdkit may also end without being told, with its only client. */
static void stop_hurrier(void)
{
	if (!has_hurrier)
		return;
	pthread_cancel(hurrier);
	pthread_join(hurrier, NULL);
	has_hurrier = false;
}

static int open_lender(struct lender **lender, const struct lender_options *options)
{
	struct error err;
	int errnum;

	*lender = lender_open(volume, options, &errnum, &err);
	if (!*lender)
		nbdkit_error("%s", err.text);
	return *lender ? 0 : -1;
}

static void close_lenders(void)
{
	lender_close(wide);
	lender_close(narrow);
	wide = narrow = NULL;
}

static int open_lenders(bool tell)
{
	const struct lender_options for_wide = {
		.channels = WIDE_CHANNELS,
		.channel = sizes->wide,
		.read_depth = READ_DEPTH,
		.small_read = SMALL_READ,
		.patience = READ_PATIENCE,
		.helped = true,
	};
	const struct lender_options for_narrow = {
		.channels = sizes->narrow_channels,
		.channel = narrow_options,
	};

	if (open_lender(&wide, &for_wide) < 0 ||
	    (volume->block <= NARROW_PIECE && open_lender(&narrow, &for_narrow) < 0))
		return -1;
	if (tell && !(lender_is_pinned(wide) && (!narrow || lender_is_pinned(narrow))))
		notice(NULL, BOUNCE_UNPINNED);
	return 0;
}

/* Could so much memory be locked now? Asks for the limit alone: nothing is touched. */
static bool can_lock(size_t len)
{
	void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool can;

	if (memory == MAP_FAILED)
		return false;
	can = mlock2(memory, len, MLOCK_ONFAULT) == 0;
	munmap(memory, len);
	return can;
}

/* Memory and what rings are charged for count each for itself. On huge pages each wide channel's
 * ring is charged for one of 2 MiB, twice its share. */
static size_t locked_memory(const struct channel_sizes *of)
{
	size_t memory = bounce_memory(of);
	size_t rings = 2 * WIDE_CHANNELS * channel_bounce_len(&of->wide);

	return of->wide.huge_pages && rings > memory ? rings : memory;
}

static void choose_sizes(void)
{
	sizes = all_sizes;
	while (sizes < LEAST && !can_lock(locked_memory(sizes)))
		sizes++;
}

/* pin=on: a request as large as nbdkit takes must fit under the locked-memory limit, beside the
 * bounce memory. */
static int try_pin(void)
{
	size_t bounce = config.uri ? (size_t)config.connections * NBD_PIECES * NBD_PIECE_LEN :
				     bounce_memory(sizes);

	if (can_lock(MAX_REQUEST + bounce))
		return 0;
	nbdkit_error("pin=on: can't lock a request of %d MiB: the locked-memory limit (ulimit -l) "
		     "is too low", MAX_REQUEST >> 20);
	return -1;
}

static int raise_shield(const struct notice *listener)
{
	struct error err;

	if (shield_raise(listener, &err) == 0)
		return 0;
	nbdkit_error("%s", err.text);
	return -1;
}

static int lock_key_again(const char *when)
{
	int ret = pin_after_fork();

	if (ret < 0)
		nbdkit_error("%s: can't lock the key's memory again: %s (the locked-memory limit is "
			     "ulimit -l)", when, strerror(-ret));
	return ret < 0 ? -1 : 0;
}

/* A fork loses locked memory: this tells whether it can be had, and what else can't. */
static int try_shield(void)
{
	const struct notice listener = { .tell = notice };

	if (raise_shield(&listener) < 0)
		return -1;
	munlockall();
	return lock_key_again("lock=on");
}

/* For nbdkit --verbose. */
static void debug_server(void)
{
	struct target_nbd_facts facts;

	if (!target_is_nbd(volume->target))
		return;
	target_nbd_facts(volume->target, &facts);
	if (facts.tls_facts.version[0])
		nbdkit_debug("%s: %s, %s, %s", volume->target->name, facts.tls_facts.version,
			     facts.tls_facts.cipher, facts.tls_facts.peer[0] ?
			     facts.tls_facts.peer : "a server that is not verified");
}

/* Threads and rings don't go over the fork; the connections to a server do as they are. */
static int try_channels(void)
{
	int ret = config.uri ? open_workers() : open_lenders(true);

	close_lenders();
	workers_close(workers, false);
	workers = NULL;
	return ret;
}

/* Before the fork: opens and unlocks, and tries all that has to be done again after it, so
 * that what fails is seen on the user's terminal. */
/* Who has forgotten the key would wonder what the clients see. What can't be read is theirs to find
 * out. */
static void tell_of_ciphertext(void)
{
	const struct notice listener = { .tell = notice };
	uint8_t first[512];

	if (!volume->encrypted && volume->target->size >= sizeof(first) &&
	    target_read(volume->target, first, sizeof(first), 0) == 0 &&
	    luks_starts(first, sizeof(first)))
		notice_tell(&listener, "%s: a LUKS volume; without a key it is served as it is, "
			    "encrypted", volume->target->name);
}

static int ndio_get_ready(void)
{
	const struct volume_options options = {
		.file = config.file,
		.uri = config.uri,
		.connections = config.connections,
		.answer_timeout = config.answer,
		.tls_by = config.tls,
		.header = config.header,
		.unlock = config.have_key,
		.pass = config.pass.data,
		.pass_len = config.pass.len,
		.direct = config.direct,
		.locking = !config.lock_image     ? LOCK_IMAGE_OFF :
			   read_only_looks_so() ? LOCK_IMAGE_LATER :
						  LOCK_IMAGE,
		.one_slot = config.slot != LUKS_ANY_SLOT,
		.slot = config.slot,
		.max_kdf_time = config.max_kdf_time,
		.discard = config.discard == 1,
		.no_discard = config.discard == 0,
		.notice = { .tell = notice },
	};
	struct error err;
	int errnum;

	volume = volume_open(&options, &errnum, &err);
	key_clear(&config.pass);
	if (!volume) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	debug_server();
	tell_of_ciphertext();
	choose_sizes();
	if (config.pin && try_pin() < 0)
		return -1;
	if (config.lock && try_shield() < 0)
		return -1;
	return try_channels();
}

static int start(void)
{
	const struct notice nobody = { .tell = NULL }; /* all was told before */
	const struct channel_sizes *before = sizes;

	forked = true;
	if (lock_key_again("after the fork") < 0)
		return -1;
	/* What a change of user (nbdkit --user) has undone since get_ready. */
	if (config.have_key || (config.uri && strncmp(config.uri, "nbds", 4) == 0))
		secret_no_dumps();
	choose_sizes();
	if (config.pin && try_pin() < 0)
		return -1;
	if (config.lock && raise_shield(&nobody) < 0)
		return -1;
	if (!config.uri)
		return open_lenders(sizes != before);
	return open_workers() < 0 ? -1 : start_hurrier();
}

/* Writing a file beyond ulimit -f is the client's error then, and not the server's end. */
static void ndio_load(void)
{
	struct sigaction now;

	if (sigaction(SIGXFSZ, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
		signal(SIGXFSZ, SIG_IGN);
}

static int ndio_after_fork(void)
{
	int ret = start();

	if (ret < 0)
		captive_refuse();
	return ret;
}

static void ndio_unload(void)
{
	stop_hurrier();
	close_lenders();
	workers_close(workers, true);
	if (volume && ndio_debug_stats)
		stats_print(&volume->stats, "ndio.stats.", stderr);
	volume_close(volume);
	key_clear(&config.pass);
	free(config.file);
	free(config.header);
}

/* ---- connections ---- */

/* What a server that looked read-only has left out. */
static int lock_for_writing(void)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	struct error err;
	int ret;

	pthread_mutex_lock(&mutex);
	ret = target_file_lock(volume->target, &err);
	pthread_mutex_unlock(&mutex);
	if (ret < 0)
		nbdkit_error("%s", err.text);
	return ret;
}

static void *ndio_open(int readonly)
{
	/* nbdkit itself refuses writes of clients that may only read. */
	if (!readonly && !volume->readonly && config.file && config.lock_image &&
	    lock_for_writing() < 0)
		return NULL;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static const char *ndio_export_description(void *handle)
{
	(void)handle;
	return volume->encrypted ? nbdkit_printf_intern(VOLUME_DESCRIPTION, volume->luks.version,
							volume->sector) : NULL;
}

static int64_t ndio_get_size(void *handle)
{
	(void)handle;
	return volume->size;
}

static int ndio_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
			   uint32_t *maximum)
{
	(void)handle;
	*minimum = 1;
	*preferred = volume->block > 4096 ? volume->block : 4096;
	*maximum = MAX_REQUEST;
	return 0;
}

static int ndio_can_write(void *handle)
{
	(void)handle;
	return !volume->readonly;
}

static int ndio_can_flush(void *handle)
{
	(void)handle;
	return volume->target->can_flush;
}

static int ndio_is_rotational(void *handle)
{
	(void)handle;
	return volume->target->rotational;
}

static int ndio_can_trim(void *handle)
{
	(void)handle;
	return volume->can_trim;
}

static int ndio_can_fast_zero(void *handle)
{
	(void)handle;
	return volume->can_fast_zero;
}

static int ndio_can_fua(void *handle)
{
	(void)handle;
	return volume->target->can_fua ? NBDKIT_FUA_NATIVE : NBDKIT_FUA_NONE;
}

/* Nothing is cached here, and a flush on one connection covers the writes of all. */
static int ndio_can_multi_conn(void *handle)
{
	(void)handle;
	return 1;
}

static int ndio_can_cache(void *handle)
{
	(void)handle;
	return volume->can_cache ? NBDKIT_CACHE_NATIVE : NBDKIT_CACHE_NONE;
}

static int ndio_can_extents(void *handle)
{
	(void)handle;
	return volume->can_extents;
}

/* ---- requests ---- */

/* What the protocol has no number for nbdkit would tell as EINVAL, as if the client had asked for
 * something wrong. */
static int client_errno(int errnum)
{
	switch (errnum) {
	case EPERM:
	case EROFS:
	case ENOMEM:
	case EINVAL:
	case ENOSPC:
	case EFBIG:
	case EDQUOT:
	case EOVERFLOW:
	case EOPNOTSUPP:
	case ESHUTDOWN:
		return errnum;
	default:
		return EIO;
	}
}

static int run_request(struct ndio_request *request)
{
	if (workers)
		return workers_run(workers, request);
	return lender_run(narrow && lender_suits(narrow, request) ? narrow : wide, request);
}

/* What has failed for good. */
static const char *sync_consequence(enum op op, unsigned flags)
{
	if ((op != OP_FLUSH && !(flags & REQ_FUA)) || !syncs_error(&volume->syncs))
		return "";
	return "; " SYNCS_FAILED;
}

static int run(enum op op, unsigned flags, uint64_t offset, uint32_t count, void *buf,
	       extent_fn *extent, void *opaque)
{
	static const char *const names[] = {
		[OP_READ] = "read",   [OP_WRITE] = "write", [OP_ZERO] = "zero",
		[OP_TRIM] = "trim",   [OP_FLUSH] = "flush", [OP_CACHE] = "cache",
		[OP_EXTENTS] = "extents",
	};
	const struct iovec iov = { buf, count };
	struct ndio_request *request;
	int ret;

	if (config.pin && buf)
		flags |= REQ_PIN;
	ret = request_make(volume, op, ORIGIN_PLUGIN, flags, offset, count, &iov, 1, &request);
	if (ret == 0) {
		request->extent = extent;
		request->extent_opaque = opaque;
		ret = run_request(request);
		request_put(request, REF_CALLER);
	}
	if (ret < 0) {
		/* For these nbdkit falls back to something else, or tells the client by the errno
		 * alone. */
		if (ret != -EOPNOTSUPP)
			nbdkit_error("%s: %s of %" PRIu32 " bytes at %" PRIu64 ": %s%s",
				     volume->target->name, names[op], count, offset,
				     target_reason(volume->target, -ret), sync_consequence(op, flags));
		nbdkit_set_error(client_errno(-ret));
		return -1;
	}
	return 0;
}

static unsigned flags_of(uint32_t nbdkit_flags)
{
	return (nbdkit_flags & NBDKIT_FLAG_FUA ? REQ_FUA : 0) |
	       (nbdkit_flags & NBDKIT_FLAG_MAY_TRIM ? REQ_MAY_TRIM : 0) |
	       (nbdkit_flags & NBDKIT_FLAG_FAST_ZERO ? REQ_FAST_ZERO : 0);
}

static int ndio_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	return run(OP_READ, flags_of(flags), offset, count, buf, NULL, NULL);
}

static int ndio_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
		       uint32_t flags)
{
	(void)handle;
	return run(OP_WRITE, flags_of(flags), offset, count, (void *)buf, NULL, NULL);
}

static int ndio_flush(void *handle, uint32_t flags)
{
	(void)handle;
	return run(OP_FLUSH, flags_of(flags), 0, 0, NULL, NULL, NULL);
}

static int ndio_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	return run(OP_TRIM, flags_of(flags), offset, count, NULL, NULL, NULL);
}

static int ndio_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	return run(OP_ZERO, flags_of(flags), offset, count, NULL, NULL, NULL);
}

static int ndio_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	return run(OP_CACHE, flags_of(flags), offset, count, NULL, NULL, NULL);
}

static int add_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	return nbdkit_add_extent(opaque, offset, len, type) < 0 ? -errno : 0;
}

static int ndio_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
			struct nbdkit_extents *extents)
{
	(void)handle;
	return run(OP_EXTENTS, flags_of(flags), offset, count, NULL, add_extent, extents);
}

static struct nbdkit_plugin plugin = {
	.name = "ndio",
	.longname = "ndio encrypted disks",
	.version = NDIO_VERSION,
	.description = "Serve a disk with direct I/O, encrypted on the fly as LUKS",
	.load = ndio_load,
	.unload = ndio_unload,
	.config = ndio_config,
	.config_complete = ndio_config_complete,
	.config_help = ndio_config_help,
	.magic_config_key = "file",
	.dump_plugin = ndio_dump_plugin,
	.get_ready = ndio_get_ready,
	.after_fork = ndio_after_fork,
	.open = ndio_open,
	.export_description = ndio_export_description,
	.get_size = ndio_get_size,
	.block_size = ndio_block_size,
	.can_write = ndio_can_write,
	.can_flush = ndio_can_flush,
	.is_rotational = ndio_is_rotational,
	.can_trim = ndio_can_trim,
	.can_fast_zero = ndio_can_fast_zero,
	.can_fua = ndio_can_fua,
	.can_multi_conn = ndio_can_multi_conn,
	.can_cache = ndio_can_cache,
	.can_extents = ndio_can_extents,
	.pread = ndio_pread,
	.pwrite = ndio_pwrite,
	.flush = ndio_flush,
	.trim = ndio_trim,
	.zero = ndio_zero,
	.cache = ndio_cache,
	.extents = ndio_extents,
	.errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
