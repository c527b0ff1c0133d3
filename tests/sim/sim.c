/* sim [-v] [-t] [-j PROCESSES] [-s SECONDS] [FIRST [COUNT]]: runs seeds, for so long at the most,
 * and prints how often what happened. -v prints a seed's options, -t all that happens. What is
 * wrong is printed with its seed, and the status is 1 then; it comes again with that seed, to the
 * byte. */
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

#define EVENTS  (1 << 16)
#define ARENA   (32 << 20)
#define AFTER   120000 /* ms in which all must be done once there are no more faults */
#define WORKERS 16
#define AGAIN   1000 /* each so many-th seed is run twice, and must do the same */

static const char *const fault_names[FAULTS] = {
	"connection cut", "connection silent", "bytes held back", "network down", "server forgets",
	"server killed",  "server leaves",     "server hangs",    "disk stalls",  "another disk",
};

static const char *const count_names[COUNTS] = {
	"events",
	"reads",
	"writes",
	"zeroes",
	"trims",
	"flushes",
	"of these with FUA",
	"completions",
	"connections dialled",
	"refused",
	"requests fenced off",
	"openings that waited for the fence",
	"lost",
	"recovered",
	"given up",
	"ended for good",
	"ETIMEDOUT",
	"ESTALE",
	"EIO",
	"records replayed",
	"requests sent again",
	"reverted, and found by reading back",
	"requests run after their connection's end",
	"answers too late",
	"blocks forgotten",
	"requests torn by a crash",
	"silent for too long",
	"flushes of the session's own",
	"FUA writes flushed since they replaced what was logged",
	"changes without a place in the log",
	"requests answered with ESHUTDOWN",
	"run later than is promised to be survived",
	"seeds in which that reverted something",
};

struct totals {
	uint64_t seeds, wrong, counts[COUNTS], faults[FAULTS];
};

static struct sim sim;
static struct event heap[EVENTS];
static char arena[ARENA];
static size_t arena_used;

/* ---- for the others ---- */

uint64_t sim_random(struct sim *s, uint64_t below)
{
	uint64_t x = s->random += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	x ^= x >> 31;
	return below ? x % below : 0;
}

bool sim_chance(struct sim *s, unsigned of_thousand)
{
	return sim_random(s, 1000) < of_thousand;
}

void *sim_alloc(struct sim *s, size_t size)
{
	void *memory = arena + arena_used;

	(void)s;
	arena_used += (size + 15) & ~(size_t)15;
	if (arena_used > ARENA)
		abort();
	return memset(memory, 0, size);
}

void sim_hash(struct sim *s, uint64_t value)
{
	s->hash = (s->hash ^ value ^ (uint64_t)s->now << 40) * 0x100000001b3;
}

void sim_note(struct sim *s, const char *fmt, ...)
{
	va_list args;

	if (!s->trace)
		return;
	printf("%8lld ", (long long)s->now);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

void sim_wrong(struct sim *s, const char *what, const char *fmt, ...)
{
	va_list args;

	if (s->wrong)
		return;
	s->wrong = what;
	va_start(args, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, args);
	va_end(args);
	sim_note(s, "WRONG: %s: %s", what, s->why);
}

/* ---- events ---- */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at < b->at || (a->at == b->at && a->number < b->number);
}

