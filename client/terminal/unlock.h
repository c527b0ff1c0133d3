/* unlock: the options of commands that say how a volume is opened: by which key slot or token, and how
 * long deriving a key may take. */
#ifndef NDIO_UNLOCK_H
#define NDIO_UNLOCK_H

#include <stdbool.h>

#include "luks/luks-slots.h"
#include "luks/luks-tokens.h"

#define UNLOCK_MAX_SLOT 31

struct unlock_options {
	int slot;              /* the only one to try, or LUKS_ANY_SLOT */
	unsigned max_kdf_time; /* see struct luks_pass; 0: the default */
	bool volume_key;       /* the key is the volume's own: no key slot is opened */
	bool by_tokens;        /* before a key is read or asked for */
	int token;             /* the only one to try then, or LUKS_ANY_TOKEN */
	const char *trust;     /* path of a trust file, or NULL */
};
#define UNLOCK_DEFAULT                                                                             \
	{                                                                                          \
		.slot = LUKS_ANY_SLOT, .token = LUKS_ANY_TOKEN                                     \
	}

/* Is one slot alone to be tried? */
bool unlock_by_one_slot(const struct unlock_options *options);

/* Take the values of --slot, --token and --max-kdf-time. NULL, or what is wrong. */
const char *unlock_take_token(struct unlock_options *options, const char *value);
const char *unlock_take_slot(struct unlock_options *options, const char *value);
const char *unlock_take_max_kdf_time(struct unlock_options *options, const char *value);

#endif
