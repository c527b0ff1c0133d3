#include "say.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/printable.h"

#define LINE         1024
#define LINES        10   /* of one teller in a second, */
#define LINES_OF_ALL 100  /* and of all of them */
#define TELLING_MS   1000 /* that second */

static atomic_bool to_log;

static void __attribute__((format(printf, 1, 0))) say_line(const char *fmt, va_list args)
{
	char text[LINE], line[LINE];
	bool logs = atomic_load(&to_log);
	int start = snprintf(line, sizeof(line), "%s", logs ? "" : "ndio serve: ");
	size_t len;

	vsnprintf(text, sizeof(text), fmt, args);
	printable(text, line + start, sizeof(line) - start - 1);
	if (logs) {
		syslog(LOG_NOTICE, "%s", line);
		return;
	}
	len = strlen(line);
	line[len] = '\n';
	(void)!write(STDERR_FILENO, line, len + 1);
}

void say_to_log(void)
{
	openlog("ndio-serve", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	atomic_store(&to_log, true);
}

void say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say_line(fmt, args);
	va_end(args);
}

static void serve_tell(void *opaque, const char *message)
{
	(void)opaque;
	say("%s", message);
}

const struct notice serve_notice = { .tell = serve_tell };

/* ---- what clients can have said again and again ---- */

/* Of all tellers: a client that comes again and again has one each time. */
static struct {
	pthread_mutex_t mutex;
	int64_t since;
	unsigned said, left_out; /* since then */
} all = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* May one more line be said? If not, so many are left out. */
static bool may_say(unsigned otherwise)
{
	int64_t now = clock_ms();
	unsigned rest = 0;
	bool may;

	pthread_mutex_lock(&all.mutex);
	if (now - all.since >= TELLING_MS) {
		rest = all.left_out;
		all.since = now;
		all.said = all.left_out = 0;
	}
	may = all.said < LINES_OF_ALL;
	all.said += may;
	all.left_out += may ? 0 : otherwise;
	pthread_mutex_unlock(&all.mutex);
	if (rest)
		say("clients: and %u more like these", rest);
	return may;
}

void tellers_end(void)
{
	if (all.left_out)
		say("clients: and %u more like these", all.left_out);
	all.left_out = 0;
}

static void say_rest(struct teller *teller, const char *who)
{
	if (teller->left_out && may_say(teller->left_out))
		say("%s: and %u more like this", who, teller->left_out);
	teller->left_out = 0;
}

bool teller_has_more(const struct teller *teller)
{
	return teller->left_out > 0;
}

void teller_go_on(struct teller *teller, const char *who, bool now)
{
	if (now || clock_ms() - teller->since >= TELLING_MS)
		say_rest(teller, who);
}

void teller_say(struct teller *teller, const char *who, const char *fmt, ...)
{
	int64_t now = clock_ms();
	va_list args;

	if (!teller->said || now - teller->since >= TELLING_MS) {
		say_rest(teller, who);
		teller->since = now;
		teller->said = 0;
	}
	if (teller->said == LINES) {
		teller->left_out++;
		return;
	}
	teller->said++;
	if (!may_say(1))
		return;
	va_start(args, fmt);
	say_line(fmt, args);
	va_end(args);
}
