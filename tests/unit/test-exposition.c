/* What was counted, as text: every byte of it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/request.h"
#include "metrics/exposition.h"

#define BUCKETS "ndio_request_duration_seconds_bucket{export=\"disk\",kind=\"read\",le="

static char *written(const struct exposition *exposition, enum exposition_format format)
{
	size_t len;
	char *text = exposition_write(exposition, format, &len);

	assert_non_null(text);
	assert_int_equal(strlen(text), len);
	return text;
}

static char *written_of(const struct exposition_volume *volume, enum exposition_format format)
{
	const struct exposition exposition = {
		.program = "test",
		.kinds = op_names,
		.volumes = volume,
		.count = 1,
	};

	return written(&exposition, format);
}

static void has(const char *text, const char *wanted)
{
	if (!strstr(text, wanted))
		fail_msg("\"%s\" isn't in:\n%s", wanted, text);
}

static void has_not(const char *text, const char *unwanted)
{
	if (strstr(text, unwanted))
		fail_msg("\"%s\" is in:\n%s", unwanted, text);
}

/* Lines that start so. */
static unsigned count(const char *text, const char *start)
{
	unsigned n = 0;

	for (const char *at = text; (at = strstr(at, start)); at++)
		n += at == text || at[-1] == '\n';
	return n;
}

static void a_counter_is_described_and_told(void **state)
{
	static const struct exposition_volume volume = {
		.name = "disk",
		.sum.kind = { [OP_WRITE] = { .ended = { [3] = 2, [METER_BOUNDS] = 5 },
					     .bytes = UINT64_MAX } },
	};
	char *text = written_of(&volume, EXPOSITION_OPENMETRICS);

	has(text, "# HELP ndio_requests Requests that have ended, well or not.\n"
		  "# TYPE ndio_requests counter\n"
		  "ndio_requests_total{export=\"disk\",kind=\"read\"} 0\n"
		  "ndio_requests_total{export=\"disk\",kind=\"write\"} 7\n"
		  "ndio_requests_total{export=\"disk\",kind=\"zero\"} 0\n"
		  "ndio_requests_total{export=\"disk\",kind=\"trim\"} 0\n"
		  "ndio_requests_total{export=\"disk\",kind=\"flush\"} 0\n"
		  "ndio_requests_total{export=\"disk\",kind=\"cache\"} 0\n"
		  "ndio_requests_total{export=\"disk\",kind=\"extents\"} 0\n"
		  "# HELP ndio_bytes ");
	has(text, "# UNIT ndio_bytes bytes\n");
	has(text, "\nndio_bytes_total{export=\"disk\",kind=\"write\"} 18446744073709551615\n");
	assert_string_equal(text + strlen(text) - 6, "# EOF\n");
	assert_int_equal(count(text, "# EOF"), 1);
	free(text);
}

/* There counters are described by the names of their samples, and there are neither units nor infos. */
static void the_older_format(void **state)
{
	static const struct exposition_volume volume = { .name = "disk" };
	char *text = written_of(&volume, EXPOSITION_PROMETHEUS);

	has(text, "# HELP ndio_requests_total Requests that have ended, well or not.\n"
		  "# TYPE ndio_requests_total counter\n"
		  "ndio_requests_total{export=\"disk\",kind=\"read\"} 0\n");
	has(text,
	    "# TYPE ndio_build_info gauge\n"
	    "ndio_build_info{export=\"disk\",program=\"test\",version=\"" NDIO_VERSION "\"} 1\n");
	has(text, "# TYPE ndio_request_duration_seconds histogram\n" BUCKETS "\"1e-05\"} 0\n");
	has_not(text, "# UNIT");
	has_not(text, "EOF");
	free(text);
}

static void buckets_are_cumulated(void **state)
{
	static const struct exposition_volume volume = {
		.name = "disk",
		.sum.kind = { [OP_READ] = { .ended = { 1, 0, 2, [15] = 3, [METER_BOUNDS] = 4 },
					    .ns = 61000000009 } },
	};
	char *text = written_of(&volume, EXPOSITION_OPENMETRICS);

	has(text, "# UNIT ndio_request_duration_seconds seconds\n" BUCKETS "\"1e-05\"} 1\n" BUCKETS
		  "\"2e-05\"} 1\n" BUCKETS "\"5e-05\"} 3\n" BUCKETS "\"0.0001\"} 3\n");
	has(text, BUCKETS "\"0.5\"} 3\n" BUCKETS "\"1.0\"} 6\n");
	has(text, BUCKETS
	    "\"60.0\"} 6\n" BUCKETS "\"+Inf\"} 10\n"
	    "ndio_request_duration_seconds_sum{export=\"disk\",kind=\"read\"} 61.000000009\n"
	    "ndio_request_duration_seconds_count{export=\"disk\",kind=\"read\"} 10\n");
	has(text, "\nndio_requests_total{export=\"disk\",kind=\"read\"} 10\n");
	assert_int_equal(count(text, "ndio_request_duration_seconds_bucket"),
			 7 * (METER_BOUNDS + 1));
	free(text);
}

