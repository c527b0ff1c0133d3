/* psk: a key is secret, and so is every line of the file. What was read of it lies in locked memory,
 * a few KiB at a time, and is cleansed. All lines are looked at, up to the key that is asked for and
 * behind it: a file that makes no sense is told however far the key is. */
#include "tls/psk.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/key-file.h"
#include "memory/secret.h"

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

/* ---- files ---- */

/* A file that is being read: no more of it is in memory, which is locked, than a line. */
struct reader {
	int fd;
	const char *path;
	char *text;      /* READER_SIZE bytes, from secret_alloc() */
	size_t len;      /* bytes of text that are there and not taken */
	size_t total;    /* bytes read */
	unsigned number; /* of the next line */
	bool passing;    /* over the rest of a comment that is longer than text */
};
#define READER_SIZE 4096

/* 1, or 0 at the end. */
static int read_more(struct reader *reader, struct error *err)
{
	ssize_t n;

	do {
		n = read(reader->fd, reader->text + reader->len, READER_SIZE - reader->len);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_set(err, errno, "%s: %s", reader->path, strerror(errno));
	reader->len += n;
	reader->total += n;
	if (reader->total >= PSK_FILE_MAX)
		return error_set(err, EFBIG, "%s: a key file has less than %d bytes", reader->path,
				 PSK_FILE_MAX);
	return n > 0;
}

/* Takes the lines that are whole, or, at the end of the file, all. */
static int take_lines(struct reader *reader, struct psk *psk, bool end, struct error *err)
{
	const char *text = reader->text, *newline;
	size_t left = reader->len, len;
	struct error own = { 0 };
	int ret = 0;

	while (left > 0) {
		newline = memchr(text, '\n', left);
		if (!newline && !end && left < READER_SIZE)
			break;
		len = newline ? (size_t)(newline - text) : left;
		if (!newline && !end && (text[0] == '#' || reader->passing))
			reader->passing = true;
		else if (reader->passing)
			reader->passing = false;
		else
			ret = take_line(psk, text, len, &own);
		if (ret < 0)
			return error_set(err, -ret, "%s: line %u: %s", reader->path, reader->number,
					 own.text);
		reader->number += newline != NULL;
		len += newline != NULL;
		text += len;
		left -= len;
	}
	memmove(reader->text, text, left);
	reader->len = left;
	return 0;
}

static int read_psk_file(int fd, const char *path, struct psk *psk, struct error *err)
{
	struct reader reader = { .fd = fd, .path = path, .number = 1 };
	int more = 1, ret = 0;

	reader.text = secret_alloc(READER_SIZE, err);
	if (!reader.text)
		return -ENOMEM;
	while (ret == 0 && more > 0) {
		more = read_more(&reader, err);
		ret = more < 0 ? more : take_lines(&reader, psk, more == 0, err);
	}
	secret_free(reader.text, READER_SIZE);
	return ret;
}

int psk_read(int fd, const char *path, const char *user, struct psk *psk, struct error *err)
{
	int ret;

	memset(psk, 0, sizeof(*psk));
	psk->user = strdup(user);
	if (!psk->user)
		return error_set(err, ENOMEM, "%s: no memory", path);
	ret = read_psk_file(fd, path, psk, err);
	if (ret == 0 && !psk->key)
		ret = error_set(err, ENOENT, "%s: it has no key of \"%s\"", path, user);
	return ret;
}

static int own_name(char *name, size_t size, struct error *err)
{
	struct passwd entry, *found = NULL;

	getpwuid_r(geteuid(), &entry, name, size, &found);
	if (!found)
		return error_set(err, EINVAL,
				 "whose key? This user has no name: "
				 "write nbds://USER@...");
	memmove(name, found->pw_name, strlen(found->pw_name) + 1);
	return 0;
}

/* Who may read it matters once it is known to be what it should be: nobody is told to change the
 * mode of another file, such as /etc/passwd. */
static int find_key(int fd, const char *path, const char *user, struct psk *psk, struct error *err)
{
	int ret = psk_read(fd, path, user, psk, err);
	int mode = ret == 0 || ret == -ENOENT ? key_file_check(fd, path, err) : 0;

	return mode < 0 ? mode : ret;
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
	ret = find_key(fd, path, user, psk, err);
	close(fd);
	return ret;
}

void psk_clear(struct psk *psk)
{
	free(psk->user);
	secret_free(psk->key, PSK_KEY_MAX);
	memset(psk, 0, sizeof(*psk));
}
