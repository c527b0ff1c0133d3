/* Preloaded into nbdkit: what it tells syslog goes to the file $SYSLOG_FILE, a line each. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

void __vsyslog_chk(int priority, int flag, const char *fmt, va_list args)
	__attribute__((format(printf, 3, 0)));
void __syslog_chk(int priority, int flag, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

void vsyslog(int priority, const char *fmt, va_list args)
{
	const char *path = getenv("SYSLOG_FILE");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	char text[4096];

	(void)priority;
	vsnprintf(text, sizeof(text) - 1, fmt, args);
	strcat(text, "\n");
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
}

void syslog(int priority, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsyslog(priority, fmt, args);
	va_end(args);
}

void __vsyslog_chk(int priority, int flag, const char *fmt, va_list args)
{
	(void)flag;
	vsyslog(priority, fmt, args);
}

void __syslog_chk(int priority, int flag, const char *fmt, ...)
{
	va_list args;

	(void)flag;
	va_start(args, fmt);
	vsyslog(priority, fmt, args);
	va_end(args);
}
