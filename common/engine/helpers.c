/* After padata in Linux. nbdkit's threads alone leave cores idle: the scheduler puts a thread
 * that is woken mostly on the core of the one that wakes it, and there it waits until that one
 * has worked through its piece. A helper is woken on a core of its own: it comes at once, when
 * it gets to run, or too late.
 *
 * One job is open at a time, its caller's, who takes chunks of it too, closes it, and waits
 * until no helper has it. One lock guards the jobs and where helpers sleep; chunks are taken
 * by an atomic.
 *
 * Can the gain be had simpler? Not by what was measured (doc/performance.md has
 * the figures): helpers that aren't bound while they sleep gave nothing (0.99 and, of reads,
 * 0.87); a caller that yields after each piece lost 0.12 over four connections; a helper that
 * isn't asked again after coming late lost with one connection what it won with four. */
#include "engine/helpers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/align.h"
#include "base/mutex.h"
#include "base/thread.h"

#define MAX_HELPERS 4
#define CHUNK       (32 * 1024) /* bytes, whole sectors: some 10 microseconds of work */

/* What one caller encrypts or decrypts. It is the caller's, who waits until no helper has it. */
struct job {
	cipher_fn *crypt;
	uint64_t unit;
	const uint8_t *in;
	uint8_t *out;
	size_t len;
	uint8_t *tags;       /* or NULL */
	atomic_size_t taken; /* bytes that somebody works on or has done */
	atomic_int error;    /* any of them; 0 */
	unsigned nr_helpers; /* that have it now */
	pthread_cond_t left; /* none has */
};

struct helper {
	struct helpers *all;
	struct cipher *cipher;
	pthread_t thread;
	int cpu;   /* that it sleeps on; changed with the lock held */
	bool idle; /* may be asked */
	sem_t asked;
};

struct helpers {
	struct volume *volume;
	pthread_mutex_t lock;
	struct job *job; /* that helpers may join, or NULL */
	bool closing;
	unsigned count; /* started */
	unsigned next;  /* to be asked first */
	struct helper helper[MAX_HELPERS];
};

/* Bytes done. */
static uint64_t do_chunks(const struct volume *volume, struct cipher *cipher, struct job *job)
{
	uint64_t done = 0;
	size_t at;

	while (!job->error && (at = atomic_fetch_add(&job->taken, CHUNK)) < job->len) {
		size_t len = min_u64(CHUNK, job->len - at);
		int ret = job->crypt(cipher, job->unit + at / 512, job->in + at, job->out + at, len,
				     volume_tag(volume, job->tags, at));

		if (ret < 0)
			atomic_store(&job->error, ret);
		else
			done += len;
	}
	return done;
}

static void close_to_others(struct helpers *all, const struct job *job)
{
	if (all->job == job)
		all->job = NULL;
}

/* With the lock held, but while it works. */
static void help(struct helper *helper, struct job *job)
{
	struct helpers *all = helper->all;
	uint64_t done;

	job->nr_helpers++;
	pthread_mutex_unlock(&all->lock);
	done = do_chunks(all->volume, helper->cipher, job);
	stat_add(&all->volume->stats, helped, done);
	pthread_mutex_lock(&all->lock);
	close_to_others(all, job); /* nothing is left to take */
	if (--job->nr_helpers == 0)
		pthread_cond_signal(&job->left);
}

/* The nth of them, from 0. */
static int nth_core(const cpu_set_t *cores, unsigned nth)
{
	int cpu = 0;

	while (!CPU_ISSET(cpu, cores) || nth-- > 0)
		cpu++;
	return cpu;
}

/* Where the process's first thread may run: whoever says where the process may (taskset(1), a
 * cpuset) has said so of that one. */
static bool find_cores(cpu_set_t *cores)
{
	return sched_getaffinity(getpid(), sizeof(*cores), cores) == 0;
}

/* It is bound to its core only while it sleeps, so that it is woken there. Awake it may have a
 * caller's chunk, or the lock: if then something takes that core that outranks it, it has to
 * get on elsewhere. With the lock held, but while it sleeps. */
static void sleep_on_core(struct helper *helper)
{
	cpu_set_t cores, bound;

	if (find_cores(&cores) && !CPU_ISSET(helper->cpu, &cores))
		helper->cpu = nth_core(&cores, 0);
	CPU_ZERO(&bound);
	CPU_SET(helper->cpu, &bound);
	pthread_mutex_unlock(&helper->all->lock);
	sched_setaffinity(0, sizeof(bound), &bound);
	thread_wait(&helper->asked);
	if (find_cores(&cores))
		sched_setaffinity(0, sizeof(cores), &cores);
	pthread_mutex_lock(&helper->all->lock);
}

