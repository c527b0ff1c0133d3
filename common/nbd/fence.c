/* fence: what a server does so that nothing of a client's old connections is run any more once the
 * client has come back by new ones.
 *
 * A handle has one word that its requests share: how many of them run, and whether it is fenced.
 * So a request counts as running and sees the fence in one step: either whoever fences sees the
 * request, and waits for it, or the request sees the fence.
 *
 * All handles are in one list, under the mutex. A session is no more than the handles that have
 * its number; each knows the newest epoch of all, also if the handles of that one are closed. So
 * memory is bounded by connections, and an epoch is older as long as something is there that is.
 *
 * Who waits is in the list as well, and wakes to fail when a newer epoch comes: it would be let in
 * only to be fenced.
 *
 * The mutex is taken by opening and closing; by a request only if it is the last one of a handle
 * that is fenced. Nothing is taken under it. */
#include "fence.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define HEX        "0123456789abcdef"
#define CACHE_LINE 64 /* bytes */

/* Of the word: the fence is bit 0, and what runs is counted from bit 1 on. */
#define FENCED  1U
#define RUNNING 2U

struct fence_handle {
	_Alignas(CACHE_LINE) atomic_uint word;
	struct fences *fences;
	/* The rest is under the mutex. */
	_Alignas(CACHE_LINE) struct fence_handle *next;
	struct fence_handle **link; /* what points to it */
	uint8_t session[SESSION_ID];
	uint64_t epoch;  /* 0: no session */
	uint64_t newest; /* the same in all handles of a session */
};

/* ---- names ---- */

/* A number, or -1 for what isn't two lower-case digits. */
static int parse_byte(const char *hex)
{
	const char *high = hex[0] ? strchr(HEX, hex[0]) : NULL;
	const char *low = high && hex[1] ? strchr(HEX, hex[1]) : NULL;

	return low ? (int)((high - HEX) << 4 | (low - HEX)) : -1;
}

bool fence_parse(const char *name, uint8_t session[SESSION_ID], uint64_t *epoch)
{
	const size_t before = strlen(SESSION_SUFFIX) + 2 * SESSION_ID; /* bytes before the dot */
	const char *dot = strrchr(name, '.'), *hex;
	size_t digits;

	if (!dot || (size_t)(dot - name) < before ||
	    strncmp(dot - before, SESSION_SUFFIX, strlen(SESSION_SUFFIX)))
		return false;
	hex = dot - 2 * SESSION_ID;
	for (size_t i = 0; i < SESSION_ID; i++) {
		int byte = parse_byte(hex + 2 * i);

		if (byte < 0)
			return false;
		session[i] = byte;
	}
	digits = strspn(dot + 1, HEX);
	if (digits < 1 || digits > 16 || dot[1 + digits] || dot[1] == '0')
		return false;
	*epoch = strtoull(dot + 1, NULL, 16);
	return true;
}

int fences_identify(struct fences *fences, bool last, struct error *err)
{
	uint64_t instance[2];

	if (getrandom(instance, sizeof(instance), 0) != sizeof(instance))
		return error_set(err, errno, "no random number to tell this server from others: %s",
				 strerror(errno));
	snprintf(fences->identity, sizeof(fences->identity),
		 "ndio " NDIO_VERSION " " SAYS_INSTANCE "%016" PRIx64 "%016" PRIx64 "%s",
		 instance[0], instance[1], last ? SAYS_FENCES : "");
	return 0;
}

/* ---- sessions; all under the mutex ---- */

static void fence_insert(struct fence_handle *handle)
{
	struct fences *fences = handle->fences;

	handle->next = fences->handles;
	handle->link = &fences->handles;
	if (handle->next)
		handle->next->link = &handle->next;
	fences->handles = handle;
}

static void fence_take_out(struct fence_handle *handle)
{
	*handle->link = handle->next;
	if (handle->next)
		handle->next->link = handle->link;
}

static bool same_session(const struct fence_handle *a, const struct fence_handle *b)
{
	return a->epoch && b->epoch && memcmp(a->session, b->session, SESSION_ID) == 0;
}

