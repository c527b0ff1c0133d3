#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"

#define BAR_MAX 50

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static unsigned columns(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

/* "[=====>     ] ", as wide as the terminal has room beside rest bytes of text. */
static void draw_bar(double part, size_t rest)
{
	char bar[BAR_MAX + 1];
	size_t width = columns(), full;

	width = width > rest + 4 ? width - rest - 4 : 0;
	if (width > BAR_MAX)
		width = BAR_MAX;
	full = part * width;
	memset(bar, ' ', width);
	memset(bar, '=', full);
	if (full < width)
		bar[full] = '>';
	bar[width] = '\0';
	if (width > 1)
		fprintf(stderr, "[%s] ", bar);
}

static void draw(struct progress *progress, uint64_t done, uint64_t total)
{
	double seconds = progress->last - progress->start;
	double part = total == 0 ? 1 : (double)done / total;
	char size[16], rate[16], text[64];

	cmd_size_text(done, size);
	cmd_size_text(seconds > 0 ? done / seconds : 0, rate);
	fputc('\r', stderr);
	if (total == UINT64_MAX) {
		snprintf(text, sizeof(text), "%s, %s/s", size, rate);
	} else {
		snprintf(text, sizeof(text), "%3u%%  %s, %s/s", (unsigned)(part * 100), size, rate);
		draw_bar(part, strlen(text));
	}
	fprintf(stderr, "%s\033[K", text);
	fflush(stderr);
}

void progress_start(struct progress *progress, bool wanted)
{
	*progress = (struct progress){ .on = wanted && isatty(STDERR_FILENO), .start = now() };
	progress->last = progress->start;
}

void progress_update(struct progress *progress, uint64_t done, uint64_t total)
{
	double time;

	if (!progress->on)
		return;
	time = now();
	if (time - progress->last < PROGRESS_INTERVAL_MS / 1e3)
		return;
	progress->last = time;
	draw(progress, done, total);
}

void progress_end(struct progress *progress, uint64_t done, uint64_t total)
{
	if (!progress->on)
		return;
	progress->last = now();
	draw(progress, done, total);
	fputc('\n', stderr);
	progress->on = false;
}