static void names_are_escaped(void **state)
{
	static const struct {
		const char *name, *label;
	} cases[] = {
		{ "", "" },
		{ "a\"b", "a\\\"b" },
		{ "a\\n", "a\\\\n" },
		{ "a\nb", "a\\nb" },
		{ "\303\244 \342\202\254", "\303\244 \342\202\254" },
		{ "\303", "?" },               /* cut */
		{ "x\377y\300\200", "x?y??" }, /* never, and overlong */
		{ "{}=,#", "{}=,#" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct exposition_volume volume = { .name = cases[i].name };
		char *text = written_of(&volume, EXPOSITION_OPENMETRICS);
		char line[128];

		snprintf(line, sizeof(line), "\nndio_connections{export=\"%s\"} 0\n",
			 cases[i].label);
		has(text, line);
		free(text);
	}
}

static void errors_are_told_when_they_occur(void **state)
{
	struct exposition_volume volume = { .name = "d" };
	char *text;

	volume.sum.kind[OP_READ].errors[0] = 3;
	volume.sum.kind[OP_WRITE].errors[4] = 1;
	text = written_of(&volume, EXPOSITION_OPENMETRICS);
	has(text, "\nndio_errors_total{export=\"d\",kind=\"read\",errno=\"EIO\"} 3\n"
		  "ndio_errors_total{export=\"d\",kind=\"write\",errno=\"EIO\"} 0\n"
		  "ndio_errors_total{export=\"d\",kind=\"write\",errno=\"ENOSPC\"} 1\n");
	assert_int_equal(count(text, "ndio_errors_total"), 8);
	free(text);
}

/* All samples of a metric are together, whatever volume they are of. */
static void volumes_are_told_metric_by_metric(void **state)
{
	static const struct exposition_volume volumes[] = {
		{ .name = "one", .sum = { .opened = 9, .connections = 2 } },
		{ .name = "two",
		  .has_server = true,
		  .waiting = true,
		  .reconnects = 4,
		  .unflushed = 4096,
		  .tls_version = "TLSv1.3",
		  .tls_cipher = "TLS_AES_128_GCM_SHA256",
		  .has_integrity = true,
		  .bad_blocks = 7 },
		{ .name = "three", .has_integrity = true, .is_trusted = true, .stale_areas = 5 },
	};
	const struct exposition exposition = {
		.program = "test", .kinds = op_names, .volumes = volumes, .count = 3
	};
	char *text = written(&exposition, EXPOSITION_OPENMETRICS);

	has(text, "# TYPE ndio_connections gauge\n"
		  "ndio_connections{export=\"one\"} 2\n"
		  "ndio_connections{export=\"two\"} 0\n"
		  "ndio_connections{export=\"three\"} 0\n"
		  "# HELP ndio_connections_opened Clients that were let in.\n"
		  "# TYPE ndio_connections_opened counter\n"
		  "ndio_connections_opened_total{export=\"one\"} 9\n"
		  "ndio_connections_opened_total{export=\"two\"} 0\n"
		  "ndio_connections_opened_total{export=\"three\"} 0\n");
	has(text, "# TYPE ndio_server_tls info\n"
		  "ndio_server_tls_info{export=\"two\",version=\"TLSv1.3\","
		  "cipher=\"TLS_AES_128_GCM_SHA256\"} 1\n");
	has(text, "# TYPE ndio_waiting gauge\nndio_waiting{export=\"two\"} 1\n");
	has(text, "# TYPE ndio_reconnects counter\nndio_reconnects_total{export=\"two\"} 4\n");
	has(text, "# UNIT ndio_unflushed_bytes bytes\nndio_unflushed_bytes{export=\"two\"} 4096\n");
	has(text, "# TYPE ndio_bad_blocks counter\n"
		  "ndio_bad_blocks_total{export=\"two\"} 7\n"
		  "ndio_bad_blocks_total{export=\"three\"} 0\n");
	has(text, "# TYPE ndio_stale_areas counter\nndio_stale_areas_total{export=\"three\"} 5\n");
	free(text);
}

static void what_there_is_none_of_is_left_out(void **state)
{
	static const struct exposition_volume volume = { .name = "d" };
	char *text = written_of(&volume, EXPOSITION_OPENMETRICS);

	has_not(text, "waiting");
	has_not(text, "bad_blocks");
	has_not(text, "stale_areas");
	has_not(text, "tls");
	has_not(text, "handshakes");
	free(text);
}

static void the_door(void **state)
{
	static const struct exposition_volume volume = { .name = "d" };
	struct door_meter door = { .failed = 0 };
	const struct exposition exposition = {
		.program = "test",
		.kinds = op_names,
		.volumes = &volume,
		.count = 1,
		.door = &door,
		.door_name = "[::1]:10809",
	};
	char *text;

	door_meter_failed(&door);
	door_meter_tls(&door, "TLSv1.3", "A");
	door_meter_tls(&door, "TLSv1.3", "B");
	door_meter_tls(&door, "TLSv1.3", "A");
	text = written(&exposition, EXPOSITION_OPENMETRICS);
	has(text, "\nndio_handshakes_failed_total{listen=\"[::1]:10809\"} 1\n");
	has(text, "\nndio_tls_connections_total{listen=\"[::1]:10809\",version=\"TLSv1.3\","
		  "cipher=\"A\"} 2\n"
		  "ndio_tls_connections_total{listen=\"[::1]:10809\",version=\"TLSv1.3\","
		  "cipher=\"B\"} 1\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_counter_is_described_and_told),
		cmocka_unit_test(the_older_format),
		cmocka_unit_test(buckets_are_cumulated),
		cmocka_unit_test(names_are_escaped),
		cmocka_unit_test(errors_are_told_when_they_occur),
		cmocka_unit_test(volumes_are_told_metric_by_metric),
		cmocka_unit_test(what_there_is_none_of_is_left_out),
		cmocka_unit_test(the_door),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
