#include "command/open-options.h"

#include "terminal/number.h"

const char *open_option(const struct open_options *to, int option, const char *value)
{
	switch (option & ~OPEN_OTHER) {
	case OPEN_KEY_FILE:
		return key_source_set_file(to->key, value) ? NULL : to->twice;
	case OPEN_VOLUME_KEY_FILE:
		to->how->volume_key = true;
		return key_source_set_file(to->key, value) ? NULL : to->twice;
	case OPEN_KEY_FD:
		return key_source_set_fd(to->key, value) ? NULL : to->twice;
	case OPEN_KEYFILE_OFFSET:
		return key_source_set_offset(to->key, value);
	case OPEN_KEYFILE_SIZE:
		return key_source_set_size(to->key, value);
	case OPEN_SLOT:
		return unlock_take_slot(to->how, value);
	case OPEN_TOKEN:
		return unlock_take_token(to->how, value);
	case OPEN_MAX_KDF_TIME:
		return unlock_take_max_kdf_time(to->how, value);
	case OPEN_HEADER:
		*to->header = value;
		return NULL;
	case OPEN_TRUST:
		to->how->trust = value;
		return NULL;
	case OPEN_RECONNECT:
		return parse_reconnect(value, to->reconnect) ? NULL : RECONNECT_WRONG;
	default:
		return parse_answer_timeout(value, to->answer_timeout) ? NULL :
									 ANSWER_TIMEOUT_WRONG;
	}
}
