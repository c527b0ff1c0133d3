#include "locator/locator.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyz"
#define OURS    "nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH"

bool locator_is_uri(const char *locator)
{
	size_t len = strspn(locator, LETTERS "+-.");

	return strncmp(locator, "nbd", 3) == 0 && strncmp(locator + len, "://", 3) == 0;
}

/* Of the scheme that it starts with (RFC 3986, 3.1), 0 if there is none. One letter is no scheme:
 * none has been registered. */
static size_t scheme_len(const char *locator)
{
	size_t len = 0;

	if (isalpha((unsigned char)locator[0]))
		while (isalnum((unsigned char)locator[len]) ||
		       (locator[len] && strchr("+-.", locator[len])))
			len++;
	return len > 1 && locator[len] == ':' ? len : 0;
}

/* What qemu's nbd:HOST:PORT and nbd:unix:PATH, both perhaps with :exportname=NAME, are here. */
static int refuse_qemu_form(const char *locator, struct error *err)
{
	static const char mark[] = ":exportname=";
	const char *server = locator + strlen("nbd:");
	const char *mark_at = strstr(server, mark);
	const char *name = mark_at ? mark_at + strlen(mark) : "";
	int len = mark_at ? mark_at - server : (int)strlen(server);

	if (strncmp(server, "unix:", 5) == 0)
		return error_set(err, EINVAL,
				 "%s: not an NBD URI: write nbd+unix:///%s?socket=%.*s", locator,
				 name, len - 5, server + 5);
	return error_set(err, EINVAL, "%s: not an NBD URI: write nbd://%.*s/%s", locator, len,
			 server, name);
}

static bool is_nbd(const char *locator, size_t scheme)
{
	size_t nbd = strncasecmp(locator, "nbds", 4) == 0 ? 4 : 3;

	return strncasecmp(locator, "nbd", 3) == 0 && (nbd == scheme || locator[nbd] == '+');
}

static int refuse_nbd(const char *locator, size_t scheme, struct error *err)
{
	char lower[16];

	if (locator[scheme + 1] != '/' && strncasecmp(locator, "nbd:", 4) == 0 &&
	    strchr(locator + scheme + 1, ':'))
		return refuse_qemu_form(locator, err);
	if (strncmp(locator + scheme, "://", 3) != 0 || scheme >= sizeof(lower))
		return error_set(err, EINVAL, "%s: not an NBD URI: write " OURS, locator);
	for (size_t i = 0; i < scheme; i++)
		lower[i] = tolower((unsigned char)locator[i]);
	lower[scheme] = '\0';
	return error_set(err, EINVAL, "%s: an NBD URI starts in lower case: write %s%s", locator,
			 lower, locator + scheme);
}

int locator_kind(const char *locator, struct error *err)
{
	size_t scheme = scheme_len(locator);
	struct stat st;

	if (!*locator)
		return error_set(err, EINVAL, "an empty name: a disk is a path or an NBD URI");
	if (locator_is_uri(locator))
		return LOCATOR_URI;
	if (scheme == 0)
		return LOCATOR_PATH;
	if (is_nbd(locator, scheme))
		return refuse_nbd(locator, scheme, err);
	if (strncmp(locator + scheme, "://", 3) != 0 && lstat(locator, &st) == 0)
		return LOCATOR_PATH;
	if (strncasecmp(locator, "file:", 5) == 0)
		return error_set(err, EINVAL, "%s: a file is named by its path alone: write %s",
				 locator,
				 strncmp(locator + 5, "//", 2) == 0 ? locator + 7 : locator + 5);
	return error_set(err, EINVAL,
			 "%s: neither a file nor an NBD URI, which is " OURS "; a file "
			 "of that name is ./%s",
			 locator, locator);
}

int locator_check_path(const char *locator, const char *what, struct error *err)
{
	int kind = locator_kind(locator, err);

	if (kind == LOCATOR_URI)
		return error_set(err, EINVAL, "%s: %s is named by a path, not by a URI", locator,
				 what);
	return kind < 0 ? kind : 0;
}
