#include "command/endpoint-options.h"

#include "command/cmd.h"
#include "command/open-options.h"
#include "locator/locator.h"

bool endpoint_has_option(int option)
{
	return option >= ENDPOINT_UNLOCK && option < ENDPOINT_END;
}

const char *endpoint_option(struct endpoint_spec *source, struct endpoint_spec *destination,
			    int option, const char *value)
{
	struct endpoint_spec *spec = option & OPEN_OTHER ? destination : source;
	const struct open_options open = {
		&spec->key,
		&spec->how,
		&spec->header,
		&spec->answer_timeout,
		spec == source ? "a key comes from one --src-key-file or --src-key-fd" :
				 "a key comes from one --dst-key-file or --dst-key-fd",
		&spec->reconnect,
	};
	int which = option & ~OPEN_OTHER;
	const char *wrong;

	if (which == ENDPOINT_UNLOCK || which == OPEN_KEY_FILE || which == OPEN_KEY_FD ||
	    which == OPEN_TOKEN || which == OPEN_VOLUME_KEY_FILE)
		spec->unlock = true;
	if (which == ENDPOINT_UNLOCK) {
		spec->ask = true;
		return NULL;
	}
	wrong = open_option(&open, option, value);
	/* These are of both. */
	destination->how.max_kdf_time = source->how.max_kdf_time;
	destination->answer_timeout = source->answer_timeout;
	destination->reconnect = source->reconnect;
	return wrong;
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
	if (spec->how.trust && !spec->unlock)
		return cmd_usage(self, "%s: a trust file without a key", spec->locator);
	if (unlock_by_one_slot(&spec->how) && !spec->unlock)
		return cmd_usage(self, "%s: a key slot without a key", spec->locator);
	return CMD_OK;
}
