/* open-options: what a command line says of how a volume is opened: where its header is, the key for it,
 * and how long a server may be silent, or away. */
#ifndef NDIO_OPEN_OPTIONS_H
#define NDIO_OPEN_OPTIONS_H

#include <getopt.h>

#include "terminal/key-input.h"
#include "terminal/unlock.h"

enum {
	OPEN_KEY_FILE = 512,
	OPEN_KEY_FD,
	OPEN_VOLUME_KEY_FILE,
	OPEN_KEYFILE_OFFSET,
	OPEN_KEYFILE_SIZE,
	OPEN_SLOT,
	OPEN_TOKEN,
	OPEN_MAX_KDF_TIME,
	OPEN_HEADER,
	OPEN_TRUST,
	OPEN_ANSWER_TIMEOUT,
	OPEN_RECONNECT,
	OPEN_OTHER = 1024, /* added to one of these: it is of another key or disk */
};

/* For cmd_options(). before is "", or what the names of another key or disk start with. */
#define OPEN_OPTIONS_KEY(before, of)                                                               \
	{ before "key-file", required_argument, NULL, OPEN_KEY_FILE | (of) },                      \
		{ before "key-fd", required_argument, NULL, OPEN_KEY_FD | (of) },                  \
		{ before "keyfile-offset", required_argument, NULL, OPEN_KEYFILE_OFFSET | (of) },  \
	{                                                                                          \
		before "keyfile-size", required_argument, NULL, OPEN_KEYFILE_SIZE | (of)           \
	}
#define OPEN_OPTION_VOLUME_KEY(name, of)                                                           \
	{                                                                                          \
		name, required_argument, NULL, OPEN_VOLUME_KEY_FILE | (of)                         \
	}
#define OPEN_OPTION_SLOT(name, of)                                                                 \
	{                                                                                          \
		name, required_argument, NULL, OPEN_SLOT | (of)                                    \
	}
#define OPEN_OPTION_TOKEN(name, of)                                                                \
	{                                                                                          \
		name, required_argument, NULL, OPEN_TOKEN | (of)                                   \
	}
#define OPEN_OPTION_MAX_KDF_TIME                                                                   \
	{                                                                                          \
		"max-kdf-time", required_argument, NULL, OPEN_MAX_KDF_TIME                         \
	}
#define OPEN_OPTION_HEADER(name, of)                                                               \
	{                                                                                          \
		name, required_argument, NULL, OPEN_HEADER | (of)                                  \
	}
#define OPEN_OPTION_TRUST(name, of)                                                                \
	{                                                                                          \
		name, required_argument, NULL, OPEN_TRUST | (of)                                   \
	}
#define OPEN_OPTION_ANSWER_TIMEOUT                                                                 \
	{                                                                                          \
		"answer-timeout", required_argument, NULL, OPEN_ANSWER_TIMEOUT                     \
	}
#define OPEN_OPTION_RECONNECT                                                                      \
	{                                                                                          \
		"reconnect", required_argument, NULL, OPEN_RECONNECT                               \
	}

/* Their lines for --help. */
#define OPEN_HELP_KEY_PART                                                                         \
	"  --key-fd N         the same, from descriptor N\n"                                       \
	"  --keyfile-offset N, --keyfile-size N\n"                                                 \
	"                     of that, pass over N bytes, and take no more than N\n"
#define OPEN_HELP_VOLUME_KEY                                                                       \
	"  --volume-key-file FILE\n"                                                               \
	"                     open it with the volume key itself, without a key slot\n"
#define OPEN_HELP_SLOT "  --slot N           try this key slot only\n"
#define OPEN_HELP_TOKEN                                                                            \
	"  --token N|any      open it without a passphrase: by one of its tokens, or any;\n"       \
	"                     by a key only where that fails\n"
#define OPEN_HELP_MAX_KDF_TIME                                                                     \
	"  --max-kdf-time SECONDS\n"                                                               \
	"                     how long deriving keys may take (default 120)\n"
#define OPEN_HELP_HEADER "  --header PATH      where a detached LUKS header is\n"
#define OPEN_HELP_TRUST                                                                            \
	"  --trust FILE       it has to be what it was when FILE was last written: see ndio trust\n"
#define OPEN_HELP_NO_LOCK                                                                          \
	"  --no-lock-image    write although another program has the file open for writing\n"
#define OPEN_HELP_ANSWER_TIMEOUT                                                                   \
	"  --answer-timeout SECONDS\n"                                                             \
	"                     a server that is silent for so long is lost (default 30)\n"

/* Where their values go; NULL where a command has no such option. */
struct open_options {
	struct key_source *key;
	struct unlock_options *how;
	const char **header;
	unsigned *answer_timeout;
	const char *twice; /* what to say of a second key */
	unsigned *reconnect;
};

/* Takes one of them. NULL, or what is wrong. */
const char *open_option(const struct open_options *to, int option, const char *value);

#endif
