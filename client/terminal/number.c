#include "terminal/number.h"

#include "nbd/target-nbd.h"

bool parse_answer_timeout(const char *text, unsigned *seconds)
{
	uint64_t number;

	if (!parse_number(text, NBD_ANSWER_TIMEOUT_MAX, &number) || number == 0)
		return false;
	*seconds = number;
	return true;
}

bool parse_reconnect(const char *text, unsigned *seconds)
{
	uint64_t number;

	if (!parse_number(text, NBD_RECONNECT_MAX, &number))
		return false;
	*seconds = number;
	return true;
}
