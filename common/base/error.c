#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, int errnum, const char *fmt, ...)
{
	int saved = errno;
	struct error made;
	va_list args;

	if (err) {
		va_start(args, fmt);
		vsnprintf(made.text, sizeof(made.text), fmt, args);
		va_end(args);
		strcpy(err->text, made.text);
	}
	errno = saved;
	return -errnum;
}

const char *error_reason(int errnum)
{
	switch (errnum) {
	case ENOTCONN:
		return "the connection to the server is lost";
	case ESTALE:
		return "the server has another disk now, or has lost what it had acknowledged, or gives "
		       "back an older one: it must be opened anew";
	case EILSEQ:
		return "its integrity is broken: what lies there isn't what was written";
	default:
		return strerror(errnum);
	}
}
