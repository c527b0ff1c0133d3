/* nbd-group: how lost connections come back.
 *
 *	member      up -> down (nbd_group_lose) -> up, with another link (nbd_group_mend)
 *	connection  wanted -> ready, when it was dialled again -> proved -> a member's
 *
 * A thread dials, from the first loss until the last member leaves; it sleeps and dials without the
 * lock, tells losses without it, and holds it for the rest. Members' threads hold it for moments.
 *
 * epoch counts the connections that were dialled again, and each of them has its number. A member
 * that is up and gets an answer to what it asked since (its tracer) proves the server to be the
 * one that it was: proved is the epoch up to which it did. Once no member is up the target is lost,
 * for good. */
#include "nbd/nbd-group.h"

#include <assert.h>

#include "base/clock.h"
#include "base/thread.h"

#define FIRST_MS 250   /* before the first try: perhaps all are being lost */
#define MOST_MS  30000 /* before later ones: twice as long each time, up to this */
#define CALM_MS  60000 /* a connection that has lasted so long was no mistake */
#define DIAL_MS  10000 /* what a try may take */

void nbd_group_init(struct nbd_group *group, struct nbd_server *server, const char *context,
		    nbd_group_check_fn *check, void *opaque)
{
	*group = (struct nbd_group){
		.server = server,
		.context = context,
		.check = check,
		.opaque = opaque,
		.delay = FIRST_MS,
	};
	pthread_mutex_init(&group->lock, NULL);
	pthread_cond_init(&group->changed, NULL);
}

/* Ends the thread, if one was started: not across a fork. */
static void stop_dialling(struct nbd_group *group)
{
	pthread_mutex_lock(&group->lock);
	atomic_store(&group->stop, true);
	pthread_cond_signal(&group->changed);
	pthread_mutex_unlock(&group->lock);
	if (group->started)
		pthread_join(group->thread, NULL);
	group->started = false;
	atomic_store(&group->stop, false);
	while (group->nr_ready > 0)
		nbd_link_close(group->ready[--group->nr_ready].link);
	group->wanted = 0;
}

void nbd_group_destroy(struct nbd_group *group)
{
	assert(!group->members && !group->started);
	pthread_cond_destroy(&group->changed);
	pthread_mutex_destroy(&group->lock);
}

/* ---- dialling, in a thread of its own; with the lock held where it doesn't say otherwise ---- */

static bool has_work(const struct nbd_group *group)
{
	return group->wanted > 0 && !group->lost && !atomic_load(&group->stop);
}

static void sleep_before_try(struct nbd_group *group)
{
	int64_t at = clock_ms() + group->delay;

	while (has_work(group) && clock_ms() < at)
		clock_wait(&group->changed, &group->lock, at);
}

/* Without the lock. */
static struct nbd_link *group_dial(struct nbd_group *group)
{
	const struct deadline deadline = { .at = clock_ms() + DIAL_MS, .stop = &group->stop };
	struct nbd_link *link = NULL;
	struct error why = { 0 };
	bool same;

	if (nbd_link_open(&link, group->server, group->context, 0, &deadline, &why) < 0)
		return NULL;
	link->stop = deadline.stop;
	same = group->check(group->opaque, link, &why);
	link->stop = NULL;
	if (same)
		return link;
	if (!atomic_load(&group->stop) && !atomic_exchange(&group->server->told, true))
		notice_tell(&group->server->notice, "%s", why.text);
	nbd_link_close(link);
	return NULL;
}

static void group_try(struct nbd_group *group)
{
	struct nbd_link *link;

	pthread_mutex_unlock(&group->lock);
	link = group_dial(group);
	pthread_mutex_lock(&group->lock);
	if (!link) {
		group->delay = 2 * group->delay < MOST_MS ? 2 * group->delay : MOST_MS;
		return;
	}
	group->redialled = clock_ms();
	if (!has_work(group)) {
		nbd_link_close(link);
		return;
	}
	group->wanted--;
	group->ready[group->nr_ready].link = link;
	group->ready[group->nr_ready++].epoch = atomic_fetch_add(&group->epoch, 1) + 1;
}

