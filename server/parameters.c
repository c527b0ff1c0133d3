/* parameters: what the user asks of the plugin, KEY=VALUE each.
 *
 * A table has them all: a new one is a row there, a line of the help, and its paragraph in the
 * manual. nbdkit hands them over one by one, in the order of its command line, and says when that
 * was all: what depends on others is looked at then. Nothing is opened here but the key file.
 *
 * All of it happens before the fork, in nbdkit's main thread; afterwards config is only read. */
#include "parameters.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "key.h"
#include "locator/locator.h"
#include "locator/same.h"
#include "report.h"

struct config config = {
	.open = { .connections = 4, .reconnect = NBD_RECONNECT, .slot = LUKS_ANY_SLOT },
	.lock_image = 1,
	.discard = -1,
};

/* ---- kinds of parameters ---- */

enum disk { ANY, FILE_ONLY, SERVER_ONLY };

struct parameter {
	const char *name;
	enum disk disk; /* beside another one it would be passed over */
	int (*take)(const struct parameter *parameter, const char *value); /* as nbdkit's config */
	void *into;                                                        /* in config */
	int64_t min, max;                                                  /* of a number */
};

static int take_path(const struct parameter *parameter, const char *value)
{
	const char **path = parameter->into;
	struct error err;

	if (*path)
		return FAIL("%s= can be given only once", parameter->name);
	if (locator_is_uri(value))
		return FAIL("%s: %s= takes a path; a server's export is uri=URI", value,
			    parameter->name);
	if (locator_kind(value, &err) < 0)
		return FAIL("%s", err.text);
	*path = nbdkit_absolute_path(value);
	return *path ? 0 : -1;
}

static int take_uri(const struct parameter *parameter, const char *value)
{
	const char **uri = parameter->into;
	struct error err;

	if (*uri)
		return FAIL("uri= can be given only once");
	*uri = value;
	if (locator_is_uri(value))
		return 0;
	if (strncasecmp(value, "nbd", 3) == 0 && locator_kind(value, &err) < 0)
		return FAIL("uri=%s", err.text);
	return FAIL("uri=%s: not an NBD URI (nbd://, nbds://, nbd+unix://, ...)", value);
}

static int check_range(const struct parameter *parameter, const char *value, int64_t number)
{
	if (number >= parameter->min && number <= parameter->max)
		return 0;
	if (parameter->max >= UINT_MAX)
		return FAIL("%s=%s: must be at least %" PRIi64, parameter->name, value,
			    parameter->min);
	return FAIL("%s=%s: must be from %" PRIi64 " to %" PRIi64, parameter->name, value,
		    parameter->min, parameter->max);
}

static int take_count(const struct parameter *parameter, const char *value)
{
	unsigned *number = parameter->into;

	return nbdkit_parse_unsigned(parameter->name, value, number) < 0 ?
		       -1 :
		       check_range(parameter, value, *number);
}

static int take_size(const struct parameter *parameter, const char *value)
{
	int64_t size = nbdkit_parse_size(value);

	*(uint64_t *)parameter->into = size;
	return size < 0 ? -1 : check_range(parameter, value, size);
}

static int take_switch(const struct parameter *parameter, const char *value)
{
	int *on = parameter->into;

	*on = nbdkit_parse_bool(value);
	return *on < 0 ? -1 : 0;
}

static int take_key_slot(const struct parameter *parameter, const char *value)
{
	int *slot = parameter->into;

	return nbdkit_parse_int(parameter->name, value, slot) < 0 ?
		       -1 :
		       check_range(parameter, value, *slot);
}

static int take_token(const struct parameter *parameter, const char *value)
{
	int *number = parameter->into;

	config.open.by_tokens = true;
	*number = LUKS_ANY_TOKEN;
	return strcmp(value, "any") == 0 ? 0 : take_key_slot(parameter, value);
}

static int take_direct(const struct parameter *parameter, const char *value)
{
	return direct_mode_parse(value, parameter->into) ?
		       0 :
		       FAIL("direct=%s: must be auto, on or off", value);
}

static int take_text(const struct parameter *parameter, const char *value)
{
	*(const char **)parameter->into = value;
	return 0;
}

static int take_key(const struct parameter *parameter, const char *value)
{
	if (config.open.unlock)
		return FAIL("passphrase=, keyfile= and ask= can be given only once, and only one");
	config.open.unlock = true;
	return take_text(parameter, value);
}

/* ---- all of them ---- */

static const struct parameter table[] = {
	{ "file", ANY, take_path, &config.open.file, 0, 0 },
	{ "uri", ANY, take_uri, &config.open.uri, 0, 0 },
	{ "connections", SERVER_ONLY, take_count, &config.open.connections, 1, 64 },
	{ "answer", SERVER_ONLY, take_count, &config.open.answer_timeout, 1,
	  NBD_ANSWER_TIMEOUT_MAX },
	{ "reconnect", SERVER_ONLY, take_count, &config.open.reconnect, 0, NBD_ANSWER_TIMEOUT_MAX },
	{ "unflushed", SERVER_ONLY, take_size, &config.open.unflushed, TARGET_UNFLUSHED_MIN,
	  INT64_MAX },
	{ "wait", SERVER_ONLY, take_count, &config.open.wait, 0, NBD_ANSWER_TIMEOUT_MAX },
	{ "passphrase", ANY, take_key, &config.passphrase, 0, 0 },
	{ "ask", ANY, take_key, &config.ask, 0, 0 },
	{ "keyfile", ANY, take_key, &config.keyfile, 0, 0 },
	{ "keyfile-offset", ANY, take_size, &config.keyfile_part.offset, 0, INT64_MAX },
	{ "keyfile-size", ANY, take_size, &config.keyfile_part.size, 0, KEY_MAX },
	{ "header", ANY, take_path, &config.open.header, 0, 0 },
	{ "trust", ANY, take_path, &config.open.trust, 0, 0 },
	{ "direct", FILE_ONLY, take_direct, &config.open.direct, 0, 0 },
	{ "slot", ANY, take_key_slot, &config.open.slot, 0, 31 },
	{ "token", ANY, take_token, &config.open.tokens.number, 0, LUKS_MAX_TOKEN },
	{ "max-kdf-time", ANY, take_count, &config.open.max_kdf_time, 1, UINT_MAX },
	{ "discard", ANY, take_switch, &config.discard, 0, 0 },
	{ "integrity-cache", ANY, take_size, &config.open.integrity_cache, INTEGRITY_CACHE_MIN,
	  INT64_MAX },
	{ "pin", ANY, take_switch, &config.pin, 0, 0 },
	{ "lock", ANY, take_switch, &config.lock, 0, 0 },
	{ "metrics", ANY, take_text, &config.metrics, 0, 0 },
	{ "lock-image", FILE_ONLY, take_switch, &config.lock_image, 0, 0 },
};
#define NR_PARAMETERS (sizeof(table) / sizeof(table[0]))
static bool given[NR_PARAMETERS];

