#include "terminal/say.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/printable.h"

static bool has_line; /* under stderr's lock */

void say_over(bool line)
{
	flockfile(stderr);
	has_line = line;
	funlockfile(stderr);
}

/* In one write, so that the lines of several programs don't mix. */
void say_as(const char *who, const char *fmt, va_list args)
{
	char text[2048], clean[2048];

	vsnprintf(text, sizeof(text), fmt, args);
	fflush(stdout);
	flockfile(stderr);
	fprintf(stderr, "%s%s: %s\n", has_line ? "\r\033[K" : "", who,
		printable(text, clean, sizeof(clean)));
	funlockfile(stderr);
}

void say_error(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say_as("ndio", fmt, args);
	va_end(args);
}

void say_notice(void *opaque, const char *message)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char last[512]; /* both sides of a copy may have the same to tell */
	bool again;

	(void)opaque;
	pthread_mutex_lock(&lock);
	again = strcmp(message, last) == 0;
	snprintf(last, sizeof(last), "%s", message);
	pthread_mutex_unlock(&lock);
	if (!again)
		say_error("%s", message);
}
