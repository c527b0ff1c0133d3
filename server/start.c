/* start: what the plugin opens before and after nbdkit's fork, and closes at the end.
 *
 * Before the fork, in get_ready, there is a user at the terminal: the volume is opened and unlocked,
 * once. Threads, rings and locked memory don't go over a fork: they are tried, so that what fails is
 * seen, and closed again. After it (in the foreground as well), in after_fork, they are opened for
 * good: a lender's channels for a file, workers with a connection each for a server. In unload no
 * thread of nbdkit's is in a request any more, and all is closed, whether or not it was opened.
 *
 * nbdkit's main thread runs the three; its others see volume, lender and workers between the last
 * two only, and never change them. */
#include "start.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/thread.h"
#include "engine/bounce.h"
#include "engine/worker.h"
#include "host.h"
#include "key.h"
#include "luks/luks-memfd.h"
#include "memory.h"
#include "memory/pin.h"
#include "memory/shield.h"
#include "metrics/metrics.h"
#include "parameters.h"
#include "report.h"

/* -D ndio.stats=1 prints the counters when the server ends. */
__attribute__((visibility("default"))) int ndio_debug_stats;

struct volume *volume;
struct fences fences = FENCES_INIT;
struct meters *meters;
static struct metrics *metrics;
static struct lender *lender;   /* of a file's channels; or else */
static struct workers *workers; /* each with its connection to the server */

/* ---- what runs requests ---- */

/* tell: the user hasn't been told yet what isn't as good as it could be. */
static int open_channels(bool tell)
{
	struct error err;
	bool pinned;
	int ret;

	if (config.open.uri)
		ret = workers_open(volume, config.open.connections, &memory_of_connection, NULL,
				   &workers, &err);
	else
		ret = lender_open(volume, memory_of_file, &lender, &err);
	if (ret < 0)
		return FAIL("%s", err.text);
	/* Without a key workers have nothing in it. */
	pinned = lender ? lender_is_pinned(lender) :
			  !volume->encrypted || workers_are_pinned(workers);
	if (tell && !pinned)
		notice_tell(&report_notice, BOUNCE_UNPINNED);
	return 0;
}

static void close_channels(void)
{
	lender_close(lender);
	workers_close(workers, false);
	lender = NULL;
	workers = NULL;
}

int start_run(struct ndio_request *request)
{
	return workers ? workers_run(workers, request) : lender_run(lender, request);
}

/* What waits for a silent server would keep nbdkit from its end: it waits for its clients. */
static pthread_t hurrier;
static bool has_hurrier;

static void *hurry_at_end(void *opaque)
{
	(void)opaque;
	while (nbdkit_nanosleep(3600, 0) == 0) /* until nbdkit is told to end */
		;
	target_nbd_hurry(volume->disk);
	return NULL;
}

static int start_hurrier(void)
{
	int ret = thread_start(&hurrier, hurry_at_end, NULL);

	has_hurrier = ret == 0;
	return ret ? FAIL("no thread to wait for the end: %s", strerror(ret)) : 0;
}

/* nbdkit may also end without being told, with its only client: then it is now. Canceled, the thread
 * could leave stderr locked: nbdkit says there why it ends the sleep. */
static void stop_hurrier(void)
{
	if (!has_hurrier)
		return;
	nbdkit_shutdown();
	pthread_join(hurrier, NULL);
	has_hurrier = false;
}

/* ---- locked memory ---- */

static int lock_key_again(const char *when)
{
	int ret = pin_after_fork();

	if (ret == 0)
		return 0;
	return FAIL(
		"%s: can't lock the key's memory again: %s (the locked-memory limit is ulimit -l)",
		when, strerror(-ret));
}

/* Again after the fork, when the limits may be another user's. */
static int ready_memory(const struct notice *notice)
{
	struct error err;

	if (memory_choose() < 0)
		return -1;
	if (config.lock && shield_raise("lock=on", notice, &err) < 0)
		return FAIL("%s", err.text);
	return 0;
}

/* ---- before the fork ---- */

/* For nbdkit --verbose. */
static void debug_server(void)
{
	struct target_nbd_facts facts;
	char words[TLS_WORDS];

	if (!target_is_nbd(volume->disk))
		return;
	target_nbd_facts(volume->disk, &facts);
	if (facts.tls)
		nbdkit_debug("%s: %s", volume->target->name, tls_words(&facts.tls_facts, words));
}

int start_get_ready(void)
{
	struct error err;
	int ret = volume_open(&config.open, &volume, &err);

	key_forget();
	if (ret < 0)
		return FAIL("%s", err.text);
	debug_server();
	open_tell_ciphertext(volume, &report_notice);
	if (ready_memory(&report_notice) < 0)
		return -1;
	if (config.lock) {
		munlockall();
		if (lock_key_again("lock=on") < 0)
			return -1;
	}
	ret = open_channels(true);
	close_channels();
	if (ret == 0 && metrics_open(config.metrics, &report_notice, &metrics, &err) < 0)
		return FAIL("%s", err.text);
	return ret;
}

/* ---- after it ---- */

static int start_for_good(void)
{
	const struct notice nobody = { .tell = NULL }; /* all was told before */
	const struct lender_options *before = memory_of_file;
	const char *uri = config.open.uri;
	struct error err;

	report_forked();
	if (fences_identify(&fences, !uri, &err) < 0)
		return FAIL("%s", err.text);
	if (lock_key_again("after the fork") < 0)
		return -1;
	secret_after_fork(); /* what a change of user (nbdkit --user) has undone */
	if (ready_memory(&nobody) < 0 || open_channels(memory_of_file != before) < 0)
		return -1;
	if (metrics_start_one(metrics, "nbdkit", volume, &meters, &err) < 0)
		return FAIL("%s", err.text);
	return uri ? start_hurrier() : 0;
}

int start_after_fork(void)
{
	int ret = start_for_good();

	if (ret < 0)
		host_refuse_clients();
	return ret;
}

void start_unload(void)
{
	stop_hurrier();
	metrics_close(metrics);
	fences_clear(&fences);
	close_channels();
	if (volume && ndio_debug_stats)
		stats_print(&volume->stats, "ndio.stats.", stderr);
	volume_close(volume);
	parameters_clear();
}
