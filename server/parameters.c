/* parameters: what the user asks of the plugin, KEY=VALUE each.
 *
 * nbdkit hands them over one by one, in the order of its command line, and says when that was all:
 * what depends on another one is looked at then. Nothing is opened here but the key file.
 *
 * All of it happens before the fork, in nbdkit's main thread; afterwards config is only read. */
#include "parameters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <nbdkit-plugin.h>

#include "key-source.h"
#include "locator/locator.h"

#define MAX_CONNECTIONS 64
#define MAX_SLOT 31

struct parameters config = {
	.connections = 4,
	.lock_image = true,
	.discard = -1,
	.slot = LUKS_ANY_SLOT,
	.ask = -1,
};

static int config_direct(const char *value)
{
	if (strcmp(value, "auto") == 0)
		config.direct = DIRECT_AUTO;
	else if (strcmp(value, "on") == 0)
		config.direct = DIRECT_ON;
	else if (strcmp(value, "off") == 0)
		config.direct = DIRECT_OFF;
	else {
		nbdkit_error("direct=%s: must be auto, on or off", value);
		return -1;
	}
	return 0;
}

static int config_bool(bool *flag, const char *value)
{
	int ret = nbdkit_parse_bool(value);

	if (ret >= 0)
		*flag = ret;
	return ret < 0 ? -1 : 0;
}

static int config_discard(const char *value)
{
	config.discard = nbdkit_parse_bool(value);
	return config.discard < 0 ? -1 : 0;
}

static int config_slot(const char *value)
{
	if (nbdkit_parse_int("slot", value, &config.slot) < 0)
		return -1;
	if (config.slot < 0 || config.slot > MAX_SLOT) {
		nbdkit_error("slot=%s: must be from 0 to %d", value, MAX_SLOT);
		return -1;
	}
	return 0;
}

static int config_max_kdf_time(const char *value)
{
	if (nbdkit_parse_unsigned("max-kdf-time", value, &config.max_kdf_time) < 0)
		return -1;
	if (config.max_kdf_time == 0) {
		nbdkit_error("max-kdf-time=%s: must be at least 1", value);
		return -1;
	}
	return 0;
}

static int config_path(const char *key, char **path, const char *value)
{
	struct error err;

	if (*path) {
		nbdkit_error("%s= can be given only once", key);
		return -1;
	}
	if (locator_is_uri(value)) {
		nbdkit_error("%s: %s= takes a path; a server's export is uri=URI", value, key);
		return -1;
	}
	if (locator_kind(value, &err) < 0) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	*path = nbdkit_absolute_path(value);
	return *path ? 0 : -1;
}

static int config_uri(const char *value)
{
	struct error err;

	if (config.uri) {
		nbdkit_error("uri= can be given only once");
		return -1;
	}
	if (!locator_is_uri(value)) {
		if (strncasecmp(value, "nbd", 3) == 0 && locator_kind(value, &err) < 0)
			nbdkit_error("uri=%s", err.text);
		else
			nbdkit_error("uri=%s: not an NBD URI (nbd://, nbds://, nbd+unix://, ...)",
				     value);
		return -1;
	}
	config.uri = value;
	return 0;
}

static int config_connections(const char *value)
{
	if (nbdkit_parse_unsigned("connections", value, &config.connections) < 0)
		return -1;
	if (config.connections < 1 || config.connections > MAX_CONNECTIONS) {
		nbdkit_error("connections=%s: must be from 1 to %d", value, MAX_CONNECTIONS);
		return -1;
	}
	return 0;
}

static int config_answer(const char *value)
{
	if (nbdkit_parse_unsigned("answer", value, &config.answer) < 0)
		return -1;
	if (config.answer < 1 || config.answer > NBD_ANSWER_TIMEOUT_MAX) {
		nbdkit_error("answer=%s: must be from 1 to %d", value, NBD_ANSWER_TIMEOUT_MAX);
		return -1;
	}
	return 0;
}