/* Tells all of the handle's session of the newest epoch, itself too, and fences the older ones. */
static void fence_older(struct fence_handle *handle)
{
	struct fence_handle *first = handle->fences->handles, *other;
	uint64_t newest = handle->epoch;

	for (other = first; other; other = other->next)
		if (same_session(other, handle) && other->newest > newest)
			newest = other->newest;
	for (other = first; other; other = other->next) {
		if (!same_session(other, handle))
			continue;
		other->newest = newest;
		if (other->epoch < newest)
			atomic_fetch_or(&other->word, FENCED);
	}
	pthread_cond_broadcast(&handle->fences->changed); /* some of them may wait */
}

/* Does an older epoch still run something? They are fenced, so it becomes no more. */
static bool older_runs(const struct fence_handle *handle)
{
	struct fence_handle *other;

	for (other = handle->fences->handles; other; other = other->next)
		if (same_session(other, handle) && other->epoch < handle->epoch &&
		    atomic_load(&other->word) >= RUNNING)
			return true;
	return false;
}

/* ---- handles ---- */

int fence_begin(struct fences *fences, const char *name, struct fence_handle **begun,
		struct error *err)
{
	struct fence_handle *handle = aligned_alloc(CACHE_LINE, sizeof(*handle));

	if (!handle)
		return error_set(err, ENOMEM, "no memory for a connection");
	memset(handle, 0, sizeof(*handle));
	handle->fences = fences;
	if (!fence_parse(name, handle->session, &handle->epoch))
		handle->epoch = 0;
	pthread_mutex_lock(&fences->mutex);
	fence_insert(handle);
	if (handle->epoch)
		fence_older(handle);
	pthread_mutex_unlock(&fences->mutex);
	*begun = handle;
	return 0;
}

int fence_ready(struct fence_handle *handle, bool wait, struct error *err)
{
	struct fences *fences = handle->fences;
	int ret = 0;

	pthread_mutex_lock(&fences->mutex);
	while (handle->newest == handle->epoch && older_runs(handle) && wait)
		pthread_cond_wait(&fences->changed, &fences->mutex);
	if (handle->newest != handle->epoch)
		ret = error_set(err, ESTALE,
				"a connection of a session's epoch %" PRIx64
				" comes after one of %" PRIx64,
				handle->epoch, handle->newest);
	else if (older_runs(handle))
		ret = -EAGAIN;
	pthread_mutex_unlock(&fences->mutex);
	return ret;
}

int fence_open(struct fences *fences, const char *name, struct fence_handle **opened,
	       struct error *err)
{
	int ret = fence_begin(fences, name, opened, err);

	if (ret < 0)
		return ret;
	ret = fence_ready(*opened, true, err);
	if (ret < 0)
		fence_close(*opened);
	return ret;
}

int fence_enter(struct fence_handle *handle)
{
	/* Most of what comes too late isn't even counted, so that it delays nobody. */
	if (atomic_load(&handle->word) & FENCED)
		return -ESHUTDOWN;
	if (!(atomic_fetch_add(&handle->word, RUNNING) & FENCED))
		return 0;
	fence_leave(handle);
	return -ESHUTDOWN;
}

void fence_leave(struct fence_handle *handle)
{
	struct fences *fences = handle->fences; /* the handle may be gone once it runs nothing */
	unsigned before = atomic_fetch_sub(&handle->word, RUNNING);

	assert(before >= RUNNING);
	if (before != (RUNNING | FENCED))
		return;
	/* Not between the look of somebody who waits and its sleep. */
	pthread_mutex_lock(&fences->mutex);
	pthread_cond_broadcast(&fences->changed);
	pthread_mutex_unlock(&fences->mutex);
}

void fence_close(struct fence_handle *handle)
{
	assert(atomic_load(&handle->word) < RUNNING);
	pthread_mutex_lock(&handle->fences->mutex);
	fence_take_out(handle);
	pthread_mutex_unlock(&handle->fences->mutex);
	free(handle);
}

void fences_clear(struct fences *fences)
{
	while (fences->handles)
		fence_close(fences->handles);
}
