#include "command/endpoint-options.h"

#include "command/cmd.h"
#include "command/open-options.h"
#include "locator/locator.h"
#include "terminal/number.h"

bool endpoint_option(struct endpoint_spec *source, struct endpoint_spec *destination, int option,
		     const char *value)
{
	struct endpoint_spec *spec = option & OPEN_OTHER ? destination : source;
	const struct open_options open = { &spec->key, &spec->how, &spec->header,
					   &spec->answer_timeout, "a key was given before" };
	bool right;

	spec->unlock |= (option & ~OPEN_OTHER) <= OPEN_KEY_FD;
	if ((option & ~OPEN_OTHER) == ENDPOINT_UNLOCK) {
		spec->ask = true;
		return true;
	}
	right = !open_option(&open, option, value);
	/* These are of both. */
	destination->how.max_kdf_time = source->how.max_kdf_time;
	destination->answer_timeout = source->answer_timeout;
	return right;
}

int endpoint_check(const char *self, const struct endpoint_spec *spec)
{
	struct error err;

	if (!endpoint_is_special(spec->locator) && locator_kind(spec->locator, &err) < 0)
		return cmd_error("%s", err.text);
	if (spec->unlock && endpoint_is_special(spec->locator))
		return cmd_usage(self,
				 "%s can't be opened with a key: give a file, a block device "
				 "or an NBD URI",
				 spec->locator);
	if (spec->ask && key_source_given(&spec->key))
		return cmd_usage(self,
				 "%s: a passphrase that is asked for, or a key from a file or "
				 "descriptor, not both",
				 spec->locator);
	if (key_source_check(&spec->key))
		return cmd_usage(self, "%s: %s", spec->locator, key_source_check(&spec->key));
	if (spec->header && !spec->unlock)
		return cmd_usage(self, "%s: a header without a key", spec->locator);
	if (spec->how.slot != LUKS_ANY_SLOT && !spec->unlock)
		return cmd_usage(self, "%s: a key slot without a key", spec->locator);
	return CMD_OK;
}
