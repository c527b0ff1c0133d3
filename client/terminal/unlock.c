#include "terminal/unlock.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "terminal/number.h"

bool unlock_by_one_slot(const struct unlock_options *options)
{
	return options->slot != LUKS_ANY_SLOT;
}

const char *unlock_take_slot(struct unlock_options *options, const char *value)
{
	uint64_t slot;

	if (!parse_number(value, UNLOCK_MAX_SLOT, &slot))
		return "a key slot is a number from 0 to 31";
	options->slot = slot;
	return NULL;
}

const char *unlock_take_token(struct unlock_options *options, const char *value)
{
	uint64_t token = 0;

	if (strcmp(value, "any") != 0 && !parse_number(value, LUKS_MAX_TOKEN, &token))
		return "a token is a number from 0 to 31, or any";
	options->by_tokens = true;
	options->token = strcmp(value, "any") == 0 ? LUKS_ANY_TOKEN : (int)token;
	return NULL;
}

const char *unlock_take_max_kdf_time(struct unlock_options *options, const char *value)
{
	uint64_t seconds;

	if (!parse_number(value, UINT_MAX, &seconds) || seconds == 0)
		return "--max-kdf-time takes a number of seconds";
	options->max_kdf_time = seconds;
	return NULL;
}
