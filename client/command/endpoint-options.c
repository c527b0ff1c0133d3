#include "command/endpoint-options.h"

#include "command/cmd.h"
#include "locator/locator.h"
#include "terminal/number.h"

bool endpoint_option(struct endpoint_spec *source, struct endpoint_spec *destination, int option,
		     const char *value)
{
	struct endpoint_spec *spec = option & ENDPOINT_OF_DST ? destination : source;

	switch (option & ~ENDPOINT_OF_DST) {
	case ENDPOINT_KEY_FILE:
		spec->unlock = true;
		return key_source_set_file(&spec->key, value);
	case ENDPOINT_KEY_FD:
		spec->unlock = true;
		return key_source_set_fd(&spec->key, value);
	case ENDPOINT_KEYFILE_OFFSET:
		return !key_source_set_offset(&spec->key, value);
	case ENDPOINT_KEYFILE_SIZE:
		return !key_source_set_size(&spec->key, value);
	case ENDPOINT_SLOT:
		return !unlock_take_slot(&spec->how, value);
	case ENDPOINT_MAX_KDF_TIME:
		return !unlock_take_max_kdf_time(&source->how, value) &&
		       !unlock_take_max_kdf_time(&destination->how, value);
	case ENDPOINT_ANSWER_TIMEOUT:
		return parse_answer_timeout(value, &source->answer_timeout) &&
		       parse_answer_timeout(value, &destination->answer_timeout);
	case ENDPOINT_HEADER:
		spec->header = value;
		return true;
	default:
		spec->unlock = spec->ask = true;
		return true;
	}
}

int endpoint_check(const char *self, const struct endpoint_spec *spec)
{
	struct error err;

	if (!endpoint_is_special(spec->locator) && locator_kind(spec->locator, &err) < 0)
		return cmd_error("%s", err.text);
	if (spec->unlock && endpoint_is_special(spec->locator))
		return cmd_usage(self, "%s can't be opened with a key: give a file, a block device "
				 "or an NBD URI", spec->locator);
	if (spec->ask && key_source_given(&spec->key))
		return cmd_usage(self, "%s: a passphrase that is asked for, or a key from a file or "
				 "descriptor, not both", spec->locator);
	if (key_source_check(&spec->key))
		return cmd_usage(self, "%s: %s", spec->locator, key_source_check(&spec->key));
	if (spec->header && !spec->unlock)
		return cmd_usage(self, "%s: a header without a key", spec->locator);
	if (spec->how.slot != LUKS_ANY_SLOT && !spec->unlock)
		return cmd_usage(self, "%s: a key slot without a key", spec->locator);
	return CMD_OK;
}