/* Without the lock, which every connection needs: who is told may take his time. How many are lost. */
static unsigned tell_loss(struct nbd_group *group)
{
	unsigned lost = group->wanted, all = lost + group->up + group->nr_ready;

	pthread_mutex_unlock(&group->lock);
	notice_tell(&group->server->notice, "%s: %u of its %u connections %s lost: dialling again",
		    group->server->name, lost, all, lost == 1 ? "is" : "are");
	pthread_mutex_lock(&group->lock);
	return lost;
}

static void *redial(void *opaque)
{
	struct nbd_group *group = opaque;
	unsigned told = 0; /* of how many it was told that they are lost */

	pthread_mutex_lock(&group->lock);
	while (!atomic_load(&group->stop)) {
		if (!has_work(group)) {
			told = 0;
			pthread_cond_wait(&group->changed, &group->lock);
			continue;
		}
		sleep_before_try(group);
		if (!has_work(group))
			continue;
		told = group->wanted > told ? tell_loss(group) : group->wanted;
		group_try(group);
	}
	pthread_mutex_unlock(&group->lock);
	return NULL;
}

/* ---- members ---- */

void nbd_group_join(struct nbd_group *group, struct nbd_member *member)
{
	pthread_mutex_lock(&group->lock);
	*member = (struct nbd_member){ .next = group->members, .up = true };
	group->members = member;
	group->up++;
	pthread_mutex_unlock(&group->lock);
}

void nbd_group_leave(struct nbd_group *group, struct nbd_member *member)
{
	bool last;

	pthread_mutex_lock(&group->lock);
	for (struct nbd_member **at = &group->members; *at; at = &(*at)->next)
		if (*at == member) {
			*at = member->next;
			break;
		}
	if (member->up)
		group->up--;
	last = !group->members;
	pthread_mutex_unlock(&group->lock);
	if (last)
		stop_dialling(group);
}

void nbd_group_lose(struct nbd_group *group, struct nbd_member *member)
{
	pthread_mutex_lock(&group->lock);
	member->up = false;
	member->tracer = NULL;
	if (--group->up == 0)
		group->lost = true;
	else if (!group->started)
		group->started = thread_start(&group->thread, redial, group) == 0;
	if (clock_ms() - group->redialled > CALM_MS)
		group->delay = FIRST_MS;
	group->wanted++;
	pthread_cond_signal(&group->changed);
	pthread_mutex_unlock(&group->lock);
}

/* Has the server been there since the connection was made? By those that were there before, or that
 * were proved so. */
static bool is_proved(const struct nbd_group *group, unsigned epoch)
{
	for (const struct nbd_member *each = group->members; each; each = each->next)
		if (each->up && (int)(atomic_load(&each->proved) - epoch) >= 0)
			return true;
	return false;
}

struct nbd_link *nbd_group_mend(struct nbd_group *group, struct nbd_member *member)
{
	struct nbd_link *link = NULL;

	pthread_mutex_lock(&group->lock);
	for (unsigned i = 0; i < group->nr_ready && !link && !group->lost; i++) {
		if (!is_proved(group, group->ready[i].epoch))
			continue;
		link = group->ready[i].link;
		group->ready[i] = group->ready[--group->nr_ready];
	}
	if (link) {
		member->up = true;
		atomic_store(&member->proved, 0);
		group->up++;
	}
	pthread_mutex_unlock(&group->lock);
	return link;
}

bool nbd_group_is_lost(struct nbd_group *group)
{
	bool lost;

	pthread_mutex_lock(&group->lock);
	lost = group->lost;
	pthread_mutex_unlock(&group->lock);
	return lost;
}

void nbd_group_asked(struct nbd_group *group, struct nbd_member *member, const void *command)
{
	unsigned epoch = atomic_load_explicit(&group->epoch, memory_order_acquire);

	if (member->tracer || atomic_load_explicit(&member->proved, memory_order_relaxed) == epoch)
		return;
	member->tracer = command;
	member->asked_epoch = epoch;
}

void nbd_group_answered(struct nbd_member *member, const void *command, bool by_server)
{
	if (member->tracer != command)
		return;
	member->tracer = NULL;
	if (by_server)
		atomic_store(&member->proved, member->asked_epoch);
}
