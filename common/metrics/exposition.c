/* All samples of a metric must be in one place, so the loops are by metric first. Numbers are integers,
 * but for seconds, which are written from nanoseconds without rounding.
 *
 * See the OpenMetrics specification 1.0, and "Exposition formats" in Prometheus' documentation. */
#include "metrics/exposition.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

const char *const exposition_types[] = {
	[EXPOSITION_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
	[EXPOSITION_PROMETHEUS] = "text/plain; version=0.0.4; charset=utf-8",
};

/* meter_bounds in seconds, as OpenMetrics wants such numbers. */
static const char *const bounds[] = {
	"1e-05", "2e-05", "5e-05", "0.0001", "0.0002", "0.0005", "0.001",
	"0.002", "0.005", "0.01",  "0.02",   "0.05",   "0.1",    "0.2",
	"0.5",   "1.0",   "2.0",   "5.0",    "10.0",   "60.0",   "+Inf",
};
_Static_assert(sizeof(bounds) / sizeof(bounds[0]) == METER_BOUNDS + 1, "each has its name");

struct writer {
	FILE *out;
	enum exposition_format format;
	const struct exposition *all;
};

/* ---- lines ---- */

enum type { COUNTER, GAUGE, HISTOGRAM, INFO };

static const struct {
	const char *name, *suffix; /* of samples */
	const char *before;        /* what the older format calls it */
} types[] = {
	[COUNTER] = { "counter", "_total", "counter" },
	[GAUGE] = { "gauge", "", "gauge" },
	[HISTOGRAM] = { "histogram", "", "histogram" },
	[INFO] = { "info", "_info", "gauge" },
};

/* unit: what the name ends in, or NULL. */
static void put_metadata(const struct writer *w, const char *name, enum type type, const char *unit,
			 const char *help)
{
	bool open = w->format == EXPOSITION_OPENMETRICS;
	const char *suffix = open ? "" : types[type].suffix;

	fprintf(w->out, "# HELP %s%s %s\n", name, suffix, help);
	fprintf(w->out, "# TYPE %s%s %s\n", name, suffix,
		open ? types[type].name : types[type].before);
	if (open && unit)
		fprintf(w->out, "# UNIT %s %s\n", name, unit);
}

/* What is no UTF-8 isn't allowed. */
static void put_escaped(FILE *out, const char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		size_t n = utf8_character((const uint8_t *)text, left);

		if (n == 0)
			fputc('?', out);
		else if (*text == '\n')
			fputs("\\n", out);
		else if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else
			fwrite(text, 1, n, out);
		n = n ? n : 1;
		text += n;
		left -= n;
	}
}

/* Up to the labels' end. more: further ones, with a comma before each; or "". */
static void put_name(const struct writer *w, const char *name, const char *suffix,
		     const char *label, const char *value, const char *more)
{
	fprintf(w->out, "%s%s{%s=\"", name, suffix, label);
	put_escaped(w->out, value);
	fprintf(w->out, "\"%s} ", more);
}

static void put(const struct writer *w, const char *name, enum type type,
		const struct exposition_volume *volume, const char *more, uint64_t value)
{
	put_name(w, name, types[type].suffix, "export", volume->name, more);
	fprintf(w->out, "%" PRIu64 "\n", value);
}

/* ---- metrics of requests ---- */

static const struct exposition_volume *end_of(const struct writer *w)
{
	return w->all->volumes + w->all->count;
}

#define FOR_ALL(volume, w)                                                                         \
	for (const struct exposition_volume *volume = (w)->all->volumes; volume < end_of(w);       \
	     volume++)

struct label {
	char text[64];
};

static struct label kind_label(const struct writer *w, unsigned kind)
{
	struct label label;

	snprintf(label.text, sizeof(label.text), ",kind=\"%s\"", w->all->kinds[kind]);
	return label;
}

static uint64_t count_ended(const struct meter_kind_sum *kind)
{
	uint64_t count = 0;

	for (unsigned i = 0; i <= METER_BOUNDS; i++)
		count += kind->ended[i];
	return count;
}

static uint64_t get_bytes(const struct meter_kind_sum *kind)
{
	return kind->bytes;
}

static uint64_t get_in_flight(const struct meter_kind_sum *kind)
{
	return kind->in_flight;
}

