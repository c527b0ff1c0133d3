#include "base/notice.h"

#include <stdarg.h>
#include <stdio.h>

void notice_tell(const struct notice *notice, const char *fmt, ...)
{
	char text[512];
	va_list args;

	if (!notice->tell)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	notice->tell(notice->opaque, text);
}
