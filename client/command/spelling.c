#include "command/spelling.h"

#include <stdint.h>
#include <string.h>

#define MAX_WORD 31
#define NEAR     2

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* Optimal string alignment: d[i][j] is the distance of the first i letters from the first j. */
size_t spelling_distance(const char *a, const char *b)
{
	size_t d[MAX_WORD + 1][MAX_WORD + 1], a_len = strlen(a), b_len = strlen(b);

	if (a_len > MAX_WORD || b_len > MAX_WORD)
		return SIZE_MAX;
	for (size_t i = 0; i <= a_len; i++)
		d[i][0] = i;
	for (size_t j = 0; j <= b_len; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= a_len; i++)
		for (size_t j = 1; j <= b_len; j++) {
			d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1,
				       d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < d[i][j])
				d[i][j] = d[i - 2][j - 2] + 1;
		}
	return d[a_len][b_len];
}

/* Of a short word one letter may be wrong, or most words would be near. */
int spelling_is_near(const char *typed, const char *word)
{
	size_t distance = spelling_distance(typed, word);

	return distance <= (strlen(word) > 3 ? NEAR : 1);
}