static void put_by_kind(const struct writer *w, const char *name, enum type type,
			uint64_t (*get)(const struct meter_kind_sum *kind))
{
	FOR_ALL(volume, w)
	for (unsigned kind = 0; kind < METER_KINDS; kind++)
		put(w, name, type, volume, kind_label(w, kind).text, get(&volume->sum.kind[kind]));
}

/* EIO always, so that its first one is an increase; of the others those that there were. */
static void put_errors(const struct writer *w, const struct exposition_volume *volume,
		       unsigned kind)
{
	const struct meter_kind_sum *sum = &volume->sum.kind[kind];
	struct label label;

	for (unsigned i = 0; i < METER_ERRORS; i++) {
		if (i > 0 && sum->errors[i] == 0)
			continue;
		snprintf(label.text, sizeof(label.text), ",kind=\"%s\",errno=\"%s\"",
			 w->all->kinds[kind], meter_errors[i].name);
		put(w, "ndio_errors", COUNTER, volume, label.text, sum->errors[i]);
	}
}

#define DURATION "ndio_request_duration_seconds"

static void put_duration(const struct writer *w, const struct exposition_volume *volume,
			 unsigned kind)
{
	const struct meter_kind_sum *sum = &volume->sum.kind[kind];
	struct label label = kind_label(w, kind);
	struct label bucket;
	uint64_t count = 0;

	for (unsigned i = 0; i <= METER_BOUNDS; i++) {
		count += sum->ended[i];
		snprintf(bucket.text, sizeof(bucket.text), ",kind=\"%s\",le=\"%s\"",
			 w->all->kinds[kind], bounds[i]);
		put(w, DURATION "_bucket", HISTOGRAM, volume, bucket.text, count);
	}
	put_name(w, DURATION, "_sum", "export", volume->name, label.text);
	fprintf(w->out, "%" PRIu64 ".%09" PRIu64 "\n", sum->ns / 1000000000, sum->ns % 1000000000);
	put(w, DURATION "_count", HISTOGRAM, volume, label.text, count);
}

static void put_requests(const struct writer *w)
{
	put_metadata(w, "ndio_requests", COUNTER, NULL, "Requests that have ended, well or not.");
	put_by_kind(w, "ndio_requests", COUNTER, count_ended);
	put_metadata(w, "ndio_bytes", COUNTER, "bytes",
		     "Bytes that requests which succeeded were for.");
	put_by_kind(w, "ndio_bytes", COUNTER, get_bytes);
	put_metadata(w, "ndio_errors", COUNTER, NULL, "Requests that were answered with an error.");
	FOR_ALL(volume, w)
	for (unsigned kind = 0; kind < METER_KINDS; kind++)
		put_errors(w, volume, kind);
	put_metadata(w, "ndio_in_flight", GAUGE, NULL, "Requests that have come and not ended.");
	put_by_kind(w, "ndio_in_flight", GAUGE, get_in_flight);
	put_metadata(
		w, DURATION, HISTOGRAM, "seconds",
		"How long requests took, from when they were read to when their reply was ready.");
	FOR_ALL(volume, w)
	for (unsigned kind = 0; kind < METER_KINDS; kind++)
		put_duration(w, volume, kind);
}

/* ---- of connections ---- */

static void put_connections(const struct writer *w)
{
	put_metadata(w, "ndio_connections", GAUGE, NULL, "Clients that are connected.");
	FOR_ALL(volume, w)
	put(w, "ndio_connections", GAUGE, volume, "", volume->sum.connections);
	put_metadata(w, "ndio_connections_opened", COUNTER, NULL, "Clients that were let in.");
	FOR_ALL(volume, w)
	put(w, "ndio_connections_opened", COUNTER, volume, "", volume->sum.opened);
}

static void put_door(const struct writer *w)
{
	const struct door_meter *door = w->all->door;
	unsigned nr_suites;

	if (!door)
		return;
	put_metadata(w, "ndio_handshakes_failed", COUNTER, NULL,
		     "Clients that were sent away before they had an export.");
	put_name(w, "ndio_handshakes_failed", "_total", "listen", w->all->door_name, "");
	fprintf(w->out, "%" PRIu64 "\n", door->failed);
	nr_suites = door->nr_suites;
	put_metadata(w, "ndio_tls_connections", COUNTER, NULL,
		     "Clients with which TLS was agreed on.");
	for (unsigned i = 0; i < nr_suites; i++) {
		char more[128];

		snprintf(more, sizeof(more), ",version=\"%s\",cipher=\"%s\"",
			 door->suites[i].version, door->suites[i].cipher);
		put_name(w, "ndio_tls_connections", "_total", "listen", w->all->door_name, more);
		fprintf(w->out, "%" PRIu64 "\n", door->suites[i].count);
	}
}

