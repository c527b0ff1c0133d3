/* key: the volume's key, from passphrase=, keyfile= or ask=.
 *
 * It is read once all parameters are known and go together, so that nobody is asked in vain, and lies
 * in locked memory until the volume is unlocked; core dumps are off before its first byte comes. Only
 * another program, which asks somebody for it (ask=), is asked later, when the header has been checked.
 *
 * All of it happens before the fork, in nbdkit's main thread. */
#include "key.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/ask.h"
#include "parameters.h"
#include "report.h"

static struct key key;     /* until the volume is open */
static struct asker asker; /* if config.open.asker is set */

static int read_passphrase(void)
{
	struct error err;
	char *password;
	int ret;

	if (nbdkit_read_password(config.passphrase, &password) < 0)
		return -1;
	ret = key_set(&key, password, strlen(password), &err);
	OPENSSL_cleanse(password, strlen(password));
	free(password);
	return ret < 0 ? FAIL("%s", err.text) : 0;
}

/* "-" and "-FD" are descriptors, as with passphrase=. */
static int keyfile_descriptor(const char *value)
{
	unsigned fd = STDIN_FILENO;

	if (value[1] && nbdkit_parse_unsigned("keyfile=-FD", value + 1, &fd) < 0)
		return -1;
	if (fd == STDIN_FILENO && !nbdkit_stdio_safe())
		return FAIL("keyfile=-: standard input is the client's");
	if (fd == STDOUT_FILENO || fd == STDERR_FILENO || fd > INT_MAX)
		return FAIL("keyfile=%s: no descriptor that a key could come from", value);
	return fd;
}

/* All its bytes, or those that are asked for, as cryptsetup takes a key file. */
static int read_keyfile(void)
{
	const char *value = config.keyfile;
	bool is_path = value[0] != '-', readable = false;
	int fd = is_path ? STDIN_FILENO : keyfile_descriptor(value), ret;
	char name[PATH_MAX + 16];
	struct error err;

	if (fd < 0)
		return -1;
	snprintf(name, sizeof(name), "keyfile: %s", value);
	if (is_path)
		ret = key_file_load(value, name, &config.keyfile_part, &readable, &key, &err);
	else
		ret = key_file_read(fd, name, &config.keyfile_part, &key, &err);
	if (fd != STDIN_FILENO)
		close(fd);
	if (readable)
		notice_tell(&report_notice, "warning: %s: others may read it", name);
	return ret < 0 ? FAIL("%s", err.text) : 0;
}

/* It is closed in what is run from now on. */
static int open_asker(void)
{
	static const struct luks_asker luks_asker = { .ask = ask_key, .opaque = &asker };
	struct error err;

	if (nbdkit_parse_int("ask", config.ask, &asker.fd) < 0)
		return -1;
	snprintf(asker.name, sizeof(asker.name), "ask=%d", asker.fd);
	if (ask_take(&asker, &err) < 0)
		return FAIL("%s", err.text);
	config.open.asker = &luks_asker;
	config.open.tokens.pin = ask_pin;
	config.open.tokens.opaque = &asker;
	return 0;
}

int key_get(void)
{
	int ret;

	if (!config.open.unlock)
		return 0;
	secret_no_dumps();
	if (config.ask)
		return open_asker();
	if (!config.keyfile && !config.passphrase)
		return 0; /* by tokens alone */
	ret = config.keyfile ? read_keyfile() : read_passphrase();
	config.open.pass = key.data;
	config.open.pass_len = key.len;
	return ret;
}

void key_forget(void)
{
	key_clear(&key);
	config.open.pass = NULL;
	config.open.pass_len = 0;
	if (config.open.asker)
		close(asker.fd);
	config.open.asker = NULL;
}
