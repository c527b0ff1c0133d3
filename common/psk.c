#include "psk.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "secret.h"

int psk_check_mode(int fd, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return error_set(err, EISDIR, "%s: %s", path, strerror(EISDIR));
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return error_set(err, EACCES, "%s: a secret key that others may read or change: "
				 "chmod 600 %s", path, path);
	return 0;
}

/* ---- lines ---- */

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool is_hex(const char *hex, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (nibble(hex[i]) < 0)
			return false;
	return len % 2 == 0;
}

static int make_key(struct psk *psk, const char *hex, size_t len, struct error *err)
{
	psk->key = secret_alloc(PSK_KEY_MAX, err);
	if (!psk->key)
		return -ENOMEM;
	psk->key_len = len / 2;
	for (size_t i = 0; i < psk->key_len; i++)
		psk->key[i] = nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]);
	return 0;
}

/* A line without its newline. Whoever has a key already keeps it: the first one counts. */
static int take_line(struct psk *psk, const char *line, size_t len, struct error *err)
{
	const char *colon = memchr(line, ':', len);
	size_t user_len = colon ? colon - line : 0;
	size_t hex_len = len - user_len - 1;

	if (len == 0 || line[0] == '#')
		return 0;
	if (user_len == 0)
		return error_set(err, EINVAL, "not USER:KEY");
	if (!is_hex(colon + 1, hex_len))
		return error_set(err, EINVAL, "the key isn't whole bytes in hexadecimal");
	if (hex_len / 2 < PSK_KEY_MIN || hex_len / 2 > PSK_KEY_MAX)
		return error_set(err, EINVAL, "the key has %zu bytes, and must have %d to %d",
				 hex_len / 2, PSK_KEY_MIN, PSK_KEY_MAX);
	if (psk->key || user_len != strlen(psk->user) || memcmp(line, psk->user, user_len) != 0)
		return 0;
	return make_key(psk, colon + 1, hex_len, err);
}

static int take_lines(struct psk *psk, const char *text, size_t len, const char *path,
		      struct error *err)
{
	const char *end = text + len;

	for (unsigned number = 1; text < end; number++) {
		const char *newline = memchr(text, '\n', end - text);
		size_t line_len = (newline ? newline : end) - text;
		struct error own = { 0 };
		int ret = take_line(psk, text, line_len, &own);

		if (ret < 0)
			return error_set(err, -ret, "%s: line %u: %s", path, number, own.text);
		text += line_len + 1;
	}
	return 0;
}

/* ---- files ---- */

static ssize_t read_all(int fd, char *text, size_t size)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = read(fd, text + len, size - len);
		if (n > 0)
			len += n;
	} while (len < size && (n > 0 || (n < 0 && errno == EINTR)));
	return n < 0 ? -errno : (ssize_t)len;
}

static int read_file(int fd, const char *path, struct psk *psk, struct error *err)
{
	char *text = secret_alloc(PSK_FILE_MAX, err);
	ssize_t len;
	int ret;

	if (!text)
		return -ENOMEM;
	len = read_all(fd, text, PSK_FILE_MAX);
	if (len < 0)
		ret = error_set(err, -len, "%s: %s", path, strerror(-len));
	else if (len == PSK_FILE_MAX)
		ret = error_set(err, EFBIG, "%s: a key file has less than %d bytes", path,
				PSK_FILE_MAX);
	else
		ret = take_lines(psk, text, len, path, err);
	secret_free(text, PSK_FILE_MAX);
	return ret;
}

int psk_read(int fd, const char *path, const char *user, struct psk *psk, struct error *err)
{
	int ret;

	memset(psk, 0, sizeof(*psk));
	psk->user = strdup(user);
	if (!psk->user)
		return error_set(err, ENOMEM, "%s: no memory", path);
	ret = read_file(fd, path, psk, err);
	if (ret == 0 && !psk->key)
		ret = error_set(err, ENOENT, "%s: it has no key of \"%s\"", path, user);
	return ret;
}

static int own_name(char *name, size_t size, struct error *err)
{
	struct passwd entry, *found = NULL;

	getpwuid_r(geteuid(), &entry, name, size, &found);
	if (!found)
		return error_set(err, EINVAL, "whose key? This user has no name: "
				 "write nbds://USER@...");
	memmove(name, found->pw_name, strlen(found->pw_name) + 1);
	return 0;
}

int psk_find(const char *path, const char *user, struct psk *psk, struct error *err)
{
	char name[4096];
	int fd, ret = 0;

	memset(psk, 0, sizeof(*psk));
	if (!user) {
		ret = own_name(name, sizeof(name), err);
		user = name;
	}
	if (ret < 0)
		return ret;
	if (strlen(user) > PSK_USER_MAX)
		return error_set(err, EINVAL, "a user's name has at most %d bytes", PSK_USER_MAX);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	ret = psk_check_mode(fd, path, err);
	if (ret == 0)
		ret = psk_read(fd, path, user, psk, err);
	close(fd);
	return ret;
}

void psk_clear(struct psk *psk)
{
	free(psk->user);
	secret_free(psk->key, PSK_KEY_MAX);
	memset(psk, 0, sizeof(*psk));
}
