/* durability KIND URI LOG DATA_OFFSET: when is a flush or a FUA write acknowledged?
 *
 * The volume lies on a disk of which nbdkit's log filter logs each write and flush, with the
 * times, to LOG; the volume's first byte is DATA_OFFSET there. A flush must be answered after
 * a flush of that disk that began when every write that had been answered was there; a FUA
 * write after one that began when its own bytes were there. KIND is plain, flush, fua, large
 * or concurrent. */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "client.h"

#define THREADS 4
#define MAX_OPS 4000
#define SLICE   (1 << 20) /* of the volume: each thread's own, when there are several */
#define MAX_LOG 100000

struct op {
	enum { WRITE, ZERO, FLUSH } kind;
	bool fua;
	uint64_t start, len;
	int64_t sent, acknowledged; /* microseconds */
};

struct entry {
	bool flush;
	char id[32];
	uint64_t start, len;
	int64_t began, ended; /* ended: 0 until it has */
};

static const char *uri, *log_path;
static uint64_t data_offset;
static struct op ops[THREADS][MAX_OPS];
static unsigned nr_ops[THREADS];
static struct entry entries[MAX_LOG];
static unsigned nr_entries;
static unsigned failures;
static uint8_t data[8 << 20];

static int64_t clock_now(void)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	return tv.tv_sec * INT64_C(1000000) + tv.tv_usec;
}

/* ---- the client ---- */

static void do_op(struct nbd_handle *nbd, unsigned thread, struct op op)
{
	uint32_t flags = op.fua ? LIBNBD_CMD_FLAG_FUA : 0;
	int ret = -1;

	op.sent = clock_now();
	switch (op.kind) {
	case WRITE:
		ret = nbd_pwrite(nbd, data, op.len, op.start, flags);
		break;
	case ZERO:
		ret = nbd_zero(nbd, op.len, op.start, flags);
		break;
	case FLUSH:
		ret = nbd_flush(nbd, 0);
		break;
	}
	op.acknowledged = clock_now();
	if (ret < 0)
		fail("durability: %s", nbd_get_error());
	if (nr_ops[thread] == MAX_OPS)
		fail("durability: too many operations");
	ops[thread][nr_ops[thread]++] = op;
}

/* A range in the thread's slice, whole blocks or not; blocks of other slices aren't touched. */
static struct op pick(unsigned thread, unsigned kind, bool fua, uint64_t max, uint64_t *random)
{
	struct op op = { .kind = kind, .fua = fua };

	op.start = random_below(random, SLICE - max - 2 * BLOCK);
	op.len = 1 + random_below(random, max);
	if (random_below(random, 2)) {
		op.start -= op.start % BLOCK;
		op.len += (BLOCK - op.len % BLOCK) % BLOCK;
	}
	op.start += thread * SLICE;
	return op;
}

static void plain(struct nbd_handle *nbd)
{
	uint64_t random = 1;

	for (unsigned i = 0; i < 100; i++)
		do_op(nbd, 0, pick(0, i % 8 ? WRITE : ZERO, false, 300000, &random));
}

static void flush(struct nbd_handle *nbd)
{
	uint64_t random = 2;

	for (unsigned i = 0; i < 30; i++) {
		for (unsigned j = 0; j < i % 4; j++)
			do_op(nbd, 0, pick(0, WRITE, false, 20000, &random));
		do_op(nbd, 0, (struct op){ .kind = FLUSH });
	}
}

static void fua(struct nbd_handle *nbd)
{
	uint64_t random = 3;

	for (unsigned i = 0; i < 60; i++)
		do_op(nbd, 0, pick(0, i % 4 ? WRITE : ZERO, true, 9000, &random));
}

static void large(struct nbd_handle *nbd)
{
	const struct op sizes[] = {
		{ .start = 0, .len = 8 << 20 },        { .start = BLOCK, .len = 1 << 20 },
		{ .start = 777, .len = 3000000 },      { .start = 0, .len = (1 << 20) + 1 },
		{ .start = 8192 - 1, .len = 2 << 20 },
	};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct op op = sizes[i];

		op.fua = true;
		do_op(nbd, 0, op);
		op.fua = false;
		do_op(nbd, 0, op);
		do_op(nbd, 0, (struct op){ .kind = FLUSH });
	}
}

static void *concurrent_thread(void *opaque)
{
	unsigned thread = (uintptr_t)opaque;
	struct nbd_handle *nbd = connect_to(uri);
	uint64_t random = 4 + thread;

	for (unsigned i = 0; i < 60; i++) {
		unsigned dice = random_below(&random, 8);

		if (dice == 0)
			do_op(nbd, thread, (struct op){ .kind = FLUSH });
		else
			do_op(nbd, thread,
			      pick(thread, WRITE, dice < 3, dice == 7 ? 600000 : 9000, &random));
	}
	disconnect(nbd);
	return NULL;
}

static void concurrent(struct nbd_handle *nbd)
{
	pthread_t threads[THREADS];

	(void)nbd;
	for (uintptr_t t = 0; t < THREADS; t++)
		if (pthread_create(&threads[t], NULL, concurrent_thread, (void *)t) != 0)
			fail("durability: can't make a thread");
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
}

/* ---- the log ---- */

/* The log has local time, "2026-11-22 08:00:14.595898". */
static int64_t parse_time(const char *line)
{
	struct tm tm = { .tm_isdst = -1 };
	unsigned usec;

	if (sscanf(line, "%d-%d-%d %d:%d:%d.%u", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
		   &tm.tm_min, &tm.tm_sec, &usec) != 7)
		return -1;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	return mktime(&tm) * INT64_C(1000000) + usec;
}

