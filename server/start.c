/* start: what the plugin opens before and after nbdkit's fork, and closes at the end.
 *
 * Before the fork, in get_ready, there is a user at the terminal: the volume is opened and unlocked,
 * once. Threads, rings and locked memory don't go over a fork: they are tried, so that what fails is
 * seen, and closed again. After it (in the foreground as well), in after_fork, they are opened for
 * good: a lender's channels for a file, workers with a connection each for a server. In unload no
 * thread of nbdkit's is in a request any more, and all is closed, whether or not it was opened.
 *
 * nbdkit's main thread runs the three; its others see volume, lenders and workers between the last
 * two only, and never change them. */
#include "start.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <nbdkit-plugin.h>

#include "asker.h"
#include "base/thread.h"
#include "captive.h"
#include "engine/bounce.h"
#include "engine/lender.h"
#include "engine/worker.h"
#include "luks/luks-memfd.h"
#include "memory.h"
#include "memory/pin.h"
#include "parameters.h"
#include "read-only.h"
#include "report.h"
#include "shield.h"

/* How much is asked of a disk at once for large reads, at least: 3 GB/s from one that answers in a
 * millisecond, and half or less of what clients ask for that have much in flight. Small reads would
 * wait for large ones longer than the disk takes for them. */
#define READ_DEPTH    (3 * 1024 * 1024)
#define READ_PATIENCE 4 /* ms */
#define SMALL_READ    (128 * 1024)

/* -D ndio.stats=1 prints the counters when the server ends. */
__attribute__((visibility("default"))) int ndio_debug_stats;

struct volume *volume;
static struct lender *wide, *narrow; /* of a file's channels: see channel_sizes; or else */
static struct workers *workers;      /* each with its connection to the server */

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

/* Before the fork: opens and unlocks, and tries all that has to be done again after it, so
 * that what fails is seen on the user's terminal. */
int start_get_ready(void)
{
	const struct luks_asker asker = { .ask = asker_ask, .opaque = &config.ask };
	const struct volume_options options = {
		.file = config.file,
		.uri = config.uri,
		.connections = config.connections,
		.answer_timeout = config.answer,
		.header = config.header,
		.unlock = config.have_key,
		.pass = config.pass.data,
		.pass_len = config.pass.len,
		.asker = config.ask >= 0 ? &asker : NULL,
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
	int ret = volume_open(&options, &volume, &err);

	key_clear(&config.pass);
	if (config.ask >= 0)
		close(config.ask);
	if (ret < 0) {
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

	report_forked();
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

int start_after_fork(void)
{
	int ret = start();

	if (ret < 0)
		captive_refuse();
	return ret;
}

void start_unload(void)
{
	stop_hurrier();
	close_lenders();
	workers_close(workers, true);
	if (volume && ndio_debug_stats)
		stats_print(&volume->stats, "ndio.stats.", stderr);
	volume_close(volume);
	parameters_clear();
}

int run_request(struct ndio_request *request)
{
	if (workers)
		return workers_run(workers, request);
	return lender_run(narrow && lender_suits(narrow, request) ? narrow : wide, request);
}