/* ---- of another server ---- */

static void put_server_tls(const struct writer *w)
{
	bool described = false;

	FOR_ALL(volume, w)
	{
		char more[128];

		if (!volume->tls_version[0])
			continue;
		if (!described)
			put_metadata(w, "ndio_server_tls", INFO, NULL,
				     "TLS of the connections to the disk's server.");
		described = true;
		snprintf(more, sizeof(more), ",version=\"%s\",cipher=\"%s\"", volume->tls_version,
			 volume->tls_cipher);
		put(w, "ndio_server_tls", INFO, volume, more, 1);
	}
}

/* ---- of what some disks have ---- */

static bool has_server(const struct exposition_volume *volume)
{
	return volume->has_server;
}

static bool has_integrity(const struct exposition_volume *volume)
{
	return volume->has_integrity;
}

static bool has_trust(const struct exposition_volume *volume)
{
	return volume->is_trusted;
}

static uint64_t get_waiting(const struct exposition_volume *volume)
{
	return volume->waiting;
}

static uint64_t get_reconnects(const struct exposition_volume *volume)
{
	return volume->reconnects;
}

static uint64_t get_unflushed(const struct exposition_volume *volume)
{
	return volume->unflushed;
}

static uint64_t get_bad_blocks(const struct exposition_volume *volume)
{
	return volume->bad_blocks;
}

static uint64_t get_stale_areas(const struct exposition_volume *volume)
{
	return volume->stale_areas;
}

static const struct some_have {
	const char *name;
	enum type type;
	const char *unit, *help;
	bool (*has)(const struct exposition_volume *volume);
	uint64_t (*get)(const struct exposition_volume *volume);
} some_have[] = {
	{ "ndio_waiting", GAUGE, NULL, "1: the disk's server is away; 0: it is there.", has_server,
	  get_waiting },
	{ "ndio_reconnects", COUNTER, NULL, "How often the disk's server has come back.",
	  has_server, get_reconnects },
	{ "ndio_unflushed_bytes", GAUGE, "bytes",
	  "What is kept since the disk's server may lose it.", has_server, get_unflushed },
	{ "ndio_bad_blocks", COUNTER, NULL, "Blocks read that weren't what was written there.",
	  has_integrity, get_bad_blocks },
	{ "ndio_stale_areas", COUNTER, NULL, "Areas that aren't what the trust file says.",
	  has_trust, get_stale_areas },
};

static void put_some(const struct writer *w, const struct some_have *metric)
{
	bool described = false;

	FOR_ALL(volume, w)
	{
		if (!metric->has(volume))
			continue;
		if (!described)
			put_metadata(w, metric->name, metric->type, metric->unit, metric->help);
		described = true;
		put(w, metric->name, metric->type, volume, "", metric->get(volume));
	}
}

/* ---- the whole ---- */

static void put_build(const struct writer *w)
{
	char more[128];

	snprintf(more, sizeof(more), ",program=\"%s\",version=\"%s\"", w->all->program,
		 NDIO_VERSION);
	put_metadata(w, "ndio_build", INFO, NULL, "Which ndio this is.");
	FOR_ALL(volume, w)
	put(w, "ndio_build", INFO, volume, more, 1);
}

char *exposition_write(const struct exposition *exposition, enum exposition_format format,
		       size_t *len)
{
	char *text = NULL;
	struct writer w = { .format = format, .all = exposition };

	w.out = open_memstream(&text, len);
	if (!w.out)
		return NULL;
	put_build(&w);
	put_requests(&w);
	put_connections(&w);
	put_door(&w);
	put_server_tls(&w);
	for (size_t i = 0; i < sizeof(some_have) / sizeof(some_have[0]); i++)
		put_some(&w, &some_have[i]);
	if (format == EXPOSITION_OPENMETRICS)
		fputs("# EOF\n", w.out);
	if (fclose(w.out) == 0)
		return text;
	free(text);
	return NULL;
}