const char parameters_help[] =
	"[file=]<PATH>       The file or block device to serve; or else\n"
	"uri=<URI>           another NBD server's export.\n"
	"connections=<N>     To that server, if it allows several (default: 4).\n"
	"answer=<SECONDS>    A server that is silent for so long is lost (default: 30).\n"
	"reconnect=<SECONDS> One that is away is waited for so long (default: 60).\n"
	"unflushed=<SIZE>    What is kept for its return, at the most (default: 64M).\n"
	"wait=<SECONDS>      One that isn't there yet is waited for so long (default: 0).\n"
	"passphrase=<SECRET> Unlock it as LUKS; +FILE, -FD or - as usual.\n"
	"ask=<FD>            Unlock it with what a program sends that is asked.\n"
	"keyfile=<PATH>      Unlock it with all bytes of a file; -FD or - as well.\n"
	"keyfile-offset=<N>  But pass over so many bytes of it first,\n"
	"keyfile-size=<N>    and take no more than so many.\n"
	"header=<PATH>       A detached LUKS header.\n"
	"trust=<PATH>        What it was when it was last seen (see ndio-trust(1)).\n"
	"direct=auto|on|off  Direct I/O, past the page cache (default: auto).\n"
	"slot=<N>            The only key slot to try (default: any).\n"
	"token=<N>|any       Unlock it by one of its tokens, or by any.\n"
	"integrity-cache=<SIZE> Memory for tags of a disk with integrity (default: 32M).\n"
	"max-kdf-time=<SEC>  How long deriving keys may take (default: 120).\n"
	"discard=on|off      Pass trims of an encrypted disk on (default: as its header says).\n"
	"pin=on|off          Pin each request's buffer (default: off).\n"
	"lock=on|off         Lock the server's memory (default: off).\n"
	"metrics=<WHERE>     Statistics, at HOST:PORT, a Unix socket, or in a file, .prom.\n"
	"lock-image=on|off   Keep other writers off the file (default: on).\n"
	"Without a key the bytes are served as they are.";

int parameters_take(const char *name, const char *value)
{
	for (size_t i = 0; i < NR_PARAMETERS; i++)
		if (strcmp(name, table[i].name) == 0) {
			given[i] = true;
			return table[i].take(&table[i], value);
		}
	return FAIL("unknown parameter '%s'", name);
}

static int check_key_file(void)
{
	const char *passphrase = config.passphrase;
	const char *file = passphrase && passphrase[0] == '+' ? passphrase + 1 : config.keyfile;
	struct error err;

	return open_check_key_file(&config.open, file, &config.keyfile_part, &err) < 0 ?
		       FAIL("%s", err.text) :
		       0;
}

static int check_disks(void)
{
	for (size_t i = 0; i < NR_PARAMETERS; i++)
		if (given[i] && table[i].disk == (config.open.uri ? FILE_ONLY : SERVER_ONLY))
			return FAIL("%s= is for %s", table[i].name,
				    config.open.uri ? "a file or block device" :
						      "uri=, another server's export");
	return 0;
}

int parameters_complete(void)
{
	if (!config.open.file == !config.open.uri)
		return FAIL("you must give the disk, once: nbdkit ndio [file=]PATH, or uri=URI");
	config.open.unlock |= config.open.by_tokens;
	if ((config.open.header || config.open.trust) && !config.open.unlock)
		return FAIL("header= and trust= need passphrase=, keyfile=, ask= or token=");
	if ((config.keyfile_part.offset || config.keyfile_part.size) && !config.keyfile)
		return FAIL("keyfile-offset= and keyfile-size= need keyfile=");
	if (config.open.slot != LUKS_ANY_SLOT && !config.open.unlock)
		return FAIL("slot= needs passphrase=, keyfile=, ask= or token=");
	config.open.one_slot = config.open.slot != LUKS_ANY_SLOT;
	config.open.discard = config.discard == 1;
	config.open.no_discard = config.discard == 0;
	config.open.locking = !config.lock_image     ? LOCK_IMAGE_OFF :
			      host_looks_read_only() ? LOCK_IMAGE_LATER :
						       LOCK_IMAGE;
	/* Under a kernel device nothing may need memory that isn't there yet. */
	config.open.memory_ready = config.lock;
	config.open.notice = report_notice;
	return check_key_file() < 0 || check_disks() < 0 ? -1 : key_get();
}

void parameters_clear(void)
{
	key_forget();
	free((char *)config.open.file);
	free((char *)config.open.header);
	free((char *)config.open.trust);
}
