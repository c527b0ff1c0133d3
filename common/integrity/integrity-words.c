/* One format to write them by, and one to read them. */
#include "integrity/integrity-words.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define START "; integrity "
#define FOUND ", %" PRIu64 " bad blocks, %" PRIu64 " bad reads, %" PRIu64 " stale areas"

static const char *trusted_word(bool trusted)
{
	return trusted ? "trusted" : "checked";
}

void integrity_say(const struct integrity_found *found, char *text, size_t size)
{
	snprintf(text, size, START "%s" FOUND, trusted_word(found->trusted), found->bad_blocks,
		 found->bad_reads, found->stale_areas);
}

bool integrity_parse(const char *description, struct integrity_found *found)
{
	const char *text = strstr(description, START), *word;
	int len = 0;

	*found = (struct integrity_found){ 0 };
	if (!text)
		return false;
	text += strlen(START);
	found->trusted = *text == *trusted_word(true);
	word = trusted_word(found->trusted);
	if (strncmp(text, word, strlen(word)) != 0)
		return false;
	return sscanf(text + strlen(word), FOUND "%n", &found->bad_blocks, &found->bad_reads,
		      &found->stale_areas, &len) == 3 &&
	       len > 0;
}