static void *helper_main(void *opaque)
{
	struct helper *helper = opaque;
	struct helpers *all = helper->all;

	pthread_mutex_lock(&all->lock);
	while (!all->closing) {
		if (all->job) {
			help(helper, all->job);
			continue;
		}
		helper->idle = true;
		sleep_on_core(helper);
	}
	pthread_mutex_unlock(&all->lock);
	return NULL;
}

/* One that is idle, not of the caller's own core; they take turns. Whoever is found has to be
 * asked. With the lock held. */
static struct helper *find_idle(struct helpers *all)
{
	int here = sched_getcpu();

	for (unsigned i = 0; i < all->count; i++) {
		struct helper *helper = &all->helper[(all->next + i) % all->count];

		if (!helper->idle || helper->cpu == here)
			continue;
		all->next = (all->next + i + 1) % all->count;
		helper->idle = false;
		return helper;
	}
	return NULL;
}

/* False if others have a job that isn't all taken. */
static bool helpers_offer(struct helpers *all, struct job *job)
{
	struct helper *helper = NULL;
	bool is_free;

	pthread_mutex_lock(&all->lock);
	is_free = !all->job;
	if (is_free) {
		all->job = job;
		helper = find_idle(all);
	}
	pthread_mutex_unlock(&all->lock);
	if (helper)
		sem_post(&helper->asked);
	return is_free;
}

/* Until no helper is at it, nor will be. */
static void withdraw(struct helpers *all, struct job *job)
{
	pthread_mutex_lock(&all->lock);
	close_to_others(all, job);
	while (job->nr_helpers)
		pthread_cond_wait(&job->left, &all->lock);
	pthread_mutex_unlock(&all->lock);
}

int helpers_crypt(struct helpers *all, cipher_fn *crypt, struct cipher *cipher, uint64_t unit,
		  const void *in, void *out, size_t len, uint8_t *tags)
{
	struct job job;

	if (!all || len < HELPERS_MIN_LEN || all->count == 0)
		return crypt(cipher, unit, in, out, len, tags);
	job = (struct job){
		.crypt = crypt,
		.unit = unit,
		.in = in,
		.out = out,
		.len = len,
		.tags = tags,
		.left = PTHREAD_COND_INITIALIZER,
	};
	if (!helpers_offer(all, &job))
		return crypt(cipher, unit, in, out, len, tags);
	do_chunks(all->volume, cipher, &job);
	withdraw(all, &job);
	pthread_cond_destroy(&job.left);
	return job.error;
}

/* ---- start and end ---- */

/* 0, or a negative errno. If the process may have no more threads, it goes without. */
static int helpers_start(struct helpers *all, int cpu, struct error *err)
{
	const struct cipher_ops *ops = all->volume->cipher_ops;
	struct helper *helper = &all->helper[all->count];

	*helper = (struct helper){ .all = all, .cpu = cpu };
	helper->cipher = ops->make(all->volume, err);
	if (!helper->cipher)
		return -EINVAL;
	sem_init(&helper->asked, 0, 0);
	if (thread_start(&helper->thread, helper_main, helper)) {
		sem_destroy(&helper->asked);
		ops->free(helper->cipher);
		return 0;
	}
	all->count++;
	return 0;
}

int helpers_open(struct volume *volume, struct helpers **result, struct error *err)
{
	struct helpers *all = calloc(1, sizeof(*all));
	unsigned nr_cores, count;
	cpu_set_t cores;
	int ret = 0;

	if (!all)
		return error_set(err, ENOMEM, "no memory for threads that help to encrypt");
	all->volume = volume;
	mutex_init_short(&all->lock);
	nr_cores = find_cores(&cores) ? CPU_COUNT(&cores) : 0;
	count = nr_cores < 2 ? 0 : min_u64(nr_cores, MAX_HELPERS);
	/* Spread over all cores, and not from the same one in every process. */
	for (unsigned i = 0; i < count && ret == 0; i++)
		ret = helpers_start(
			all, nth_core(&cores, (getpid() + i * nr_cores / count) % nr_cores), err);
	if (ret < 0)
		helpers_close(all);
	else
		*result = all;
	return ret;
}

void helpers_close(struct helpers *all)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	all->closing = true;
	pthread_mutex_unlock(&all->lock);
	for (unsigned i = 0; i < all->count; i++)
		sem_post(&all->helper[i].asked);
	for (unsigned i = 0; i < all->count; i++) {
		pthread_join(all->helper[i].thread, NULL);
		sem_destroy(&all->helper[i].asked);
		all->volume->cipher_ops->free(all->helper[i].cipher);
	}
	pthread_mutex_destroy(&all->lock);
	free(all);
}
