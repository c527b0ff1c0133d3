/* One thread, which sleeps until somebody asks, or until the file is to be written anew. It takes no lock
 * that a request waits for, but for a moment that of the session with another server, and those of a disk
 * with integrity. */
#include "metrics/metrics.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/listen.h"
#include "base/path.h"
#include "base/thread.h"
#include "integrity/target-integrity.h"
#include "metrics/exposition.h"
#include "metrics/http.h"
#include "metrics/text-file.h"
#include "nbd/target-nbd.h"

#define SUFFIX    ".prom"
#define LOOPBACK  "127.0.0.1"
#define PERIOD_MS 15000 /* between two writings of the file */
#define SLOTS     16    /* meters that threads share, a core each as far as they go */
#define PAUSE_MS  100   /* without descriptors or memory for a client */

_Static_assert(OP_EXTENTS + 1 == METER_KINDS, "each operation is counted");

struct metrics {
	char *path;   /* absolute, of the file or the Unix socket; or NULL */
	bool is_file; /* so it isn't for HTTP */
	struct notice notice;
	struct listener listeners[LISTEN_MAX];
	unsigned nr_listeners;

	struct metrics_served served;
	struct metrics_volume only; /* of metrics_start_one(), and its meters */
	struct meters *meters;
	struct exposition_volume *volumes; /* as many as are served: the thread's */
	struct http *http;
	int stop_fd; /* an eventfd */
	bool has_thread;
	pthread_t thread;
	bool has_failed; /* the last writing of the file has, which was told */
};

/* ---- what is told ---- */

static void read_integrity(struct target *target, struct exposition_volume *to)
{
	struct target_integrity_facts facts;

	if (!target_is_integrity(target))
		return;
	target_integrity_facts(target, &facts);
	to->has_integrity = true;
	to->is_trusted = facts.trusted;
	to->bad_blocks = facts.bad;
	to->stale_areas = facts.stale;
}

static void metrics_read_volume(const struct metrics_volume *from, struct exposition_volume *to)
{
	const struct target *target = from->volume->disk;
	struct target_nbd_facts nbd;
	struct lasting_facts server;

	*to = (struct exposition_volume){
		.name = from->name && from->name[0] ? from->name : target->name,
	};
	meters_sum(from->meters, &to->sum);
	read_integrity(from->volume->target, to);
	if (!target_is_nbd(target))
		return;
	target_nbd_facts(target, &nbd);
	snprintf(to->tls_version, sizeof(to->tls_version), "%s", nbd.tls_facts.version);
	snprintf(to->tls_cipher, sizeof(to->tls_cipher), "%s", nbd.tls_facts.cipher);
	if (!target_nbd_lasting(target, &server))
		return;
	to->has_server = true;
	to->waiting = server.state != SESSION_UP;
	to->reconnects = server.times_lost - (to->waiting && server.times_lost > 0);
	to->unflushed = server.unflushed;
}

static char *write_text(void *opaque, enum exposition_format format, size_t *len)
{
	struct metrics *metrics = opaque;
	const struct metrics_served *served = &metrics->served;
	const struct exposition exposition = {
		.program = served->program,
		.kinds = op_names,
		.volumes = metrics->volumes,
		.count = served->count,
		.door = served->door,
		.door_name = served->door_name,
	};

	for (unsigned i = 0; i < served->count; i++)
		metrics_read_volume(&served->volumes[i], &metrics->volumes[i]);
	return exposition_write(&exposition, format, len);
}

/* ---- by a file ---- */

/* That it fails is told once, until it succeeds again. */
static void write_file(struct metrics *metrics)
{
	size_t len;
	char *text = write_text(metrics, EXPOSITION_PROMETHEUS, &len);
	struct error err = { .text = "no memory for metrics" };
	int ret = text ? text_file_write(metrics->path, text, len, &err) : -ENOMEM;

	free(text);
	if (ret < 0 && !metrics->has_failed)
		notice_tell(&metrics->notice, "%s", err.text);
	metrics->has_failed = ret < 0;
}

static void serve_file(struct metrics *metrics)
{
	struct pollfd stop = { .fd = metrics->stop_fd, .events = POLLIN };

	do
		write_file(metrics);
	while (poll(&stop, 1, PERIOD_MS) == 0);
	write_file(metrics);
}

/* ---- by HTTP ---- */

/* False: not now, and others needn't be asked for a while. */
static bool take_client(struct metrics *metrics, const struct listener *listener)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0)
		http_take(metrics->http, fd);
	return fd >= 0 || errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
}

static void serve_http(struct metrics *metrics)
{
	struct pollfd fds[LISTEN_MAX + 2] = {
		{ .fd = metrics->stop_fd, .events = POLLIN },
		{ .fd = http_fd(metrics->http), .events = POLLIN },
	};
	bool pauses = false;

	for (unsigned i = 0; i < metrics->nr_listeners; i++)
		fds[i + 2].fd = metrics->listeners[i].fd;
	while (!fds[0].revents) {
		int timeout = http_timeout(metrics->http);

		for (unsigned i = 0; i < metrics->nr_listeners; i++)
			fds[i + 2].events = pauses ? 0 : POLLIN;
		if (pauses && (timeout < 0 || timeout > PAUSE_MS))
			timeout = PAUSE_MS;
		if (poll(fds, metrics->nr_listeners + 2, timeout) < 0)
			continue;
		pauses = false;
		for (unsigned i = 0; i < metrics->nr_listeners && !pauses; i++)
			if (fds[i + 2].revents & POLLIN)
				pauses = !take_client(metrics, &metrics->listeners[i]);
		http_go_on(metrics->http);
	}
}

