/* ndio-serve: the program behind `ndio serve`: an NBD server on the engine, without nbdkit.
 *
 *     options -> disks, each with its key -> sockets -> loops -> the door, until it is told to end
 *         -> all of it back
 *
 * Threads: this one has the door; each loop has its own. Signals are this one's: those that end the
 * server come by a descriptor. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "background.h"
#include "base/places.h"
#include "door.h"
#include "inherit.h"
#include "memory/shield.h"
#include "options.h"
#include "say.h"
#include "statistics.h"
#include "table.h"
#include "wire.h"

#define HANDSHAKE_MS  10000
#define LOCAL_ADDRESS "localhost"
#define NBD_PORT      "10809"

static struct exports exports;
static struct listener listeners[LISTEN_MAX + 1];
static unsigned nr_listeners;
static struct rlimit descriptors; /* as they were */

static bool has_tls(const struct serve_options *options)
{
	return options->tls.psk_file || options->tls.certificates;
}

/* Who started it in the background tells by a mark what is the reason, and what was only said on the way. */
static int serve_fail(const struct serve_options *options, const struct error *err)
{
	say("%s%s", options->background ? "error: " : "", err->text);
	return EXIT_FAILURE;
}

/* ---- disks ---- */

static int open_disks(struct serve_options *options, struct error *err)
{
	struct disks *disks = &options->disks;
	int ret = 0;

	if (options->table)
		ret = table_read(options->table, &options->disk, disks, err);
	if (ret == 0)
		ret = disks_open(disks, &exports, err);
	/* Before any thread, each of which is to have it. */
	if (ret == 0 && options->lock)
		ret = shield_raise("--lock", &serve_notice, err);
	return ret;
}

/* Each client and each disk takes some: as many as there may be, for who didn't ask for fewer. */
static void allow_descriptors(void)
{
	struct rlimit most;

	if (getrlimit(RLIMIT_NOFILE, &descriptors) < 0)
		return;
	most = descriptors;
	most.rlim_cur = most.rlim_max;
	setrlimit(RLIMIT_NOFILE, &most);
}

/* ---- sockets ---- */

/* Counts what was added, or fails. */
static int add_listeners(int added)
{
	if (added > 0)
		nr_listeners += added;
	return added < 0 ? added : 0;
}

/* Where it is told to, or where systemd listens already, or at home. */
static int listen_all(const struct serve_options *options, struct error *err)
{
	const char *what = options->table           ? options->table :
			   options->nr_locators > 1 ? "several disks" :
						      options->disks.all[0].locator;
	unsigned count = options->nr_addresses;
	int ret = add_listeners(listen_inherited(listeners, LISTEN_MAX, err));

	if (ret == 0 && nr_listeners && (count || options->socket || options->run))
		ret = error_set(err, EINVAL,
				"--listen, --socket and --run: systemd has opened sockets");
	if (ret == 0 && options->socket)
		ret = add_listeners(listen_unix(options->socket, &listeners[0], err) ?: 1);
	for (unsigned i = 0; i < count && ret == 0; i++)
		ret = add_listeners(listen_tcp(options->addresses[i], NBD_PORT,
					       listeners + nr_listeners,
					       LISTEN_MAX + 1 - nr_listeners, err));
	if (ret == 0 && nr_listeners == 0)
		ret = add_listeners(
			listen_tcp(LOCAL_ADDRESS, NBD_PORT, listeners, LISTEN_MAX, err));
	for (unsigned i = 0; i < nr_listeners && ret == 0; i++)
		say("%s: listening on %s", what, listeners[i].name);
	return ret;
}

/* For whoever waits for it. */
static int write_pid(const char *path, struct error *err)
{
	FILE *f;
	bool written;

	if (!path)
		return 0;
	f = fopen(path, "we");
	written = f && fprintf(f, "%d\n", (int)getpid()) > 0;
	if (f && fclose(f) == EOF)
		written = false;
	return written ? 0 : error_set(err, errno, "%s: %s", path, strerror(errno));
}

/* ---- a command of its own ---- */

/* What a URI could take for its own is written by number. */
static void uri_append(char *uri, size_t size, const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~/";
	size_t len = strlen(uri);

	for (; *text && len + 4 <= size; text++)
		len += snprintf(uri + len, size - len, strchr(plain, *text) ? "%c" : "%%%02X",
				(unsigned char)*text);
}