static uint64_t parse_number(const char *line, const char *name)
{
	const char *at = strstr(line, name);

	return at ? strtoull(at + strlen(name), NULL, 0) : 0;
}

/* A connection and an id tell one command from all others. */
static void parse_id(const char *line, char id[32])
{
	snprintf(id, 32, "%" PRIu64 ".%" PRIu64, parse_number(line, "connection="),
		 parse_number(line, " id="));
}

static void end_entry(const char *line, int64_t when)
{
	char id[32];

	parse_id(line, id);
	for (unsigned i = nr_entries; i-- > 0;)
		if (strcmp(entries[i].id, id) == 0) {
			entries[i].ended = when;
			return;
		}
}

static void add_entry(const char *line, int64_t when)
{
	struct entry *entry = &entries[nr_entries];

	if (++nr_entries == MAX_LOG)
		fail("durability: the log is too long");
	parse_id(line, entry->id);
	entry->flush = strstr(line, " Flush ");
	entry->start = parse_number(line, " offset=");
	entry->len = parse_number(line, " count=");
	entry->began = when;
}

/* A hole is how a file may be zeroed. */
static bool is_one_of(const char *line, const char *prefix)
{
	static const char *const names[] = { "Write", "Zero", "Trim", "Flush" };
	char word[32];

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(word, sizeof(word), " %s%s ", prefix, names[i]);
		if (strstr(line, word))
			return true;
	}
	return false;
}

static void read_log(int64_t since)
{
	FILE *log = fopen(log_path, "r");
	char line[1000];

	if (!log)
		fail("durability: can't read %s", log_path);
	while (fgets(line, sizeof(line), log)) {
		int64_t when = parse_time(line);

		if (when < since)
			continue;
		if (is_one_of(line, "..."))
			end_entry(line, when);
		else if (is_one_of(line, ""))
			add_entry(line, when);
	}
	fclose(log);
}

/* ---- the verdict ---- */

static void wrong(const struct op *op, const char *what)
{
	static const char *const names[] = { "write", "zero", "flush" };

	if (failures++ < 10)
		fprintf(stderr, "%s%s of %" PRIu64 " at %" PRIu64 ": %s\n", names[op->kind],
			op->fua ? " with FUA" : "", op->len, op->start, what);
}

/* Bytes that two ranges share. */
static uint64_t shared(uint64_t start, uint64_t len, uint64_t start2, uint64_t len2)
{
	uint64_t from = start > start2 ? start : start2;
	uint64_t to = start + len < start2 + len2 ? start + len : start2 + len2;

	return to > from ? to - from : 0;
}

/* When the last byte of a FUA write was on the disk, or 0 if some never was. */
static int64_t when_written(const struct op *op)
{
	uint64_t covered = 0;
	int64_t when = 0;

	for (unsigned i = 0; i < nr_entries; i++) {
		const struct entry *e = &entries[i];
		uint64_t part = shared(e->start, e->len, data_offset + op->start, op->len);

		if (e->flush || !part || !e->ended || e->began < op->sent ||
		    e->ended > op->acknowledged)
			continue;
		covered += part;
		when = e->ended > when ? e->ended : when;
	}
	return covered >= op->len ? when : 0;
}

/* When all writes that had been answered before a flush was sent were on the disk. */
static int64_t when_settled(const struct op *op)
{
	int64_t when = 1;

	for (unsigned i = 0; i < nr_entries; i++) {
		const struct entry *e = &entries[i];

		if (!e->flush && e->ended && e->ended <= op->sent && e->ended > when)
			when = e->ended;
	}
	return when;
}

static bool flushed_between(int64_t from, int64_t to)
{
	for (unsigned i = 0; i < nr_entries; i++)
		if (entries[i].flush && entries[i].ended && entries[i].began >= from &&
		    entries[i].ended <= to)
			return true;
	return false;
}

static void judge(const struct op *op)
{
	int64_t from;

	if (op->kind == FLUSH) {
		if (!flushed_between(when_settled(op), op->acknowledged))
			wrong(op, "the disk wasn't flushed");
	} else if (op->fua) {
		from = when_written(op);
		if (!from)
			wrong(op, "answered before it was written");
		else if (!flushed_between(from, op->acknowledged))
			wrong(op, "the disk wasn't flushed after it");
	} else if (!when_written(op)) {
		wrong(op, "answered before it was written");
	}
}

/* Writes that ask for nothing flush nothing. */
static void judge_plain(void)
{
	for (unsigned i = 0; i < nr_entries; i++)
		if (entries[i].flush)
			wrong(&ops[0][0], "the disk was flushed");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct nbd_handle *nbd);
	} kinds[] = {
		{ "plain", plain }, { "flush", flush },           { "fua", fua },
		{ "large", large }, { "concurrent", concurrent },
	};
	struct nbd_handle *nbd;
	int64_t since;
	unsigned total = 0;

	if (argc != 5)
		fail("usage: durability KIND URI LOG DATA_OFFSET");
	uri = argv[2];
	log_path = argv[3];
	data_offset = strtoull(argv[4], NULL, 0);
	memset(data, 0x5a, sizeof(data));
	nbd = connect_to(uri);
	since = clock_now();
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(argv[1], kinds[i].name) == 0)
			kinds[i].run(nbd);
	disconnect(nbd);
	read_log(since);
	for (unsigned t = 0; t < THREADS; t++) {
		total += nr_ops[t];
		for (unsigned i = 0; i < nr_ops[t]; i++)
			judge(&ops[t][i]);
	}
	if (strcmp(argv[1], "plain") == 0)
		judge_plain();
	printf("%u operations, %u log entries, %u failures\n", total, nr_entries, failures);
	return failures > 0 || total == 0;
}
