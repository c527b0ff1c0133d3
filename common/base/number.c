#include "base/number.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

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

bool parse_number(const char *text, uint64_t max, uint64_t *number)
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

bool parse_size(const char *text, uint64_t *bytes)
{
	const char *unit;
	uint64_t factor;

	if (!read_digits(text, bytes, &unit))
		return false;
	factor = unit_factor(unit);
	return factor && !__builtin_mul_overflow(*bytes, factor, bytes) && *bytes <= INT64_MAX;
}

const char *size_text(uint64_t bytes, char text[16])
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
