/* endpoint-options: what the command line of a command with two sides says of them, SRC and DST. */
#ifndef NDIO_ENDPOINT_OPTIONS_H
#define NDIO_ENDPOINT_OPTIONS_H

#include <stdbool.h>

#include "command/open-options.h"
#include "copy/endpoint.h"
#include "nbd/target-nbd.h"

/* For --help; the first names the source, those of the destination follow. */
#define ENDPOINT_HELP                                                                              \
	"  --src-key-file=PATH   open SRC as LUKS with the content of a file; -: of stdin\n"       \
	"  --src-key-fd=N        ... with what can be read from a descriptor\n"                    \
	"  --src-unlock          ... with a passphrase asked for at the terminal\n"                \
	"  --src-header=PATH     the LUKS header of SRC is in this file\n"                         \
	"  --src-keyfile-offset=N, --src-keyfile-size=N\n"                                         \
	"                        of a key, pass over N bytes, and take no more than N\n"           \
	"  --src-volume-key-file=PATH\n"                                                           \
	"                        open SRC with the volume key itself\n"                            \
	"  --src-slot=N          try this key slot only\n"                                         \
	"  --src-token=N|any     open SRC without a passphrase: by one of its tokens, or any;\n"   \
	"                        by a key only where that fails\n"                                 \
	"  --src-trust=PATH      SRC has to be what it was when this file was last written:\n"     \
	"                        see ndio trust\n"                                                 \
	"  --max-kdf-time=SECONDS\n"                                                               \
	"                        how long deriving the keys of a side may take (default 120)\n"    \
	"  --answer-timeout=SECONDS\n"                                                             \
	"                        a server that is silent for so long is lost (default 30)\n"       \
	"  --reconnect=SECONDS   one that is lost is waited for so long; 0: not (default 60)\n"    \
	"  --dst-key-file=PATH, --dst-key-fd=N, --dst-unlock, --dst-header=PATH,\n"                \
	"  --dst-keyfile-offset=N, --dst-keyfile-size=N, --dst-slot=N,\n"                          \
	"  --dst-token=N|any, --dst-volume-key-file=PATH, --dst-trust=PATH\n"

enum {
	ENDPOINT_UNLOCK = 256,
	ENDPOINT_END = 2048, /* where a command's own options start */
};

#define ENDPOINT_SIDE(side, of)                                                                    \
	OPEN_OPTIONS_KEY(side "-", of),                                                            \
		{ side "-unlock", no_argument, NULL, ENDPOINT_UNLOCK | (of) },                     \
		OPEN_OPTION_HEADER(side "-header", of), OPEN_OPTION_SLOT(side "-slot", of),        \
		OPEN_OPTION_TOKEN(side "-token", of), OPEN_OPTION_TRUST(side "-trust", of),        \
		OPEN_OPTION_VOLUME_KEY(side "-volume-key-file", of)

/* For cmd_options(). */
#define ENDPOINT_OPTIONS                                                                           \
	ENDPOINT_SIDE("src", 0), ENDPOINT_SIDE("dst", OPEN_OTHER), OPEN_OPTION_MAX_KDF_TIME,       \
		OPEN_OPTION_ANSWER_TIMEOUT, OPEN_OPTION_RECONNECT

/* Of both sides, before the first option. */
#define ENDPOINT_SPEC_NONE                                                                         \
	{                                                                                          \
		.key = KEY_SOURCE_NONE, .how = UNLOCK_DEFAULT, .reconnect = NBD_RECONNECT          \
	}

/* Takes one of these options, as a cmd_take_fn does. */
bool endpoint_has_option(int option);
const char *endpoint_option(struct endpoint_spec *source, struct endpoint_spec *destination,
			    int option, const char *value);

/* Is what is said of a side whole? An enum cmd_status; self is argv[0]. */
int endpoint_check(const char *self, const struct endpoint_spec *spec);

#endif
