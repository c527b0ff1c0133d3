#include "volumes.h"

#include <endian.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* The LUKS2 on-disk format's binary header, in bytes; JSON fills the rest of hdr_size. */
#define HDR_SIZE_AT 8
#define CSUM_AT     448
#define CSUM_LEN    64
#define BINARY_LEN  4096

static char folder[4096];

static const char *path_of(const char *name)
{
	static char path[sizeof(folder) + 256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

int volumes_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(folder, sizeof(folder), "%s/ndio-volumes-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(folder))
		return -1;
	volume_write("pass", VOLUME_PASSPHRASE, strlen(VOLUME_PASSPHRASE));
	return 0;
}

int volumes_teardown(void **state)
{
	char *command;
	int ret;

	(void)state;
	if (asprintf(&command, "rm -rf '%s'", folder) < 0)
		return -1;
	ret = system(command);
	free(command);
	return ret ? -1 : 0;
}

void volumes_run(const char *fmt, ...)
{
	char line[1024], *command;
	va_list args;
	int ret;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	assert_true(asprintf(&command, "cd '%s' && (%s) >log 2>&1", folder, line) > 0);
	ret = system(command);
	free(command);
	if (ret) {
		size_t len;
		char *log = volume_read("log", &len);

		fail_msg("%s: status %d: %.*s", line, ret, (int)len, log);
	}
}

void volume_format(const char *name, unsigned mib, const char *options)
{
	volumes_run("rm -f %s && truncate -s %uM %s && cryptsetup luksFormat -q --pbkdf pbkdf2 "
		    "--pbkdf-force-iterations 1000 %s %s pass",
		    name, mib, name, options, name);
}

void *volume_read(const char *name, size_t *len)
{
	int fd = open(path_of(name), O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *content;

	assert_true(fd >= 0 && !fstat(fd, &st));
	content = malloc(st.st_size + 1);
	assert_non_null(content);
	assert_int_equal(read(fd, content, st.st_size), st.st_size);
	close(fd);
	*len = st.st_size;
	return content;
}

static void write_at(const char *name, int flags, uint64_t offset, const void *bytes, size_t len)
{
	int fd = open(path_of(name), O_WRONLY | O_CLOEXEC | flags, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, offset), len);
	close(fd);
}

void volume_write(const char *name, const void *content, size_t len)
{
	write_at(name, O_CREAT | O_TRUNC, 0, content, len);
}

void volume_overwrite(const char *name, uint64_t offset, const void *bytes, size_t len)
{
	write_at(name, 0, offset, bytes, len);
}

void volume_zero(const char *name, uint64_t offset, size_t len)
{
	void *zeroes = calloc(1, len);

	assert_non_null(zeroes);
	volume_overwrite(name, offset, zeroes, len);
	free(zeroes);
}

static void json_replace(char *json, size_t room, const char *text, const char *replacement)
{
	char *at = strstr(json, text);
	size_t tail;

	assert_non_null(at);
	tail = strlen(at + strlen(text)) + 1;
	assert_true(at - json + strlen(replacement) + tail <= room);
	memmove(at + strlen(replacement), at + strlen(text), tail);
	memcpy(at, replacement, strlen(replacement));
	/* Behind a shorter text there is nothing left of the old one. */
	memset(json + strlen(json), 0, room - strlen(json));
}

static void copy_edit(char *copy, size_t size, const char *text, const char *replacement)
{
	unsigned char digest[32];

	json_replace(copy + BINARY_LEN, size - BINARY_LEN, text, replacement);
	memset(copy + CSUM_AT, 0, CSUM_LEN);
	assert_true(EVP_Q_digest(NULL, "SHA256", NULL, copy, size, digest, NULL));
	memcpy(copy + CSUM_AT, digest, sizeof(digest));
}

void volume_edit(const char *name, const char *text, const char *replacement)
{
	size_t len;
	char *content = volume_read(name, &len);
	uint64_t size;

	memcpy(&size, content + HDR_SIZE_AT, sizeof(size));
	size = be64toh(size);
	assert_true(size > BINARY_LEN && 2 * size <= len);
	copy_edit(content, size, text, replacement);
	copy_edit(content + size, size, text, replacement);
	volume_overwrite(name, 0, content, 2 * size);
	free(content);
}