void sim_at(struct sim *s, int64_t at, event_fn *run, void *what, uint64_t with)
{
	struct event event = {
		.at = at, .number = s->made++, .run = run, .what = what, .with = with
	};
	unsigned i = s->events++;

	if (s->events > EVENTS)
		abort();
	for (; i > 0 && is_before(&event, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = event;
}

static struct event take_event(struct sim *s)
{
	struct event first = s->heap[0], last = s->heap[--s->events];
	unsigned i = 0, child;

	while ((child = 2 * i + 1) < s->events) {
		if (child + 1 < s->events && is_before(&s->heap[child + 1], &s->heap[child]))
			child++;
		if (!is_before(&s->heap[child], &last))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return first;
}

/* ---- faults ---- */

static void fault_happens(struct sim *s, void *unused, uint64_t unused2)
{
	enum fault fault = sim_random(s, FAULTS);
	int64_t long_ = sim_random(s, 3000);

	(void)unused;
	(void)unused2;
	sim_at(s, s->now + 1 + sim_random(s, 2 * s->options.between), fault_happens, NULL, 0);
	if (s->now >= s->options.until || !(s->options.faults >> fault & 1) || s->server.stranger)
		return;
	if (fault == FAULT_STRANGER && (!s->server.alive || !sim_chance(s, 300)))
		return;
	sim_note(s, "fault: %s", fault_names[fault]);
	s->faults[fault]++;
	if (fault == FAULT_FORGET || fault == FAULT_KILL)
		server_crash(s, fault == FAULT_FORGET, false);
	else if (fault == FAULT_LEAVE)
		server_leave(s);
	else if (fault == FAULT_HANG)
		s->server.hung_until = s->now + long_;
	else if (fault == FAULT_STALL)
		s->server.stalled_until = s->now + long_;
	else if (fault == FAULT_STRANGER)
		server_crash(s, false, true);
	else
		network_fault(s, fault);
}

static void calm(struct sim *s, void *unused, uint64_t unused2)
{
	(void)unused;
	(void)unused2;
	sim_note(s, "no more faults");
	server_calm(s);
}

/* ---- a seed ---- */

static void choose(struct sim *s)
{
	static const uint64_t sizes[] = { 10 << 10, 12 << 10, 20 << 10, 64 << 10, 256 << 10 };
	struct sim_options *o = &s->options;

	o->unflushed = sizes[sim_random(s, sizeof(sizes) / sizeof(sizes[0]))];
	o->clients = sim_chance(s, 200) ? 2 : 1;
	o->callers = 1 + sim_random(s, CALLERS);
	o->links = 1 + sim_random(s, LINKS);
	o->ops = 5 + sim_random(s, 40);
	o->blocks = MOST_BLOCKS + sim_random(s, sim_chance(s, 500) ? 4 : BLOCKS - MOST_BLOCKS);
	o->fences = sim_chance(s, 750);
	o->can_fua = sim_chance(s, 800);
	o->can_flush = sim_chance(s, 970);
	o->can_fua &= o->can_flush;
	o->flaky = sim_chance(s, o->fences ? 50 : 200);
	if (o->flaky)
		o->clients = 1; /* who is told of an error? */
	o->beyond = !o->fences && sim_chance(s, 200);
	o->faults = sim_random(s, 1 << FAULTS);
	if (!sim_chance(s, 100))
		o->faults &= ~(1u << FAULT_STRANGER);
	if (!o->can_flush) /* what it acknowledges is safe */
		o->faults &= ~(1u << FAULT_FORGET);
	if (o->flaky &&
	    !o->fences) /* the error is told once, and the session's own flush may get it */
		o->unflushed = sizes[sim_random(s, 2)];
	o->between = 5 + sim_random(s, sim_chance(s, 500) ? 100 : 1000);
	o->until = 500 + sim_random(s, 5000);
	o->closes = sim_chance(s, 50) ? (int64_t)sim_random(s, o->until) : NEVER;
	o->reconnect = sim_chance(s, 750) ? 600000 : 500 + sim_random(s, 5000);
	o->quiesce = o->beyond ? 10 + sim_random(s, 200) : 200 + sim_random(s, 1000);
	if (o->beyond) {
		o->blocks = MOST_BLOCKS;
		o->faults |= 1 << FAULT_HOLD | 1 << FAULT_CUT;
	}
	o->answer = 200 + sim_random(s, 3000);
	o->think = 1 + sim_random(s, sim_chance(s, 500) ? 5 : 100);
}

static void print_options(const struct sim *s)
{
	const struct sim_options *o = &s->options;

	printf("seed %llu: clients %u callers %u links %u ops %u blocks %u closes %lld "
	       "fences %d fua %d flush %d flaky %d beyond %d faults %#x between %lld until %lld "
	       "reconnect %lld quiesce %lld answer %lld think %lld unflushed %llu\n",
	       (unsigned long long)s->seed, o->clients, o->callers, o->links, o->ops, o->blocks,
	       (long long)(o->closes == NEVER ? -1 : o->closes), o->fences, o->can_fua,
	       o->can_flush, o->flaky, o->beyond, o->faults, (long long)o->between,
	       (long long)o->until, (long long)o->reconnect, (long long)o->quiesce,
	       (long long)o->answer, (long long)o->think, (unsigned long long)o->unflushed);
}

static void add_session_counts(struct sim *s)
{
	for (unsigned i = 0; i < s->options.clients; i++) {
		const struct session *session = &s->client[i].session;

		s->counts[COUNT_REPLAYED] += session->replayed;
		s->counts[COUNT_SENT_AGAIN] += session->sent_again;
		s->counts[COUNT_REVERTED] += session->reverted;
	}
}

static void run_seed(uint64_t seed, bool trace, bool verbose)
{
	arena_used = 0;
	memset(&sim, 0, sizeof(sim));
	sim.heap = heap;
	sim.seed = sim.random = seed;
	sim.trace = trace;
	sim_random(&sim, 0);
	choose(&sim);
	if (verbose)
		print_options(&sim);
	server_start(&sim, NULL, 0);
	for (unsigned i = 0; i < sim.options.clients; i++) {
		sim.client[i].sim = &sim;
		sim.client[i].number = i;
		client_start(&sim.client[i]);
	}
	sim_at(&sim, 20, fault_happens, NULL, 0);
	sim_at(&sim, sim.options.until, calm, NULL, 0);
	while (!sim.wrong && !clients_finished(&sim)) {
		struct event event = take_event(&sim);

		sim.now = event.at;
		sim.counts[COUNT_EVENTS]++;
		event.run(&sim, event.what, event.with);
		if (sim.now >= sim.options.closes)
			break;
		if (sim.now > sim.options.until + AFTER)
			sim_wrong(&sim, "hang", "not done %d s after the last fault", AFTER / 1000);
	}
	for (unsigned i = 0; !sim.wrong && i < sim.options.clients; i++)
		client_stop(&sim.client[i]);
	sim_hash(&sim, sim.counts[COUNT_EVENTS]);
	add_session_counts(&sim);
	if (sim.wrong && sim.counts[COUNT_UNPROMISED] &&
	    (strcmp(sim.wrong, "reverted") == 0 || strcmp(sim.wrong, "not durable") == 0)) {
		sim.counts[COUNT_EXCUSED]++;
		sim.wrong = NULL;
	}
}

/* ---- many ---- */

static double seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void on_abort(int signal)
{
	static const char text[] = "an assertion failed in seed ";
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%llu\n", (unsigned long long)sim.seed);

	(void)signal;
	if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0 || write(STDOUT_FILENO, digits, n) < 0)
		_exit(3);
	_exit(2);
}

static bool is_the_same_again(uint64_t seed)
{
	uint64_t hash = sim.hash;

	run_seed(seed, false, false);
	return sim.hash == hash;
}

static void add(struct totals *totals)
{
	totals->seeds++;
	for (unsigned i = 0; i < COUNTS; i++)
		totals->counts[i] += sim.counts[i];
	for (unsigned i = 0; i < FAULTS; i++)
		totals->faults[i] += sim.faults[i];
}

static void run_many(struct totals *totals, uint64_t first, uint64_t step, uint64_t end,
		     double until, bool trace, bool verbose)
{
	for (uint64_t seed = first; seed < end && totals->wrong == 0; seed += step) {
		if (seconds_now() > until)
			break;
		run_seed(seed, trace, verbose);
		add(totals);
		if (!sim.wrong && seed % AGAIN == 0 && !trace && !is_the_same_again(seed))
			sim_wrong(&sim, "chance", "not the same the second time");
		if (!sim.wrong)
			continue;
		totals->wrong++;
		printf("seed %llu: %s: %s\n", (unsigned long long)seed, sim.wrong, sim.why);
	}
}

static void print_totals(const struct totals *all, unsigned workers, double seconds)
{
	struct totals sum = { 0 };

	for (unsigned w = 0; w < workers; w++) {
		sum.seeds += all[w].seeds;
		for (unsigned i = 0; i < COUNTS; i++)
			sum.counts[i] += all[w].counts[i];
		for (unsigned i = 0; i < FAULTS; i++)
			sum.faults[i] += all[w].faults[i];
	}
	printf("%12llu seeds, %.0f a second\n", (unsigned long long)sum.seeds,
	       sum.seeds / (seconds > 0 ? seconds : 1));
	for (unsigned i = 0; i < FAULTS; i++)
		printf("%12llu fault: %s\n", (unsigned long long)sum.faults[i], fault_names[i]);
	for (unsigned i = 0; i < COUNTS; i++)
		printf("%12llu %s\n", (unsigned long long)sum.counts[i], count_names[i]);
}

int main(int argc, char **argv)
{
	bool trace = false, verbose = false, failed = false;
	unsigned workers = 1;
	uint64_t first = 1, count = 1;
	struct totals *totals;
	double start = seconds_now(), most = 1e9;
	int opt, status;

	while ((opt = getopt(argc, argv, "vtj:s:")) != -1) {
		trace |= opt == 't';
		verbose |= opt == 'v' || opt == 't';
		if (opt == 'j')
			workers = atoi(optarg);
		if (opt == 's')
			most = atoi(optarg);
	}
	if (optind < argc)
		first = strtoull(argv[optind], NULL, 10);
	if (optind + 1 < argc)
		count = strtoull(argv[optind + 1], NULL, 10);
	workers = workers < 1 || workers > WORKERS ? 1 : workers;
	signal(SIGABRT, on_abort);
	setvbuf(stdout, NULL, _IOLBF, 0);
	totals = mmap(NULL, WORKERS * sizeof(*totals), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (totals == MAP_FAILED)
		return 2;
	for (unsigned w = 0; w < workers; w++) {
		if (fork() != 0)
			continue;
		run_many(&totals[w], first + w, workers, first + count, start + most, trace,
			 verbose);
		exit(totals[w].wrong ? 1 : 0);
	}
	while (wait(&status) > 0)
		failed |= status != 0;
	print_totals(totals, workers, seconds_now() - start);
	return failed;
}