static void set_uri(const struct serve_options *options)
{
	const struct listener *first = &listeners[0];
	const char *scheme = has_tls(options) ? "nbds" : "nbd";
	char uri[3 * (NBD_MAX_STRING + sizeof(first->name))];

	if (first->path)
		snprintf(uri, sizeof(uri), "%s+unix:///", scheme);
	else
		snprintf(uri, sizeof(uri), "%s://%s/", scheme, first->name);
	uri_append(uri, sizeof(uri), exports.all[0]->name);
	if (first->path) {
		strcat(uri, "?socket=");
		uri_append(uri, sizeof(uri), first->path);
	}
	setenv("uri", uri, true);
}

/* Its status, once it has ended: by SIGCHLD the door is closed. */
static int run_command(const struct serve_options *options, const sigset_t *before, pid_t *pid,
		       struct error *err)
{
	set_uri(options);
	*pid = fork();
	if (*pid < 0)
		return error_set(err, errno, "can't run a command: %s", strerror(errno));
	if (*pid > 0)
		return 0;
	sigprocmask(SIG_SETMASK, before, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	setrlimit(RLIMIT_NOFILE, &descriptors);
	execl("/bin/sh", "sh", "-c", options->run, NULL);
	_exit(127);
}

static int status_of(pid_t pid)
{
	int status;

	kill(pid, SIGTERM);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_FAILURE;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- the whole ---- */

/* The signals that end it, by a descriptor. */
static int open_signals(bool runs, sigset_t *before, struct error *err)
{
	/* A command that is stopped, or goes on, hasn't ended. */
	const struct sigaction ends_only = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP };
	static const int ends[] = { SIGTERM, SIGINT, SIGHUP };
	sigset_t set;
	int fd;

	sigaction(SIGCHLD, &ends_only, NULL);
	sigemptyset(&set);
	/* What it was started to ignore (nohup, a script's background) it ignores. */
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct sigaction now;

		if (sigaction(ends[i], NULL, &now) < 0 || now.sa_handler != SIG_IGN)
			sigaddset(&set, ends[i]);
	}
	if (runs)
		sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, before);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_set(err, errno, "no descriptor for signals: %s", strerror(errno));
	return fd;
}

static int serve(struct serve_options *options, struct error *err)
{
	struct door_options door = {
		.exports = &exports,
		.listeners = listeners,
		.max_connections = options->max_connections,
		.tls_optional = options->tls_optional,
		.patience = HANDSHAKE_MS,
	};
	int ret = 0, status = EXIT_SUCCESS, stop_fd = -1;
	sigset_t before;
	struct tls_server *tls = NULL;
	pid_t pid = 0;

	if (has_tls(options))
		ret = tls_server_make(&options->tls, &tls, err);
	if (ret == 0)
		ret = open_disks(options, err);
	exports.counted = options->metrics;
	exports.no_zero = options->no_zero;
	/* Not before: while a disk is opened a signal just ends it. */
	if (ret == 0)
		ret = stop_fd = open_signals(options->run, &before, err);
	if (ret >= 0)
		ret = exports_start(&exports, options->threads, err);
	if (ret == 0)
		ret = listen_all(options, err);
	if (ret == 0)
		ret = statistics_start(options->metrics, &exports, listeners[0].name, err);
	if (ret == 0)
		ret = write_pid(options->pid_file, err);
	if (ret == 0 && options->run)
		ret = run_command(options, &before, &pid, err);
	if (ret == 0 && options->background)
		ret = background_ready(err);
	door.nr_listeners = nr_listeners;
	door.tls = tls;
	door.meter = &statistics_door;
	if (ret == 0) {
		sd_notify(0, "READY=1");
		ret = door_run(&door, stop_fd, err);
		sd_notify(0, "STOPPING=1");
	}
	for (unsigned i = 0; i < nr_listeners; i++)
		listen_end(&listeners[i]);
	if (options->pid_file && ret == 0)
		unlink(options->pid_file);
	if (pid > 0)
		status = status_of(pid);
	statistics_end();
	exports_close(&exports);
	tellers_end();
	disks_clear(&options->disks);
	tls_server_free(tls);
	return ret < 0 ? serve_fail(options, err) : status;
}

int main(int argc, char **argv)
{
	static char self[] = "ndio serve";
	static struct serve_options options;
	struct error err = { .text = "" };
	int status;

	if (!keep_places())
		return EXIT_FAILURE;
	argv[0] = self;
	status = options_take(argc, argv, &options);
	if (status >= 0) /* what was printed must have arrived */
		return fflush(stdout) == 0 && !ferror(stdout) ? status : EXIT_FAILURE;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* the write that fails says so */
	if (options.background && background_begin(&err) < 0)
		return serve_fail(&options, &err);
	allow_descriptors();
	return serve(&options, &err);
}
