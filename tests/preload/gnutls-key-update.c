/* Preloaded into a server that does TLS by GnuTLS, which never updates its keys by itself: every
 * KEY_UPDATE_MS milliseconds what the server sends next goes with a new key, and every second time
 * the client is asked for one as well. Each update is a line on stderr.
 *
 * For servers with one thread a connection: nbdkit's several would corrupt their session. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

#define EAGAIN_OF_GNUTLS (-28) /* GNUTLS_E_AGAIN */
#define ASK_PEER         1     /* GNUTLS_KU_PEER */
#define MAX_SESSIONS     16

ssize_t gnutls_record_send(void *session, const void *data, size_t len);

/* Where a session's socket was full in the middle of something: only the same can follow. */
enum half { NONE, RECORD, UPDATE };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	void *session;
	enum half half;
} sessions[MAX_SESSIONS];   /* those of which something is half sent; the others are free places */
static int64_t next_update; /* milliseconds, of the monotonic clock */
static unsigned updates;

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

static enum half half_of(void *session)
{
	for (int i = 0; i < MAX_SESSIONS; i++)
		if (sessions[i].half && sessions[i].session == session)
			return sessions[i].half;
	return NONE;
}

static void set_half(void *session, enum half half)
{
	int i = 0;

	while (i < MAX_SESSIONS && !(sessions[i].half && sessions[i].session == session))
		i++;
	if (i == MAX_SESSIONS && half)
		for (i = 0; i < MAX_SESSIONS && sessions[i].half; i++)
			;
	if (i == MAX_SESSIONS) {
		if (half)
			abort(); /* a test has fewer connections */
		return;
	}
	sessions[i].session = session;
	sessions[i].half = half;
}

static int update(void *session)
{
	static int (*key_update)(void *, unsigned);
	int asks = updates % 2, ret;

	if (!key_update)
		key_update =
			(int (*)(void *, unsigned))dlsym(RTLD_NEXT, "gnutls_session_key_update");
	ret = key_update(session, asks ? ASK_PEER : 0);
	set_half(session, ret == EAGAIN_OF_GNUTLS ? UPDATE : NONE);
	if (ret == EAGAIN_OF_GNUTLS)
		return ret;
	fprintf(stderr, "key update %u%s: %d\n", ++updates, asks ? ", asks for one" : "", ret);
	next_update = now_ms() + atoi(getenv("KEY_UPDATE_MS"));
	return 0;
}

static int update_if_due(void *session)
{
	enum half half;
	int ret = 0;

	pthread_mutex_lock(&lock);
	half = half_of(session);
	if (!next_update) /* the first time */
		next_update = now_ms() + atoi(getenv("KEY_UPDATE_MS"));
	if (half == UPDATE || (half == NONE && now_ms() >= next_update))
		ret = update(session);
	pthread_mutex_unlock(&lock);
	return ret;
}

__attribute__((visibility("default"))) ssize_t gnutls_record_send(void *session, const void *data,
								  size_t len)
{
	static ssize_t (*record_send)(void *, const void *, size_t);
	ssize_t ret = update_if_due(session);

	if (ret < 0)
		return ret;
	if (!record_send)
		record_send = (ssize_t(*)(void *, const void *, size_t))dlsym(RTLD_NEXT,
									      "gnutls_record_send");
	ret = record_send(session, data, len);
	pthread_mutex_lock(&lock);
	set_half(session, ret == EAGAIN_OF_GNUTLS ? RECORD : NONE);
	pthread_mutex_unlock(&lock);
	return ret;
}
