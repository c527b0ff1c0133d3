#include "library/message.h"

#include <stdarg.h>
#include <stdio.h>

#include "library/ndio.h"

static _Thread_local char text[512];

int message_set(int errnum, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return -errnum;
}

const char *ndio_error(void)
{
	return text;
}
