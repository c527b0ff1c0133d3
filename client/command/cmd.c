#include "command/cmd.h"

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "locator/locator.h"
#include "nbd/nbd-server.h"

bool cmd_is_uri(const char *locator)
{
	return locator_is_uri(locator);
}

/* Bytes from 128 up are left alone, as names in UTF-8 have them, but for that encoding's
 * control characters, 0xc2 0x80 to 0x9f. */
char *cmd_clean(const char *text, char *to, size_t size)
{
	unsigned char before = 0;

	snprintf(to, size, "%s", text);
	for (unsigned char *c = (unsigned char *)to; *c; c++) {
		bool control = iscntrl(*c) || (before == 0xc2 && *c < 0xa0);

		before = *c;
		if (control)
			*c = '?';
	}
	return to;
}

static void say(const char *who, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

/* In one write, so that the lines of several programs don't mix. */
static void say(const char *who, const char *fmt, va_list args)
{
	char text[2048], clean[2048];

	vsnprintf(text, sizeof(text), fmt, args);
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", who, cmd_clean(text, clean, sizeof(clean)));
}

int cmd_error(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say("ndio", fmt, args);
	va_end(args);
	return CMD_FAILED;
}

int cmd_usage_hint(const char *self)
{
	fprintf(stderr, "Try \"%s --help\".\n", self);
	return CMD_USAGE;
}

int cmd_usage(const char *self, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(self, fmt, args);
	va_end(args);
	return cmd_usage_hint(self);
}

void cmd_notice(void *opaque, const char *message)
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
		cmd_error("%s", message);
}

/* strtoull takes signs and spaces too. */
static bool read_digits(const char *text, uint64_t *number, const char **rest)
{
	const char *c = text;
	uint64_t n = 0;

	for (; isdigit((unsigned char)*c); c++)
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*c - '0'), &n))
			return false;
	*number = n;
	*rest = c;
	return c > text;
}

bool cmd_parse_number(const char *text, uint64_t max, uint64_t *number)
{
	const char *rest;

	return read_digits(text, number, &rest) && !*rest && *number <= max;
}

/* What a unit multiplies by: "", "K", "KiB" and so on are powers of 1024, "KB" and so on of 1000, as
 * dd and cryptsetup have them. 0: it is none, or too large. */
static uint64_t unit_factor(const char *unit)
{
	static const char letters[] = "KMGTPE";
	const char *letter = *unit ? strchr(letters, toupper((unsigned char)*unit)) : NULL;
	uint64_t base = 1024, factor = 1;

	if (!*unit || strcasecmp(unit, "B") == 0)
		return 1;
	if (!letter)
		return 0;
	if (strcasecmp(unit + 1, "B") == 0)
		base = 1000;
	else if (unit[1] && strcasecmp(unit + 1, "iB") != 0)
		return 0;
	for (const char *l = letters; l <= letter; l++)
		factor *= base;
	return factor;
}

bool cmd_parse_answer_timeout(const char *text, unsigned *seconds)
{
	uint64_t number;

	if (!cmd_parse_number(text, NBD_ANSWER_TIMEOUT_MAX, &number) || number == 0)
		return false;
	*seconds = number;
	return true;
}

bool cmd_parse_size(const char *text, uint64_t *bytes)
{
	const char *unit;
	uint64_t factor;

	if (!read_digits(text, bytes, &unit))
		return false;
	factor = unit_factor(unit);
	return factor && !__builtin_mul_overflow(*bytes, factor, bytes) && *bytes <= INT64_MAX;
}

const char *cmd_size_text(uint64_t bytes, char text[16])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned unit = 0;
	double n = bytes;

	while (n >= 1024) {
		n /= 1024;
		unit++;
	}
	/* "1 GiB", "1.5 GiB": a digit behind the point only where it says something. */
	if (unit == 0 || (uint64_t)(n * 10 + 0.5) % 10 == 0)
		snprintf(text, 16, "%.0f %s", n, units[unit]);
	else
		snprintf(text, 16, "%.1f %s", n, units[unit]);
	return text;
}
