/* cmd-psk: ndio psk, see ndio-psk(1). */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/cmd.h"
#include "memory/key-file.h"
#include "memory/secret.h"
#include "tls/psk.h"

#define KEY_LEN   32 /* bytes, psktool's default */
#define LINE_SIZE (1 + PSK_USER_MAX + 1 + 2 * KEY_LEN + 1)

const char help_psk[] =
	"Usage: ndio psk FILE USER\n"
	"Make a random key for TLS and add it to a file of pre-shared keys, which is made if it\n"
	"isn't there. Both sides need a copy: nbdkit takes it by its option tls-psk, a client as\n"
	"nbds://USER@SERVER/?tls-psk-file=FILE.\n"
	"\n"
	"  -h, --help   show this\n"
	"\n"
	"See ndio-psk(1).\n";

/* ---- the file ---- */

/* No link is followed, so that nobody who may write to the folder can send the key elsewhere. */
static int open_keys(const char *path, struct error *err)
{
	int fd = open(path,
		      O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
		      0600);

	if (fd < 0 && errno == ELOOP)
		return error_set(err, ELOOP, "%s: a symbolic link isn't followed", path);
	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	return fd;
}

static int check_file(int fd, const char *path, struct stat *st, struct error *err)
{
	if (fstat(fd, st) < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st->st_mode))
		return error_set(err, EINVAL, "%s: not a file", path);
	return 0;
}

static int check_owner(int fd, const char *path, const struct stat *st, struct error *err)
{
	if (st->st_uid != geteuid())
		return error_set(err, EACCES,
				 "%s: it belongs to another user, who could read the "
				 "key",
				 path);
	return key_file_check(fd, path, err);
}

/* Every line must make sense, and none be this user's. */
static int check_content(int fd, const char *path, const char *user, struct error *err)
{
	struct psk psk;
	int ret = psk_read(fd, path, user, &psk, err);

	psk_clear(&psk);
	if (ret == 0)
		return error_set(err, EEXIST,
				 "%s: it has a key of \"%s\" already: for another one, "
				 "take that line away",
				 path, user);
	return ret == -ENOENT ? 0 : ret;
}

static bool ends_in_newline(int fd, const struct stat *st)
{
	char last = '\n';

	return st->st_size == 0 || (pread(fd, &last, 1, st->st_size - 1) == 1 && last == '\n');
}

/* All of it, or none: half a line would make the file useless. */
static int psk_append(int fd, const char *path, const struct stat *before, const char *line,
		      size_t len, struct error *err)
{
	ssize_t n;
	int errnum;

	if (before->st_size + len >= PSK_FILE_MAX)
		return error_set(err, EFBIG,
				 "%s: a key file has less than %d bytes: take lines away, "
				 "or begin another",
				 path, PSK_FILE_MAX);
	n = write(fd, line, len);
	errnum = n < 0 ? errno : n != (ssize_t)len ? ENOSPC : 0;
	if (errnum == 0 && fsync(fd) < 0)
		errnum = errno;
	if (errnum == 0)
		return 0;
	if (ftruncate(fd, before->st_size) < 0)
		return error_set(err, errnum, "%s: %s, and its last line is damaged", path,
				 strerror(errnum));
	return error_set(err, errnum, "%s: %s", path, strerror(errnum));
}

/* ---- the key ---- */

/* "USER:HEX\n" of a new key. Its length, or a negative errno. */
static int make_line(char *line, const char *user, struct error *err)
{
	uint8_t *key = secret_alloc(KEY_LEN, err);
	size_t len = strlen(user);
	int ret = -ENOMEM;

	if (!key)
		return ret;
	if (RAND_priv_bytes(key, KEY_LEN) == 1) {
		memcpy(line, user, len);
		line[len++] = ':';
		for (size_t i = 0; i < KEY_LEN; i++)
			len += sprintf(line + len, "%02x", key[i]);
		line[len++] = '\n';
		ret = len;
	} else {
		ret = error_set(err, EIO, "no random numbers to be had for a key");
	}
	secret_free(key, KEY_LEN);
	return ret;
}

static int psk_add(int fd, const char *path, const char *user, struct error *err)
{
	char *line = secret_alloc(LINE_SIZE, err);
	struct stat st;
	size_t lead;
	int ret;

	if (!line)
		return -ENOMEM;
	ret = check_file(fd, path, &st, err);
	if (ret == 0)
		ret = check_content(fd, path, user, err);
	if (ret == 0)
		ret = check_owner(fd, path, &st, err);
	if (ret == 0) {
		lead = !ends_in_newline(fd, &st);
		line[0] = '\n';
		ret = make_line(line + lead, user, err);
		if (ret > 0)
			ret = psk_append(fd, path, &st, line, lead + ret, err);
	}
	secret_free(line, LINE_SIZE);
	return ret;
}

static int make_psk(const char *path, const char *user)
{
	struct error err = { 0 };
	int fd, ret;

	secret_no_dumps();
	fd = open_keys(path, &err);
	ret = fd;
	if (fd >= 0) {
		while ((ret = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
			;
		ret = ret < 0 ?
			      error_set(&err, errno, "%s: locking it: %s", path, strerror(errno)) :
			      psk_add(fd, path, user, &err);
		close(fd);
	}
	return ret < 0 ? cmd_error("%s", err.text) : CMD_OK;
}

/* ---- the command line ---- */

static bool is_user(const char *user)
{
	size_t len = strlen(user);

	if (len == 0 || len > PSK_USER_MAX || user[0] == '#')
		return false;
	for (size_t i = 0; i < len; i++)
		if (iscntrl((unsigned char)user[i]) || user[i] == ':')
			return false;
	return true;
}

static const struct option options[] = { CMD_OPTIONS_END };

int cmd_psk(int argc, char **argv)
{
	int status = cmd_options(argc, argv, help_psk, options, NULL, NULL);

	if (status != CMD_GO_ON)
		return status;
	if (argc - optind != 2 || !*argv[optind])
		return cmd_usage(argv[0], "it takes a file and a user");
	if (!is_user(argv[optind + 1]))
		return cmd_usage(argv[0],
				 "a user's name has 1 to %d characters, none of them a colon "
				 "or a control character, and no # at the start",
				 PSK_USER_MAX);
	return make_psk(argv[optind], argv[optind + 1]);
}
