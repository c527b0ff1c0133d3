/* One format to write them by, and one to read them. */
#include "nbd/lasting-words.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BEFORE "; server "
#define AFTER  ", away %" PRIi64 " s, lost %" PRIu64 " times, %" PRIu64 " bytes unflushed, "

static const enum session_state states[] = {
	SESSION_UP,
	SESSION_WAITING,
	SESSION_GIVEN_UP,
	SESSION_ENDED,
};

const char *lasting_state_word(enum session_state state)
{
	switch (state) {
	case SESSION_UP:
		return "up";
	case SESSION_GIVEN_UP:
		return "given up";
	case SESSION_ENDED:
		return "lost";
	default:
		return "waiting";
	}
}

const char *lasting_grade_word(bool fences)
{
	return fences ? "fenced" : "best effort";
}

void lasting_say(const struct lasting_facts *facts, char *text, size_t size)
{
	snprintf(text, size, BEFORE "%s" AFTER "%s", lasting_state_word(facts->state),
		 facts->lost_ms / 1000, facts->times_lost, facts->unflushed,
		 lasting_grade_word(facts->fences));
}

/* Does text go on with this word, and something behind it? */
static const char *behind(const char *text, const char *word)
{
	size_t len = strlen(word);

	return strncmp(text, word, len) == 0 ? text + len : NULL;
}

bool lasting_parse(const char *description, struct lasting_facts *facts)
{
	const char *text = strstr(description, BEFORE), *rest = NULL;
	int64_t away;
	int len = 0;

	*facts = (struct lasting_facts){ 0 };
	if (!text)
		return false;
	text += strlen(BEFORE);
	for (size_t i = 0; !rest && i < sizeof(states) / sizeof(states[0]); i++) {
		facts->state = states[i];
		rest = behind(text, lasting_state_word(states[i]));
	}
	if (!rest ||
	    sscanf(rest, AFTER "%n", &away, &facts->times_lost, &facts->unflushed, &len) != 3)
		return false;
	if (len == 0 || away < 0 || away > INT64_MAX / 1000)
		return false;
	facts->lost_ms = away * 1000;
	facts->fences = behind(rest + len, lasting_grade_word(true));
	return facts->fences || behind(rest + len, lasting_grade_word(false));
}
