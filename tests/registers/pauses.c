/* How long operations took, and how long nothing went on when something was done to the server. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "registers.h"

#define MAX_FAULTS 20000
#define MAX_KINDS  16
#define PER_DOUBLE 16 /* buckets, from a microsecond on: good for 4 % */
#define NR_BUCKETS (PER_DOUBLE * 36)
#define NAME_LEN   16

struct fault {
	char name[NAME_LEN];
	double began, up; /* up: 0 until it is */
	double gap;       /* the longest time in which nothing ended */
	double latency;   /* the longest that an operation took */
	double pause;     /* until all had ended that were in flight when the server was up */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct fault faults[MAX_FAULTS];
static unsigned nr_faults;
static uint64_t buckets[NR_BUCKETS], nr_latencies;
static double last_end, longest;

double now(void)
{
	static double start;
	struct timespec ts;
	double t;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	t = ts.tv_sec + ts.tv_nsec / 1e9;
	if (start == 0)
		start = t;
	return t - start;
}

static double bucket_seconds(unsigned bucket)
{
	double seconds = 1e-6;

	for (; bucket >= PER_DOUBLE; bucket -= PER_DOUBLE)
		seconds *= 2;
	return seconds * (1 + (bucket + 1) / (double)PER_DOUBLE);
}

static void count_latency(double seconds)
{
	unsigned bucket = 0;

	for (seconds /= 1e-6; seconds >= 2 && bucket < NR_BUCKETS - PER_DOUBLE; seconds /= 2)
		bucket += PER_DOUBLE;
	if (seconds > 1)
		bucket += (seconds - 1) * PER_DOUBLE;
	buckets[bucket < NR_BUCKETS ? bucket : NR_BUCKETS - 1]++;
	nr_latencies++;
}

static double latency_at(double part)
{
	uint64_t below = 0;

	for (unsigned i = 0; i < NR_BUCKETS; i++) {
		below += buckets[i];
		if (below >= part * nr_latencies)
			return bucket_seconds(i);
	}
	return 0;
}

static double larger(double a, double b)
{
	return a > b ? a : b;
}

/* What failed has ended too, but is no sign of life. */
void pauses_ended(const struct slot *slot)
{
	double t = now();
	struct fault *fault;

	pthread_mutex_lock(&mutex);
	count_latency(t - slot->begun);
	longest = larger(longest, t - slot->begun);
	if (nr_faults) {
		fault = &faults[nr_faults - 1];
		fault->latency = larger(fault->latency, t - slot->begun);
		if (!slot->error)
			fault->gap = larger(fault->gap, t - larger(last_end, fault->began));
		if (fault->up > 0 && slot->begun < fault->up)
			fault->pause = larger(fault->pause, t - fault->up);
	}
	if (!slot->error)
		last_end = t;
	pthread_mutex_unlock(&mutex);
}

void pauses_mark(const char *name)
{
	pthread_mutex_lock(&mutex);
	if (nr_faults == MAX_FAULTS)
		fail("registers: too many faults");
	faults[nr_faults].began = now();
	snprintf(faults[nr_faults].name, NAME_LEN, "%s", name);
	nr_faults++;
	pthread_mutex_unlock(&mutex);
}

void pauses_up(void)
{
	pthread_mutex_lock(&mutex);
	if (nr_faults)
		faults[nr_faults - 1].up = now();
	pthread_mutex_unlock(&mutex);
}

static int compare(const void *a, const void *b)
{
	double first = *(const double *)a, second = *(const double *)b;

	return (first > second) - (first < second);
}

/* The value of which this part is below or the same. */
static double quantile(const double *sorted, unsigned count, double part)
{
	unsigned at = part * count;

	return count == 0 ? 0 : sorted[at < count ? at : count - 1];
}

static void print_kind(const char *name)
{
	static double pauses[MAX_FAULTS], gaps[MAX_FAULTS];
	double latency = 0;
	unsigned count = 0;

	for (unsigned i = 0; i < nr_faults; i++) {
		if (strcmp(faults[i].name, name) != 0)
			continue;
		pauses[count] = faults[i].pause;
		gaps[count++] = faults[i].gap;
		latency = larger(latency, faults[i].latency);
	}
	qsort(pauses, count, sizeof(pauses[0]), compare);
	qsort(gaps, count, sizeof(gaps[0]), compare);
	printf("fault=%s count=%u pause_p50_ms=%.0f pause_p99_ms=%.0f pause_max_ms=%.0f "
	       "gap_p50_ms=%.0f gap_p99_ms=%.0f gap_max_ms=%.0f latency_max_ms=%.0f\n",
	       name, count, quantile(pauses, count, 0.5) * 1e3, quantile(pauses, count, 0.99) * 1e3,
	       quantile(pauses, count, 1) * 1e3, quantile(gaps, count, 0.5) * 1e3,
	       quantile(gaps, count, 0.99) * 1e3, quantile(gaps, count, 1) * 1e3, latency * 1e3);
}

void pauses_print(void)
{
	for (unsigned i = 0; i < nr_faults; i++) {
		bool first = true;

		for (unsigned j = 0; j < i; j++)
			first &= strcmp(faults[i].name, faults[j].name) != 0;
		if (first)
			print_kind(faults[i].name);
	}
	printf("operations=%llu p50_ms=%.3f p99_ms=%.3f max_ms=%.3f\n",
	       (unsigned long long)nr_latencies, latency_at(0.5) * 1e3, latency_at(0.99) * 1e3,
	       longest * 1e3);
}
