/* key-source: where the volume's key comes from: passphrase=, ask=, or keyfile= with its part.
 *
 * A passphrase is read as soon as its parameter comes, since nbdkit asks for it; a key file when
 * all parameters are known. Either way the key lies in locked memory (config.pass) until the volume
 * is unlocked, and core dumps are off before its first byte is read. Who is to be asked is asked by
 * asker, when the header has been checked.
 *
 * All of it happens before the fork, in nbdkit's main thread. */
#include "key-source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nbdkit-plugin.h>

#include "asker.h"
#include "locator/same.h"
#include "parameters.h"
#include "report.h"

static int key_given(void)
{
	if (config.have_key) {
		nbdkit_error("passphrase=, keyfile= and ask= can be given only once, and only one");
		return -1;
	}
	config.have_key = true;
	return 0;
}

int key_source_passphrase(const char *value)
{
	struct error err;
	char *password;
	int ret;

	if (key_given() < 0)
		return -1;
	secret_no_dumps();
	if (nbdkit_read_password(value, &password) < 0)
		return -1;
	ret = key_set(&config.pass, password, strlen(password), &err);
	OPENSSL_cleanse(password, strlen(password));
	free(password);
	if (ret < 0)
		nbdkit_error("%s", err.text);
	return ret < 0 ? -1 : 0;
}

int key_source_file(const char *value)
{
	config.keyfile = value;
	return key_given();
}

int key_source_ask(const char *value)
{
	struct error err;
	int fd;

	if (key_given() < 0 || nbdkit_parse_int("ask", value, &fd) < 0)
		return -1;
	if (asker_check(fd, &err) < 0) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	config.ask = fd;
	return 0;
}

int key_source_part(const char *key, uint64_t *number, int64_t max, const char *value)
{
	int64_t n = nbdkit_parse_size(value);

	if (n < 0)
		return -1;
	if (n > max) {
		nbdkit_error("%s=%s: must be at most %" PRIi64, key, value, max);
		return -1;
	}
	*number = n;
	return 0;
}

/* ---- the key file ---- */

/* "-" and "-FD" are descriptors, as with passphrase=. */
static int keyfile_descriptor(const char *value)
{
	unsigned fd = STDIN_FILENO;

	if (value[1] && nbdkit_parse_unsigned("keyfile=-FD", value + 1, &fd) < 0)
		return -1;
	if (fd == STDIN_FILENO && !nbdkit_stdio_safe()) {
		nbdkit_error("keyfile=-: standard input is the client's");
		return -1;
	}
	if (fd == STDOUT_FILENO || fd == STDERR_FILENO || fd > INT_MAX) {
		nbdkit_error("keyfile=%s: no descriptor that a key could come from", value);
		return -1;
	}
	return fd;
}

static int open_keyfile(const char *name, const char *path)
{
	const struct notice listener = { .tell = notice };
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	bool readable = false;
	struct error err;

	if (fd < 0) {
		nbdkit_error("%s: %s", name, strerror(errno));
		return -1;
	}
	if (key_file_look(fd, name, path, &readable, &err) < 0) {
		nbdkit_error("%s", err.text);
		close(fd);
		return -1;
	}
	if (readable)
		notice_tell(&listener, "warning: %s: others may read it", name);
	return fd;
}

/* All its bytes, or those that are asked for, as cryptsetup takes a key file. */
int key_source_read(void)
{
	const char *value = config.keyfile;
	char name[PATH_MAX + 16];
	struct error err;
	int fd, ret;

	snprintf(name, sizeof(name), "keyfile: %s", value);
	fd = value[0] == '-' ? keyfile_descriptor(value) : open_keyfile(name, value);
	if (fd < 0)
		return -1;
	secret_no_dumps();
	ret = key_file_read(fd, name, &config.keyfile_part, &config.pass, &err);
	if (ret < 0)
		nbdkit_error("%s", err.text);
	if (fd != STDIN_FILENO)
		close(fd);
	return ret < 0 ? -1 : 0;
}

/* The first write of a client would be to the key. */
int key_source_check(void)
{
	const struct same_part disk = { .locator = config.uri ? config.uri : config.file };
	const struct same_part key = {
		.locator = config.keyfile ? config.keyfile : config.passphrase_file,
		.offset = config.keyfile_part.offset,
		.size = config.keyfile_part.size,
	};

	if (!same_bytes(NULL, &disk, &key))
		return 0;
	nbdkit_error("%s and %s: the same, or one is on the other: the key file would be "
		     "overwritten", key.locator, disk.locator);
	return -1;
}