static int parameters_take_one(const char *key, const char *value)
{
	if (strcmp(key, "file") == 0)
		return config_path(key, &config.file, value);
	if (strcmp(key, "uri") == 0)
		return config_uri(value);
	if (strcmp(key, "connections") == 0)
		return config_connections(value);
	if (strcmp(key, "answer") == 0)
		return config_answer(value);
	if (strcmp(key, "header") == 0)
		return config_path(key, &config.header, value);
	if (strcmp(key, "passphrase") == 0) {
		config.passphrase_file = value[0] == '+' ? value + 1 : NULL;
		return key_source_passphrase(value);
	}
	if (strcmp(key, "keyfile") == 0)
		return key_source_file(value);
	if (strcmp(key, "ask") == 0)
		return key_source_ask(value);
	if (strcmp(key, "keyfile-offset") == 0)
		return key_source_part(key, &config.keyfile_part.offset, INT64_MAX, value);
	if (strcmp(key, "keyfile-size") == 0)
		return key_source_part(key, &config.keyfile_part.size, KEY_MAX, value);
	if (strcmp(key, "direct") == 0)
		return config_direct(value);
	if (strcmp(key, "discard") == 0)
		return config_discard(value);
	if (strcmp(key, "slot") == 0)
		return config_slot(value);
	if (strcmp(key, "max-kdf-time") == 0)
		return config_max_kdf_time(value);
	if (strcmp(key, "pin") == 0)
		return config_bool(&config.pin, value);
	if (strcmp(key, "lock") == 0)
		return config_bool(&config.lock, value);
	if (strcmp(key, "lock-image") == 0)
		return config_bool(&config.lock_image, value);
	nbdkit_error("unknown parameter '%s'", key);
	return -1;
}

/* Parameters that would be passed over beside, or without, another one. */
static const struct {
	const char *key;
	bool for_uri;
} one_sided[] = {
	{ "connections", true }, { "answer", true }, { "direct", false }, { "lock-image", false },
};
#define NR_ONE_SIDED (sizeof(one_sided) / sizeof(one_sided[0]))
static bool given[NR_ONE_SIDED];

int parameters_take(const char *key, const char *value)
{
	for (size_t i = 0; i < NR_ONE_SIDED; i++)
		given[i] = given[i] || strcmp(key, one_sided[i].key) == 0;
	return parameters_take_one(key, value);
}

static int check_one_sided(void)
{
	for (size_t i = 0; i < NR_ONE_SIDED; i++)
		if (given[i] && one_sided[i].for_uri != !!config.uri) {
			nbdkit_error("%s= is for %s", one_sided[i].key, one_sided[i].for_uri ?
				     "uri=, another server's export" : "a file or block device");
			return -1;
		}
	return 0;
}

int parameters_complete(void)
{
	if (!config.file == !config.uri) {
		nbdkit_error("you must give the disk, once: nbdkit ndio [file=]PATH, or uri=URI");
		return -1;
	}
	if (config.header && !config.have_key) {
		nbdkit_error("header= needs passphrase=, keyfile= or ask=");
		return -1;
	}
	if ((config.keyfile_part.offset || config.keyfile_part.size) && !config.keyfile) {
		nbdkit_error("keyfile-offset= and keyfile-size= need keyfile=");
		return -1;
	}
	if (config.slot != LUKS_ANY_SLOT && !config.have_key) {
		nbdkit_error("slot= needs passphrase=, keyfile= or ask=");
		return -1;
	}
	if (key_source_check() < 0 || check_one_sided() < 0)
		return -1;
	return config.keyfile ? key_source_read() : 0;
}

const char parameters_help[] =
	"[file=]<PATH>       The file or block device to serve; or else\n"
	"uri=<URI>           another NBD server's export.\n"
	"connections=<N>     To that server, if it allows several (default: 4).\n"
	"answer=<SECONDS>    A server that is silent for so long is lost (default: 30).\n"
	"passphrase=<SECRET> Unlock it as LUKS; +FILE, -FD or - as usual.\n"
	"ask=<FD>            Unlock it with what a program sends that is asked.\n"
	"keyfile=<PATH>      Unlock it with all bytes of a file; -FD or - as well.\n"
	"keyfile-offset=<N>  But pass over so many bytes of it first,\n"
	"keyfile-size=<N>    and take no more than so many.\n"
	"header=<PATH>       A detached LUKS header.\n"
	"direct=auto|on|off  Direct I/O, past the page cache (default: auto).\n"
	"slot=<N>            The only key slot to try (default: any).\n"
	"max-kdf-time=<SEC>  How long deriving keys may take (default: 120).\n"
	"discard=on|off      Pass trims of an encrypted disk on (default: as its header says).\n"
	"pin=on|off          Pin each request's buffer (default: off).\n"
	"lock=on|off         Lock the server's memory (default: off).\n"
	"lock-image=on|off   Keep other writers off the file (default: on).\n"
	"Without a key the bytes are served as they are.";

void parameters_clear(void)
{
	key_clear(&config.pass);
	free(config.file);
	free(config.header);
}
