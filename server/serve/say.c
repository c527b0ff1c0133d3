#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/printable.h"

#define LINE       1024
#define LINES      10   /* of one teller in a second */
#define TELLING_MS 1000 /* that second */

static void __attribute__((format(printf, 1, 0))) say_line(const char *fmt, va_list args)
{
	char text[LINE], line[LINE];
	int start = snprintf(line, sizeof(line), "ndio serve: ");
	size_t len;

	vsnprintf(text, sizeof(text), fmt, args);
	printable(text, line + start, sizeof(line) - start - 1);
	len = strlen(line);
	line[len] = '\n';
	(void)!write(STDERR_FILENO, line, len + 1);
}

void say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say_line(fmt, args);
	va_end(args);
}

static void tell(void *opaque, const char *message)
{
	(void)opaque;
	say("%s", message);
}

const struct notice serve_notice = { .tell = tell };

/* ---- what clients can have said again and again ---- */

static void say_rest(struct teller *teller, const char *who)
{
	if (teller->left_out)
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
	va_start(args, fmt);
	say_line(fmt, args);
	va_end(args);
}