static void *metrics_main(void *opaque)
{
	struct metrics *metrics = opaque;

	if (metrics->is_file)
		serve_file(metrics);
	else
		serve_http(metrics);
	return NULL;
}

/* ---- opening ---- */

static bool has_suffix(const char *path)
{
	size_t len = strlen(path);

	return len > strlen(SUFFIX) && strcmp(path + len - strlen(SUFFIX), SUFFIX) == 0;
}

static int open_path(struct metrics *metrics, const char *where, struct error *err)
{
	int ret;

	metrics->path = path_absolute(where);
	if (!metrics->path)
		return error_set(err, errno, "%s: %s", where, strerror(errno));
	metrics->is_file = has_suffix(where);
	if (metrics->is_file)
		return text_file_write(metrics->path, "", 0, err);
	ret = listen_unix(metrics->path, &metrics->listeners[0], err);
	metrics->nr_listeners = ret == 0;
	return ret;
}

static int open_address(struct metrics *metrics, const char *where, struct error *err)
{
	char address[256];
	bool is_port = where[0] && !where[strspn(where, "0123456789")];
	int ret;

	if (!is_port && !strchr(where, ':'))
		return error_set(err, EINVAL, "%s: neither HOST:PORT nor a path, which has a slash",
				 where);
	/* Nobody else shall see it who isn't meant to. */
	if (is_port)
		ret = snprintf(address, sizeof(address), LOOPBACK ":%s", where);
	else
		ret = snprintf(address, sizeof(address), "%s%s", where[0] == ':' ? LOOPBACK : "",
			       where);
	if (ret >= (int)sizeof(address))
		return error_set(err, EINVAL, "%s: not HOST:PORT", where);
	ret = listen_tcp(address, NULL, metrics->listeners, LISTEN_MAX, err);
	if (ret < 0)
		return ret;
	metrics->nr_listeners = ret;
	for (unsigned i = 0; i < metrics->nr_listeners; i++)
		notice_tell(&metrics->notice, "metrics: http://%s/metrics",
			    metrics->listeners[i].name);
	return 0;
}

int metrics_open(const char *where, const struct notice *notice, struct metrics **result,
		 struct error *err)
{
	struct metrics *metrics = where ? calloc(1, sizeof(*metrics)) : NULL;
	struct error reason;
	int ret;

	*result = NULL;
	if (!where)
		return 0;
	if (!metrics)
		return error_set(err, ENOMEM, "no memory for metrics");
	metrics->notice = *notice;
	metrics->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (metrics->stop_fd < 0)
		ret = error_set(&reason, errno, "%s", strerror(errno));
	else if (strchr(where, '/'))
		ret = open_path(metrics, where, &reason);
	else
		ret = open_address(metrics, where, &reason);
	if (ret < 0) {
		metrics_close(metrics);
		return error_set(err, -ret, "metrics: %s", reason.text);
	}
	*result = metrics;
	return 0;
}

int metrics_start(struct metrics *metrics, const struct metrics_served *served, struct error *err)
{
	int ret = 0;

	if (!metrics)
		return 0;
	metrics->served = *served;
	metrics->volumes = calloc(served->count, sizeof(metrics->volumes[0]));
	if (!metrics->volumes)
		return error_set(err, ENOMEM, "no memory for metrics");
	if (!metrics->is_file)
		ret = http_open(write_text, metrics, &metrics->http, err);
	if (ret < 0)
		return ret;
	ret = thread_start(&metrics->thread, metrics_main, metrics);
	if (ret != 0)
		return error_set(err, ret, "no thread for metrics: %s", strerror(ret));
	metrics->has_thread = true;
	return 0;
}

int metrics_start_one(struct metrics *metrics, const char *program, struct volume *volume,
		      struct meters **meters, struct error *err)
{
	const struct metrics_served served = {
		.program = program,
		.volumes = metrics ? &metrics->only : NULL,
		.count = 1,
	};

	*meters = NULL;
	if (!metrics)
		return 0;
	metrics->meters = meters_make(SLOTS, true);
	if (!metrics->meters)
		return error_set(err, ENOMEM, "no memory for metrics");
	*meters = metrics->meters;
	metrics->only = (struct metrics_volume){ .volume = volume, .meters = *meters };
	return metrics_start(metrics, &served, err);
}

void metrics_close(struct metrics *metrics)
{
	if (!metrics)
		return;
	if (metrics->has_thread) {
		while (eventfd_write(metrics->stop_fd, 1) < 0 && errno == EINTR)
			;
		pthread_join(metrics->thread, NULL);
	}
	http_close(metrics->http);
	while (metrics->nr_listeners > 0)
		listen_end(&metrics->listeners[--metrics->nr_listeners]);
	if (metrics->stop_fd >= 0)
		close(metrics->stop_fd);
	free(metrics->meters);
	free(metrics->volumes);
	free(metrics->path);
	free(metrics);
}
